"""What a model architecture is called, and how its numbers and tensors are stored, in GGUF and in Hugging Face files.

One set of rules per family, used in both directions. Sources: llama.cpp's convert_hf_to_gguf.py for keys, tensor names
and the row permutation; its src/llama-model.cpp for which optional tensors an architecture reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ExportError, ModelError

Array = npt.NDArray[np.float32]

PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True)
class Architecture:
    """The rules of one family.

    Attributes:
        name: the Hugging Face class.
        model_type: the Hugging Face model_type.
        gguf: llama.cpp's name of the architecture.
        permuted: rows of q and k are interleaved per head, because llama.cpp rotates neighbouring pairs here.
        norms: norms inside the attention block.
        biases: projections that always have a bias.
        optional_biases: config key -> projections that have a bias when it is true.
    """

    name: str
    model_type: str
    gguf: str
    permuted: bool = False
    norms: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    optional_biases: tuple[tuple[str, tuple[str, ...]], ...] = ()


_LLAMA_BIASES = (("attention_bias", PROJECTIONS), ("mlp_bias", MLP))
_ARCHITECTURES = (
    Architecture("LlamaForCausalLM", "llama", "llama", permuted=True, optional_biases=_LLAMA_BIASES),
    Architecture("MistralForCausalLM", "mistral", "llama", permuted=True),
    Architecture("Qwen2ForCausalLM", "qwen2", "qwen2", biases=PROJECTIONS[:3]),
    Architecture("Qwen3ForCausalLM", "qwen3", "qwen3", norms=("self_attn.q_norm", "self_attn.k_norm")),
)

SUPPORTED: tuple[str, ...] = tuple(rules.name for rules in _ARCHITECTURES)
"""Hugging Face classes that can be exported."""

SUPPORTED_GGUF: tuple[str, ...] = tuple(dict.fromkeys(rules.gguf for rules in _ARCHITECTURES))
"""GGUF architectures that can be imported."""


def for_config(config: Mapping[str, Any]) -> Architecture:
    """The rules for a config.json.

    Raises:
        ExportError: no rules for its architecture.
    """
    named = (config.get("architectures") or [None])[0]
    for rules in _ARCHITECTURES:
        if rules.name == named or (named is None and rules.model_type == config.get("model_type")):
            return rules
    raise ExportError(
        f"no GGUF rules for the architecture {named or config.get('model_type') or 'of a config without a name'}",
        where="config.json",
        fix=f"supported are {', '.join(SUPPORTED)}",
    )


def for_gguf(name: str) -> Architecture:
    """The rules for a GGUF's `general.architecture`; "llama" is read as LlamaForCausalLM, Mistral files too.

    Raises:
        ModelError: no rules for it.
    """
    for rules in _ARCHITECTURES:
        if rules.gguf == name:
            return rules
    raise ModelError(
        f"cannot import a GGUF of the architecture {name}", fix=f"supported are {', '.join(SUPPORTED_GGUF)}"
    )


def permute(values: Array, heads: int) -> Array:
    """Rows of q or k, (heads * head_dim, ...), from Hugging Face's order to GGUF's of a `permuted` architecture."""
    # (heads, 2, half, ...) -> (heads, half, 2, ...): the two halves of a head become neighbouring pairs.
    split = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(values.shape)


def unpermute(values: Array, heads: int) -> Array:
    """The inverse of `permute`."""
    split = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(values.shape)
