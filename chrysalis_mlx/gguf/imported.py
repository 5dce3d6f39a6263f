"""The metadata of a GGUF -> config.json, for the families that can be imported: llama, qwen2, qwen3."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.gguf import architectures
from chrysalis_mlx.gguf.rope import recognize_llama3

Array = npt.NDArray[np.float32]

_IMPORTED = ("llama", "qwen2", "qwen3")
_ATTENTION, _MLP = ("attn_q", "attn_k", "attn_v", "attn_output"), ("ffn_gate", "ffn_up", "ffn_down")


def config_of(fields: Mapping[str, Any], tensors: Set[str], *, vocab: int, factors: Array | None) -> dict[str, Any]:
    """config.json of the float32 model that a GGUF holds, without token ids.

    Args:
        fields: key -> Python value.
        tensors: GGUF names of all tensors, which tell of biases and tied embeddings.
        vocab: rows of the embedding.
        factors: `rope_freqs.weight`, if the file has it.

    Raises:
        ModelError: an unsupported architecture, or something these rules do not cover.
    """
    name = str(fields.get("general.architecture"))
    if name not in _IMPORTED:
        raise ModelError(
            f"cannot import a GGUF of the architecture {name}", fix=f"supported are {', '.join(_IMPORTED)}"
        )
    family = architectures.for_gguf(name)
    _check_covered(name, fields)
    try:
        heads, hidden = int(fields[f"{name}.attention.head_count"]), int(fields[f"{name}.embedding_length"])
        head_dim = int(fields.get(f"{name}.attention.key_length", hidden // heads))
        theta = _shortest(fields.get(f"{name}.rope.freq_base", 10000.0))
        for key in ("attention.value_length", "rope.dimension_count"):
            if int(fields.get(f"{name}.{key}", head_dim)) != head_dim:
                raise ModelError(f"the rules do not cover {name}.{key} = {fields[f'{name}.{key}']}")
        return {
            "architectures": [family.classes[0]],
            "model_type": family.model_type,
            "hidden_act": "silu",
            "hidden_size": hidden,
            "intermediate_size": int(fields[f"{name}.feed_forward_length"]),
            "num_hidden_layers": int(fields[f"{name}.block_count"]),
            "num_attention_heads": heads,
            "num_key_value_heads": int(fields.get(f"{name}.attention.head_count_kv", heads)),
            "head_dim": head_dim,
            "max_position_embeddings": int(fields[f"{name}.context_length"]),
            "vocab_size": vocab,
            "rms_norm_eps": _shortest(fields[f"{name}.attention.layer_norm_rms_epsilon"]),
            **_rope(factors, head_dim, theta),
            "tie_word_embeddings": "output.weight" not in tensors,
            **_biases(family.classes[0], family.bias_keys, tensors),
            "torch_dtype": "float32",
            "dtype": "float32",
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the GGUF's metadata lack a usable value: {error}") from error


def _rope(factors: Array | None, head_dim: int, theta: float) -> dict[str, Any]:
    """The rotary positions as mlx-lm (the first two keys) and as transformers 5 (the third) read them."""
    scaling = recognize_llama3(factors, head_dim, theta)
    rope: dict[str, Any] = {"rope_type": "default"}
    if scaling is not None:
        rope = {"rope_type": "llama3", **dict(scaling)}
        rope["original_max_position_embeddings"] = int(rope["original_max_position_embeddings"])
    return {
        "rope_theta": theta,
        "rope_scaling": None if scaling is None else rope,
        "rope_parameters": {**rope, "rope_theta": theta},
    }


def _shortest(value: float) -> float:
    """1e-05 for the float32 0.000009999999747: what was meant, and the same float32 again."""
    return float(str(np.float32(value)))


def _check_covered(name: str, fields: Mapping[str, Any]) -> None:
    if int(fields.get("split.count", 1)) > 1:
        raise ModelError("the GGUF is one part of several", fix="join them with llama-gguf-split --merge")
    scaling = fields.get(f"{name}.rope.scaling.type", "none")
    if scaling != "none":
        raise ModelError(f"the rules do not cover the rotary scaling {scaling}")
    for key in ("expert_count", "attention.sliding_window", "attention.scale", "logit_scale", "embedding_scale"):
        if fields.get(f"{name}.{key}"):
            raise ModelError(f"the rules do not cover {name}.{key} = {fields[f'{name}.{key}']}")


def _biases(class_name: str, keys: tuple[str, ...], tensors: Set[str]) -> dict[str, bool]:
    """The keys of config.json that switch biases on, from the first block: all or none of each group has them."""
    groups, found = {"attention_bias": _ATTENTION, "mlp_bias": _MLP}, {}
    for key in keys:
        have = [name for name in groups[key] if f"blk.0.{name}.bias" in tensors]
        if have and len(have) != len(groups[key]):
            raise ModelError(f"only {', '.join(have)} have a bias, {key} of {class_name} means all or none")
        found[key] = bool(have)
    return found
