"""The numbers of a model: config.json <-> GGUF metadata, and with them the list of its tensors.

Source of the keys: llama.cpp's convert_hf_to_gguf.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ExportError, ModelError
from chrysalis_mlx.gguf.architectures import (
    MLP,
    NORMS,
    PROJECTIONS,
    Architecture,
    for_config,
    for_gguf,
    permute,
    unpermute,
)
from chrysalis_mlx.gguf.rope import Scaling, llama3_factors, llama3_scaling, recognize_llama3, rope_section, rope_theta

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Hyperparameters:
    """What both formats say about a model, in one vocabulary of names.

    Attributes:
        llama3_scaling: the `rope_scaling` of Llama 3.1 and later, without its type; None without scaling.
        biased: projections with a bias.
    """

    rules: Architecture
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    vocab: int
    rms_eps: float
    rope_theta: float
    llama3_scaling: Scaling | None
    tied: bool
    biased: tuple[str, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Hyperparameters:
        """Read a config.json.

        Raises:
            ExportError: an unsupported architecture, or something in the config that these rules do not cover.
        """
        rules = for_config(config)
        _check_covered(rules, config)
        try:
            heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
            return cls(
                rules=rules,
                layers=int(config["num_hidden_layers"]),
                hidden=hidden,
                intermediate=int(config["intermediate_size"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                context=int(config["max_position_embeddings"]),
                vocab=int(config["vocab_size"]),
                rms_eps=float(config["rms_norm_eps"]),
                rope_theta=rope_theta(config),
                llama3_scaling=llama3_scaling(config),
                tied=bool(config.get("tie_word_embeddings", False)),
                biased=rules.biases
                + tuple(name for key, names in rules.optional_biases if config.get(key) for name in names),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ExportError(f"config.json lacks a usable value: {error}", where="config.json") from error

    def gguf_metadata(self) -> dict[str, int | float | str]:
        """The architecture's keys of a GGUF; ints are stored as uint32, floats as float32."""
        arch = self.rules.gguf
        values: dict[str, int | float | str] = {
            "vocab_size": self.vocab,
            "context_length": self.context,
            "embedding_length": self.hidden,
            "block_count": self.layers,
            "feed_forward_length": self.intermediate,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": self.head_dim,
            "attention.value_length": self.head_dim,
            "attention.layer_norm_rms_epsilon": self.rms_eps,
            "rope.dimension_count": self.head_dim,
            "rope.freq_base": self.rope_theta,
        }
        return {f"{arch}.{key}": value for key, value in values.items()}

    @classmethod
    def from_gguf(
        cls, fields: Mapping[str, Any], tensors: Set[str], *, vocab: int, factors: Array | None
    ) -> Hyperparameters:
        """Read a GGUF's metadata.

        Args:
            fields: key -> Python value.
            tensors: GGUF names of all tensors, which tell of biases and tied embeddings.
            vocab: rows of the embedding.
            factors: `rope_freqs.weight`, if the file has it.

        Raises:
            ModelError: an unsupported architecture, or something these rules do not cover.
        """
        rules = for_gguf(str(fields.get("general.architecture")))
        _check_covered_gguf(rules, fields)
        prefix = rules.gguf + "."
        try:
            heads, hidden = int(fields[prefix + "attention.head_count"]), int(fields[prefix + "embedding_length"])
            head_dim = int(fields.get(prefix + "attention.key_length", hidden // heads))
            theta = _shortest(fields.get(prefix + "rope.freq_base", 10000.0))
            for key in ("attention.value_length", "rope.dimension_count"):
                if int(fields.get(prefix + key, head_dim)) != head_dim:
                    raise ModelError(f"the rules do not cover {prefix}{key} = {fields[prefix + key]}")
            return cls(
                rules=rules,
                layers=int(fields[prefix + "block_count"]),
                hidden=hidden,
                intermediate=int(fields[prefix + "feed_forward_length"]),
                heads=heads,
                kv_heads=int(fields.get(prefix + "attention.head_count_kv", heads)),
                head_dim=head_dim,
                context=int(fields[prefix + "context_length"]),
                vocab=vocab,
                rms_eps=_shortest(fields[prefix + "attention.layer_norm_rms_epsilon"]),
                rope_theta=theta,
                llama3_scaling=recognize_llama3(factors, head_dim, theta),
                tied="output.weight" not in tensors,
                biased=_biases_of(rules, tensors),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the GGUF's metadata lack a usable value: {error}") from error

    def to_config(self) -> dict[str, Any]:
        """config.json of the float32 model, without token ids."""
        rope: dict[str, Any] = {"rope_type": "default"}
        if self.llama3_scaling is not None:
            rope = {"rope_type": "llama3", **dict(self.llama3_scaling)}
            rope["original_max_position_embeddings"] = int(rope["original_max_position_embeddings"])
        return {
            "architectures": [self.rules.name],
            "model_type": self.rules.model_type,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.context,
            "vocab_size": self.vocab,
            "rms_norm_eps": self.rms_eps,
            # mlx-lm reads the first two, transformers 5 the third.
            "rope_theta": self.rope_theta,
            "rope_scaling": rope if self.llama3_scaling is not None else None,
            "rope_parameters": {**rope, "rope_theta": self.rope_theta},
            "tie_word_embeddings": self.tied,
            **{key: set(names) <= set(self.biased) for key, names in self.rules.optional_biases},
            "torch_dtype": "float32",
            "dtype": "float32",
        }

    @property
    def wide(self) -> bool:
        """A 70B model in llama.cpp's eyes, see `quantize.choose`."""
        return self.layers == 80 and self.rules.gguf in ("llama", "qwen2") and self.heads != self.kv_heads

    def tensor_names(self) -> dict[str, str]:
        """Hugging Face name -> GGUF name of every weight that the model has, in layer order."""
        import gguf

        arch = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[self.rules.gguf]
        table = gguf.get_tensor_name_map(arch, self.layers)
        modules = ["model.embed_tokens.weight"]
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            modules += [f"{prefix}{name}.weight" for name in (*NORMS, *self.rules.norms, *PROJECTIONS, *MLP)]
            modules += [f"{prefix}{name}.bias" for name in self.biased]
        modules += ["model.norm.weight"] + ([] if self.tied else ["lm_head.weight"])
        names = {}
        for module in modules:
            found = table.get_name(module, try_suffixes=(".weight", ".bias"))
            if found is None:
                raise ExportError(f"the gguf package knows no name for {module} of {self.rules.gguf}")
            names[module] = str(found)
        return names

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Hugging Face name -> shape, (out, in) or (out,), for every name of `tensor_names`."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sizes = {
            **dict(
                zip(
                    PROJECTIONS, ((q, self.hidden), (kv, self.hidden), (kv, self.hidden), (self.hidden, q)), strict=True
                )
            ),
            **dict.fromkeys(MLP[:2], (self.intermediate, self.hidden)),
            MLP[2]: (self.hidden, self.intermediate),
            **dict.fromkeys(self.rules.norms, (self.head_dim,)),
        }
        shapes: dict[str, tuple[int, ...]] = {}
        for name in self.tensor_names():
            module, _, part = name.removeprefix("model.").rpartition(".")
            if module in ("embed_tokens", "lm_head"):
                shapes[name] = (self.vocab, self.hidden)
                continue
            size: tuple[int, ...] = sizes.get(module.split(".", 2)[-1], (self.hidden,))
            shapes[name] = size[:1] if part == "bias" else size
        return shapes

    def permuted(self, name: str, values: Array) -> Array:
        """A Hugging Face tensor with its rows in GGUF's order, (out, in) or (out,); `name` is the Hugging Face name."""
        heads = self._permuted_heads(name)
        return values if heads == 0 else permute(values, heads)

    def unpermuted(self, name: str, values: Array) -> Array:
        """The inverse of `permuted`."""
        heads = self._permuted_heads(name)
        return values if heads == 0 else unpermute(values, heads)

    def rope_frequency_factors(self) -> Array | None:
        """(head_dim / 2,) divisors of the rotary frequencies, stored as `rope_freqs.weight`; None without scaling."""
        if self.llama3_scaling is None:
            return None
        return llama3_factors(self.head_dim, self.rope_theta, dict(self.llama3_scaling))

    def _permuted_heads(self, name: str) -> int:
        if not self.rules.permuted:
            return 0
        return self.heads if ".q_proj." in name else self.kv_heads if ".k_proj." in name else 0


def _shortest(value: float) -> float:
    """1e-05 for the float32 0.000009999999747: what was meant, and the same float32 again."""
    return float(str(np.float32(value)))


def _check_covered(rules: Architecture, config: Mapping[str, Any]) -> None:
    if "quantization" in config or "quantization_config" in config:
        raise ExportError(
            "the weights are quantized already",
            where="config.json",
            fix="fuse or dequantize the model before the export",
        )
    rope = rope_section(config)
    kind = rope.get("rope_type", rope.get("type", "default"))
    allowed = ("default", "llama3") if rules.name == "LlamaForCausalLM" else ("default",)
    if kind not in allowed:
        _uncovered("rope_scaling", kind)
    for where in (rope, config):
        if where.get("partial_rotary_factor", 1.0) != 1.0:
            _uncovered("partial_rotary_factor", where["partial_rotary_factor"])
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        _uncovered("hidden_act", config["hidden_act"])
    # Mistral has a window whenever sliding_window is set, Qwen only when use_sliding_window is true as well;
    # one as long as the context never acts.
    window = config.get("sliding_window") if config.get("use_sliding_window", rules.model_type == "mistral") else None
    if window is not None and int(window) < int(config.get("max_position_embeddings", 0)):
        _uncovered("sliding_window", window)
    allowed_layers = {"full_attention", "sliding_attention"} if window is not None else {"full_attention"}
    if strange := set(config.get("layer_types") or ()) - allowed_layers:
        _uncovered("layer_types", ", ".join(sorted(strange)))
    covered = {key for key, _ in rules.optional_biases}
    for key in ("attention_bias", "mlp_bias", "num_local_experts", "num_experts"):
        if config.get(key) and key not in covered:
            _uncovered(key, config[key])


def _uncovered(key: str, value: object) -> NoReturn:
    raise ExportError(
        f"the GGUF rules do not cover {key} = {value}",
        where="config.json",
        fix="export would give a model that behaves differently; choose another base model",
    )


def _check_covered_gguf(rules: Architecture, fields: Mapping[str, Any]) -> None:
    if int(fields.get("split.count", 1)) > 1:
        raise ModelError("the GGUF is one part of several", fix="join them with llama-gguf-split --merge")
    scaling = fields.get(f"{rules.gguf}.rope.scaling.type", "none")
    if scaling != "none":
        raise ModelError(f"the rules do not cover the rotary scaling {scaling}")
    for key in ("expert_count", "attention.sliding_window", "attention.scale", "logit_scale", "embedding_scale"):
        if fields.get(f"{rules.gguf}.{key}"):
            raise ModelError(f"the rules do not cover {rules.gguf}.{key} = {fields[f'{rules.gguf}.{key}']}")


def _biases_of(rules: Architecture, tensors: Set[str]) -> tuple[str, ...]:
    """The projections with a bias in the first block; all or none of each group that a config key names."""
    stored = dict(
        zip(
            (*PROJECTIONS, *MLP),
            ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"),
            strict=True,
        )
    )
    biased = rules.biases
    for key, names in rules.optional_biases:
        have = [name for name in names if f"blk.0.{stored[name]}.bias" in tensors]
        if have and len(have) != len(names):
            raise ModelError(f"only {', '.join(have)} have a bias, {key} of {rules.name} means all or none")
        biased += tuple(have)
    return biased
