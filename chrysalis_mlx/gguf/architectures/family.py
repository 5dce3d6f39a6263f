"""What all families have in common: a llama-like stack of layers, and what config.json says of it.

A family's own file says only where it differs. Sources: llama.cpp's conversion scripts for keys and for what becomes of
a tensor; its src/models/*.cpp for which tensors and keys an architecture reads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf.architectures.tensor import Tensor
from chrysalis_mlx.gguf.quantize import Traits
from chrysalis_mlx.gguf.rope import rope_section, rope_theta, rope_type
from chrysalis_mlx.models.parameters import text_config

EMBEDDING = "model.embed_tokens.weight"

Value = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]


@dataclass(frozen=True)
class Module:
    """A module inside a layer.

    Attributes:
        stored: its name inside a block of the GGUF.
        shape: of its weight.
        bias: whether it has one, as long as the weight has rows.
        heads: its rows are interleaved per head.
    """

    stored: str
    shape: tuple[int, ...]
    bias: bool = False
    heads: int = 0


class Family:
    """The rules of one family, bound to one config.json.

    Args:
        config: config.json, of a model whose weights are read unquantized.

    Raises:
        ExportError: a number is missing, or the config holds something that these rules do not cover.
    """

    classes: ClassVar[tuple[str, ...]]
    """Hugging Face classes, the common one first."""
    model_type: ClassVar[str]
    gguf: ClassVar[str]
    """llama.cpp's name of the architecture."""
    permuted: ClassVar[bool] = False
    """Rows of q and k are interleaved per head."""
    norm_offset: ClassVar[float] = 0.0
    """Added to the weights of norms."""
    rope_types: ClassVar[tuple[str, ...]] = ("default",)
    activations: ClassVar[tuple[str, ...]] = ("silu", "swish")
    epsilon: ClassVar[tuple[str, str]] = ("rms_norm_eps", "attention.layer_norm_rms_epsilon")
    """What the norms' epsilon is called in config.json and in GGUF."""
    bias_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of config.json that may switch biases on."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """What the Hugging Face class takes where config.json is silent."""
    whole_heads: ClassVar[bool] = False
    """llama.cpp takes it that all heads together are as wide as the model."""
    always_tied: ClassVar[bool] = False
    """llama.cpp uses the embedding as output head, whatever the file holds."""
    use_window: ClassVar[bool] = True
    """What `use_sliding_window` is where config.json is silent."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = {**self.defaults, **text_config(config)}
        self.rope = rope_section(self.config)
        try:
            self._read(self.config)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise ExportError(f"config.json lacks a usable value: {error!r}", where="config.json") from error
        self._check_covered()

    def _read(self, config: Mapping[str, Any]) -> None:
        self.layers = int(config["num_hidden_layers"])
        self.hidden = int(config["hidden_size"])
        self.intermediate = int(config["intermediate_size"])
        self.heads = int(config["num_attention_heads"])
        self.kv_heads = int(config.get("num_key_value_heads") or self.heads)
        self.head_dim = int(config.get("head_dim") or self.hidden // self.heads)
        self.rotary = self.head_dim
        self.context = int(config["max_position_embeddings"])
        self.vocab = int(config["vocab_size"])
        self.eps = float(config[self.epsilon[0]])
        self.rope_theta = rope_theta(config)
        self.tied = bool(config.get("tie_word_embeddings", False))

    @property
    def traits(self) -> Traits:
        """What the choice of a tensor's type depends on."""
        return Traits(layers=self.layers, gqa=self.heads // self.kv_heads, experts=0, tied=self.tied, wide=self.wide)

    @property
    def wide(self) -> bool:
        """A 70B model in llama.cpp's eyes, see `quantize.choose`."""
        return False

    def metadata(self) -> dict[str, Value]:
        """The architecture's keys of a GGUF; ints are stored as uint32, floats as float32."""
        return {f"{self.gguf}.{key}": value for key, value in self.keys().items()}

    def keys(self) -> dict[str, Value]:
        """The keys, without the architecture's name before them."""
        return {
            "vocab_size": self.vocab,
            "context_length": self.context,
            "embedding_length": self.hidden,
            "block_count": self.layers,
            "feed_forward_length": self.intermediate,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": self.head_dim,
            "attention.value_length": self.head_dim,
            self.epsilon[1]: self.eps,
            "rope.dimension_count": self.rotary,
            "rope.freq_base": self.rope_theta,
        }

    def tensors(self, names: Collection[str]) -> list[Tensor]:
        """Every tensor of the GGUF, in its order.

        Args:
            names: what the checkpoint holds; some families are stored in more than one way.
        """
        held = frozenset(names)
        found = [Tensor.of("token_embd.weight", (self.vocab, self.hidden), EMBEDDING)]
        for layer in range(self.layers):
            for name, module in self.modules().items():
                found += self._of_module(f"model.layers.{layer}.{name}", f"blk.{layer}.{module.stored}", module)
            found += self.experts(layer, held)
        norm = Module("output_norm", (self.hidden,))
        found += self._of_module("model.norm", norm.stored, norm)
        return found + self.output() + self.computed()

    def source_shapes(self, tensors: Sequence[Tensor]) -> dict[str, tuple[int, ...]]:
        """The shape that each tensor of the checkpoint must have."""
        return {tensor.parts[0].source: tensor.shape for tensor in tensors if len(tensor.parts) == 1}

    def modules(self) -> dict[str, Module]:
        """Hugging Face name inside a layer -> what becomes of it; every layer has the same."""
        return {**self.norms(), **self.attention(), **self.mlp()}

    def norms(self) -> dict[str, Module]:
        wide = (self.hidden,)
        return {"input_layernorm": Module("attn_norm", wide), "post_attention_layernorm": Module("ffn_norm", wide)}

    def attention(self) -> dict[str, Module]:
        q, kv, bias = self.heads * self.head_dim, self.kv_heads * self.head_dim, self.has_bias("attention_bias")
        heads, kv_heads = (self.heads, self.kv_heads) if self.permuted else (0, 0)
        return {
            "self_attn.q_proj": Module("attn_q", (q, self.hidden), bias, heads),
            "self_attn.k_proj": Module("attn_k", (kv, self.hidden), bias, kv_heads),
            "self_attn.v_proj": Module("attn_v", (kv, self.hidden), bias),
            "self_attn.o_proj": Module("attn_output", (self.hidden, q), bias),
        }

    def mlp(self) -> dict[str, Module]:
        bias = self.has_bias("mlp_bias")
        return {
            "mlp.gate_proj": Module("ffn_gate", (self.intermediate, self.hidden), bias),
            "mlp.up_proj": Module("ffn_up", (self.intermediate, self.hidden), bias),
            "mlp.down_proj": Module("ffn_down", (self.hidden, self.intermediate), bias),
        }

    def experts(self, layer: int, names: frozenset[str]) -> list[Tensor]:
        """Stacked experts of a layer."""
        return []

    def output(self) -> list[Tensor]:
        """The output head; none where the embedding is used."""
        return [] if self.tied else [Tensor.of("output.weight", (self.vocab, self.hidden), "lm_head.weight")]

    def computed(self) -> list[Tensor]:
        """Tensors that stand in no checkpoint."""
        return []

    def has_bias(self, key: str) -> bool:
        """Whether a key that this family knows switches biases on."""
        return key in self.bias_keys and bool(self.config.get(key))

    def _of_module(self, name: str, stored: str, module: Module) -> list[Tensor]:
        plus = self.norm_offset if name.endswith("norm") else 0.0
        found = [Tensor.of(f"{stored}.weight", module.shape, f"{name}.weight", heads=module.heads, plus=plus)]
        if module.bias:
            found.append(Tensor.of(f"{stored}.bias", module.shape[:1], f"{name}.bias", heads=module.heads))
        return found

    def _check_covered(self) -> None:
        """Refuse what would make llama.cpp compute something else than the model does."""
        config = self.config
        if "quantization" in config or "quantization_config" in config:
            raise ExportError(
                "the weights are quantized already",
                where="config.json",
                fix="fuse or dequantize the model before the export",
            )
        if rope_type(self.rope) not in self.rope_types:
            self.uncovered("rope_scaling", rope_type(self.rope))
        activation = config.get("hidden_activation") or config.get("hidden_act") or self.activations[0]
        if activation not in self.activations:
            self.uncovered("hidden_act", activation)
        self._check_rotary()
        self._check_window()
        for key in ("attention_bias", "mlp_bias"):
            if config.get(key) and key not in self.bias_keys:
                self.uncovered(key, config[key])
        for key in ("num_local_experts", "num_experts"):
            if config.get(key) and not self.traits.experts:
                self.uncovered(key, config[key])
        if self.whole_heads and self.heads * self.head_dim != self.hidden:
            self.uncovered("head_dim", self.head_dim)
        if self.always_tied and not self.tied:
            self.uncovered("tie_word_embeddings", self.tied)

    def _check_rotary(self) -> None:
        for where in (self.rope, self.config):
            if (where.get("partial_rotary_factor") or 1.0) != 1.0:
                self.uncovered("partial_rotary_factor", where["partial_rotary_factor"])

    def _check_window(self) -> None:
        """Refuse a window that acts; one as long as the context never does."""
        used = self.config.get("use_sliding_window", self.use_window)
        window = self.config.get("sliding_window") if used else None
        if window is not None and int(window) < self.context:
            self.uncovered("sliding_window", window)
        allowed = {"full_attention"} if window is None else {"full_attention", "sliding_attention"}
        if strange := set(self.config.get("layer_types") or ()) - allowed:
            self.uncovered("layer_types", ", ".join(sorted(strange)))

    def uncovered(self, key: str, value: object) -> NoReturn:
        """Raise for a setting that these rules do not cover."""
        raise ExportError(
            f"the GGUF rules of {self.classes[0]} do not cover {key} = {value}",
            where="config.json",
            fix="export would give a model that behaves differently; choose another base model",
        )
