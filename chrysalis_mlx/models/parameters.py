"""How many parameters a model has: counted in its weights, else computed from its config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.checkpoint import Checkpoint

BUFFERS = (".rotary_emb.inv_freq",)  # stored by old checkpoints, and computed anyway

# model_type -> what its config.json may leave out, because the class has it as a default.
_GEMMA3 = {
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
    "tie_word_embeddings": True, "max_position_embeddings": 131072,
}  # fmt: skip
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {"tie_word_embeddings": True},
    "gemma2": {"tie_word_embeddings": True},
    "gemma3_text": _GEMMA3,
    "smollm3": {"tie_word_embeddings": True},
}
# model_type -> weights beside the matrices that all have: biases of q, k and v; norms of the hidden size in a layer;
# what the norms of q and k are as long as.
_QKV_BIAS = {"qwen2", "qwen2_moe"}
_FOUR_NORMS = {"gemma2", "gemma3_text"}
_NORM_OF_HEAD = {"qwen3", "qwen3_moe", "gemma3_text"}
_NORM_OF_ALL_HEADS = {"olmo2"}


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config.json that speaks of the language model, with what its class would fill in."""
    nested = config.get("text_config")
    text = dict(nested) if isinstance(nested, Mapping) else dict(config)
    text.setdefault("model_type", config.get("model_type"))
    return {**_DEFAULTS.get(str(text["model_type"]), {}), **text}


def quantized_bits(config: Mapping[str, Any]) -> int | None:
    """Bits of a quantized weight; None for a model that is not quantized."""
    for key in ("quantization", "quantization_config"):
        settings = config.get(key)
        if isinstance(settings, Mapping):
            bits = settings.get("bits") or settings.get("w_bit")
            four = settings.get("load_in_4bit") or "fp4" in str(settings.get("quant_method"))
            return int(bits) if bits else 4 if four else 8
    return None


def counted(checkpoint: Checkpoint, config: Mapping[str, Any]) -> int:
    """Parameters of the tensors of a checkpoint; packed ones count as what they stand for.

    Weights that are tied, and stored twice all the same, count once.
    """
    total = 0
    for name in checkpoint.names:
        tied = name == "lm_head.weight" and text_config(config).get("tie_word_embeddings")
        if not tied and not name.endswith(BUFFERS):
            total += math.prod(checkpoint.shape(name))
    return total


def estimated(config: Mapping[str, Any]) -> int:
    """Parameters of a model of the llama family (gated MLP, RMS norms, grouped queries), from its config.json.

    Exact for llama, mistral, qwen2, qwen3, qwen3_moe, gemma3_text, phi3, smollm3, olmo2 and granite; other types are
    taken for a llama. Vision and audio towers do not count.

    Raises:
        ModelError: the config lacks one of the numbers.
    """
    text = text_config(config)
    kind = str(text["model_type"])
    try:
        hidden, layers, heads = (int(text[key]) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
        embedding = int(text["vocab_size"]) * hidden
        head_dim = int(text.get("head_dim") or hidden // heads)
        queries, keys = heads * head_dim, int(text.get("num_key_value_heads") or heads) * head_dim
        attention = 2 * hidden * queries + 2 * hidden * keys
        if text.get("attention_bias"):
            attention += queries + 2 * keys + hidden
        elif kind in _QKV_BIAS:
            attention += queries + 2 * keys
        norms = hidden * (4 if kind in _FOUR_NORMS else 2)
        if kind in _NORM_OF_HEAD:
            norms += 2 * head_dim
        elif kind in _NORM_OF_ALL_HEADS:
            norms += queries + keys
        mlps = sum(_mlp(text, layer) for layer in range(layers))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(
            f"the number of parameters cannot be computed from config.json: {error!r}",
            fix="download the model's weights too; they are counted then",
        ) from error
    tied = bool(text.get("tie_word_embeddings"))
    return embedding * (1 if tied else 2) + layers * (attention + norms) + mlps + hidden


def _mlp(text: Mapping[str, Any], layer: int) -> int:
    """Parameters of one layer's MLP: gate, up and down; or of its experts and the router that chooses among them."""
    hidden, wide = int(text["hidden_size"]), int(text["intermediate_size"])
    experts = int(text.get("num_experts") or text.get("num_local_experts") or 0)
    sparse = (
        experts
        and layer not in (text.get("mlp_only_layers") or ())
        and ((layer + 1) % int(text.get("decoder_sparse_step") or 1) == 0)
    )
    if sparse:
        width = int(text.get("moe_intermediate_size") or wide)
        return experts * 3 * hidden * width + hidden * experts
    return 3 * hidden * wide + (2 * wide + hidden if text.get("mlp_bias") else 0)
