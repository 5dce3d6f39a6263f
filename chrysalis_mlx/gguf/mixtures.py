"""Which matrices of a block get another type than the file's base: the mixtures of llama.cpp's quantizer.

Source: llama.cpp, src/llama-quant.cpp, `llama_tensor_get_type_impl`. It counts the tensors of a kind as it goes through
the file layer by layer; with one of each kind per layer the count is the layer's number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """What the type of a block's matrix can depend on.

    Attributes:
        part: the matrix: "attn_v" in blk.7.attn_v.weight.
        layer: its block, from 0.
        layers: how many blocks the model has.
        gqa: query heads per key/value head.
        experts: experts per block; 0 for a dense model.
        wide: a 70B model in llama.cpp's eyes.
        importance: the file is made with an importance matrix.
    """

    part: str
    layer: int
    layers: int
    gqa: int
    experts: int
    wide: bool
    importance: bool


Condition = Callable[[Place], bool]


def _always(place: Place) -> bool:
    return True


def _before(layer: int) -> Condition:
    return lambda place: place.layer < layer


def _in_first(share: int) -> Condition:
    """The first layers, one in `share` of all."""
    return lambda place: place.layer < place.layers // share


def _more_bits(place: Place) -> bool:
    """The first eighth, the last eighth, and every third layer between."""
    eighth = place.layers // 8
    return place.layer < eighth or place.layer >= 7 * place.layers // 8 or (place.layer - eighth) % 3 == 2


def _grouped(place: Place) -> bool:
    """Four or more heads share keys and values: attn_v is small."""
    return place.gqa >= 4


def _four_experts(place: Place) -> bool:
    return place.experts >= 4


def _eight_experts(place: Place) -> bool:
    """Eight exactly: these are llama.cpp's rules for Mixtral."""
    return place.experts == 8


def _importance(place: Place) -> bool:
    return place.importance


def _not(condition: Condition) -> Condition:
    return lambda place: not condition(place)


def _both(one: Condition, other: Condition) -> Condition:
    return lambda place: one(place) and other(place)


@dataclass(frozen=True)
class Rule:
    """Matrices of one kind get this ggml type where the condition holds.

    Attributes:
        kind: a value of `_KINDS`.
        ggml_type: the type.
        when: the condition.
    """

    kind: str
    ggml_type: str
    when: Condition = _always


_KINDS: Mapping[str, str] = {
    "attn_v": "attn_v",
    "attn_qkv": "attn_v",
    "attn_k": "attn_k",
    "attn_output": "attn_output",
    "ffn_down": "ffn_down",
    "ffn_down_exps": "ffn_down",
}

_MIXTRAL_OUTPUT = Rule("attn_output", "Q5_K", _eight_experts)
_MORE_BITS = (Rule("attn_v", "Q6_K", _more_bits), Rule("ffn_down", "Q6_K", _more_bits))
_IQ4 = (
    Rule("attn_v", "Q5_K", _grouped),
    Rule("ffn_down", "Q5_K", _both(_in_first(8), _not(_importance))),
    _MIXTRAL_OUTPUT,
)

# The first rule of a file type that holds decides; where none does, the base type stays.
_MIXTURES: Mapping[str, tuple[Rule, ...]] = {
    "Q5_K_M": _MORE_BITS,
    "Q5_0": (Rule("ffn_down", "Q5_1", _both(_in_first(8), _importance)),),
    "Q4_K_M": (*_MORE_BITS, _MIXTRAL_OUTPUT),
    "Q4_K_S": (Rule("attn_v", "Q5_K", _before(4)), Rule("ffn_down", "Q5_K", _in_first(8)), _MIXTRAL_OUTPUT),
    "Q4_0": (Rule("ffn_down", "Q4_1", _both(_in_first(8), _importance)),),
    "IQ4_NL": _IQ4,
    "IQ4_XS": _IQ4,
    "Q3_K_L": (
        Rule("attn_v", "Q5_K"),
        Rule("ffn_down", "Q5_K"),
        Rule("attn_output", "Q5_K", _not(_eight_experts)),
    ),
    "Q3_K_M": (
        Rule("attn_v", "Q5_K", _before(2)),
        Rule("attn_v", "Q4_K"),
        Rule("ffn_down", "Q5_K", _in_first(16)),
        Rule("ffn_down", "Q4_K"),
        _MIXTRAL_OUTPUT,
        Rule("attn_output", "Q4_K"),
    ),
    "IQ3_M": (
        Rule("attn_v", "Q4_K"),
        Rule("ffn_down", "Q4_K", _in_first(8)),
        Rule("ffn_down", "Q4_K", _both(_eight_experts, _more_bits)),
        _MIXTRAL_OUTPUT,
        Rule("attn_output", "Q4_K"),
    ),
    "Q3_K_S": (_MIXTRAL_OUTPUT,),
    "Q2_K": (
        Rule("attn_v", "Q4_K", _grouped),
        Rule("attn_v", "Q3_K"),
        Rule("ffn_down", "Q3_K"),
        _MIXTRAL_OUTPUT,
        Rule("attn_output", "Q3_K"),
    ),
    "IQ2_M": (
        Rule("attn_v", "Q4_K", _grouped),
        Rule("attn_v", "Q4_K", _four_experts),
        Rule("attn_v", "IQ3_S"),
        Rule("attn_k", "Q4_K", _eight_experts),
        Rule("ffn_down", "IQ3_S", _in_first(8)),
        _MIXTRAL_OUTPUT,
        Rule("attn_output", "IQ3_S"),
    ),
}


def mixed(type_name: str, base: str, place: Place) -> str:
    """The ggml type of a block's matrix whose rows fit.

    Args:
        type_name: name of the file type.
        base: its base type.
        place: the matrix.
    """
    kind = _KINDS.get(place.part)
    rules = _MIXTURES.get(type_name, ())
    chosen = next((rule.ggml_type for rule in rules if rule.kind == kind and rule.when(place)), base)
    if type_name == "IQ2_M":  # llama.cpp's types below three bits have a branch of their own
        return chosen
    if kind in ("attn_v", "attn_k") and _eight_experts(place):
        return "Q8_0"
    return "Q5_K" if kind == "attn_v" and place.wide and chosen in ("Q3_K", "Q4_K") else chosen
