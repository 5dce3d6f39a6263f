"""llama.cpp's name of a byte-level BPE's pre-tokenizer <-> the parts of tokenizer.json that say the same.

llama.cpp has the splitting rules compiled in under a name, `tokenizer.ggml.pre`; tokenizer.json spells them out. A rule
is found by comparing what is spelled out, so it holds for any vocabulary. Each row was checked against llama.cpp's own
splitting by comparing token ids (tests/gguf/test_pretokenizers.py). Source of the names: src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chrysalis_mlx.errors import ExportError, ModelError

Json = dict[str, Any]

# Qwen2's and Llama 3's rules differ in how many digits stay together.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class PreTokenizer:
    """One rule.

    Attributes:
        name: `tokenizer.ggml.pre`.
        normalizer: of tokenizer.json. llama.cpp applies none, so text that is not in this form already is tokenized
            differently there; NFC text, which nearly all text is, is not.
        pre_tokenizer: of tokenizer.json.
        ignore_merges: of tokenizer.json's model: a piece that is a token is taken whole, whatever the merges say.
    """

    name: str
    normalizer: Json | None
    pre_tokenizer: Json
    ignore_merges: bool = False


def _byte_level(*, use_regex: bool) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": use_regex, "use_regex": use_regex}


def _split(pattern: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _sequence(*steps: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(steps)}


TABLE: tuple[PreTokenizer, ...] = (
    PreTokenizer("gpt-2", None, _byte_level(use_regex=True)),
    PreTokenizer("smollm", None, _sequence({"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True))),
    PreTokenizer("qwen2", {"type": "NFC"}, _sequence(_split(_WORDS.format(digits="")), _byte_level(use_regex=False))),
    PreTokenizer(
        "llama-bpe",
        None,
        _sequence(_split(_WORDS.format(digits="{1,3}")), _byte_level(use_regex=False)),
        ignore_merges=True,
    ),
)


def find(tokenizer: Mapping[str, Any]) -> PreTokenizer:
    """The rule of a tokenizer.json.

    Args:
        tokenizer: the parsed file, with a byte-level BPE in it.

    Raises:
        ExportError: no rule of the table says the same.
    """
    wanted = (_canonical(tokenizer.get("normalizer")), _canonical(tokenizer.get("pre_tokenizer")))
    ignore_merges = bool(tokenizer.get("model", {}).get("ignore_merges", False))
    for rule in TABLE:
        same = wanted == (_canonical(rule.normalizer), _canonical(rule.pre_tokenizer))
        if same and ignore_merges == rule.ignore_merges:
            return rule
    raise ExportError(
        "no llama.cpp pre-tokenizer is known to split like this tokenizer.json: "
        f"normalizer {tokenizer.get('normalizer')}, pre_tokenizer {tokenizer.get('pre_tokenizer')}, "
        f"ignore_merges {ignore_merges}",
        fix=f"known are {', '.join(rule.name for rule in TABLE)}; a wrong one would silently degrade the model",
    )


def named(name: str) -> PreTokenizer:
    """The rule of a GGUF's `tokenizer.ggml.pre`.

    Raises:
        ModelError: it is not in the table.
    """
    for rule in TABLE:
        if rule.name == name:
            return rule
    raise ModelError(
        f"cannot rebuild a tokenizer with the pre-tokenizer {name}",
        fix=f"known are {', '.join(rule.name for rule in TABLE)}; use the original Hugging Face model",
    )


def _canonical(step: Any) -> Any:
    """Without what does not change the splitting: offsets, defaults left out, sequences of one or none."""
    if step is None:
        return None
    kind = step.get("type")
    if kind == "Sequence":
        steps = [_canonical(inner) for inner in step.get("pretokenizers", step.get("normalizers", []))]
        return None if not steps else steps[0] if len(steps) == 1 else steps
    step = {key: value for key, value in step.items() if key != "trim_offsets"}
    if kind == "ByteLevel":
        step.setdefault("use_regex", True)
        step.setdefault("add_prefix_space", True)
    if kind == "Split":
        step.setdefault("invert", False)
    return step
