"""llama.cpp's name of a byte-level BPE's pre-tokenizer <-> the parts of tokenizer.json that say the same.

llama.cpp has the splitting rules compiled in under a name, `tokenizer.ggml.pre`; tokenizer.json spells them out. A rule
is found by comparing what is spelled out, so it holds for any vocabulary. Each row was checked against llama.cpp's own
splitting by comparing token ids (tests/gguf/test_pretokenizers.py). Published vocabularies that spell a rule in words
of their own are known by a hash (`pretokenizer_hashes`). Source of the names: src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chrysalis_mlx.errors import ExportError, ModelError
from chrysalis_mlx.gguf.vocabulary.pretokenizer_hashes import NAMES, fingerprint

Json = dict[str, Any]

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"

# Qwen2's and Llama 3's rules differ in how many digits stay together.
_WORDS = (
    _CONTRACTIONS + r"|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|" + _SPACES
)  # fmt: skip
# OpenAI's own spelling of Llama 3's rule: possessive quantifiers change nothing where nothing can be given back.
_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
_QWEN35 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _SPACES
)  # fmt: skip
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
# What llama.cpp takes for the two above: it knows upper and lower case of the Latin alphabet only, and no marks.
_NOT_LOWER, _NOT_UPPER = r"((?=[\p{L}])([^a-z]))", r"((?=[\p{L}])([^A-Z]))"
_DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^" + "\r\n" + r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[" + "\r\n" + r"]*|\s*[" + "\r\n" + r"]+|\s+(?!\S)|\s+"
)


def _cased(upper: str, lower: str, after: str, digits: str) -> str:
    """The rule of tekken and GPT-4o: a word ends where an upper-case letter follows a lower-case one."""
    before = r"[^\r\n\p{L}\p{N}]?"
    return (
        f"{before}{upper}*{lower}+{after}|{before}{upper}+{lower}*{after}"
        rf"|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|" + _SPACES
    )


@dataclass(frozen=True)
class PreTokenizer:
    """One rule.

    Attributes:
        name: `tokenizer.ggml.pre`.
        pre_tokenizer: of tokenizer.json.
        normalizer: of tokenizer.json, where models of this name have one. llama.cpp applies none, so NFC, the only one
            that `find` takes, is one that texts are in already, or they are tokenized differently there.
        ignore_merges: of tokenizer.json's model: a piece that is a token is taken whole, whatever the merges say.
        aliases: further names that llama.cpp has for the rule.
        spellings: further pre-tokenizers that split the same.
        in_llamacpp: the pre-tokenizer that llama.cpp really applies, where it does not split every text the same.
    """

    name: str
    pre_tokenizer: Json
    normalizer: Json | None = None
    ignore_merges: bool = False
    aliases: tuple[str, ...] = ()
    spellings: tuple[Json, ...] = ()
    in_llamacpp: Json | None = None


def _byte_level(*, use_regex: bool) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": use_regex, "use_regex": use_regex}


def _split(*patterns: str) -> Json:
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    ]
    return _sequence(*splits, _byte_level(use_regex=False))


def _kept(pattern: str) -> Json:
    """The same for a pattern that matches all of every text: keep the matches, remove what is between them."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
    return _sequence(split, _byte_level(use_regex=False))


def _sequence(*steps: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(steps)}


_NFC = {"type": "NFC"}
_GPT2 = _byte_level(use_regex=True)
_DIGITS = _sequence({"type": "Digits", "individual_digits": True}, _GPT2)
_QWEN2, _LLAMA3 = _WORDS.format(digits=""), _WORDS.format(digits="{1,3}")
_TEKKEN = _cased(_UPPER, _LOWER, "", "")
_O200K = _cased(_UPPER, _LOWER, _CONTRACTIONS + "?", "{1,3}")
_SPELLINGS = (_kept(_LLAMA3), _split(_CL100K), _kept(_CL100K))

TABLE: tuple[PreTokenizer, ...] = (
    PreTokenizer("gpt-2", _GPT2, aliases=("phi-2", "exaone4")),
    PreTokenizer("olmo", _GPT2, _NFC),  # OLMo 1, GPT-NeoX
    PreTokenizer("smollm", _DIGITS, aliases=("starcoder", "refact", "codeshell")),  # StarCoder, Granite 3
    PreTokenizer("command-r", _DIGITS, _NFC),
    PreTokenizer("qwen2", _split(_QWEN2), _NFC, aliases=("deepseek-r1-qwen",), spellings=(_kept(_QWEN2),)),
    PreTokenizer("qwen35", _split(_QWEN35), _NFC, spellings=(_kept(_QWEN35),)),
    PreTokenizer(
        "llama-bpe",
        _split(_LLAMA3),
        ignore_merges=True,
        aliases=("llama3", "llama-v3", "falcon3", "pixtral"),
        spellings=_SPELLINGS,
    ),
    PreTokenizer("dbrx", _split(_LLAMA3), aliases=("smaug-bpe",), spellings=_SPELLINGS),  # OLMo 2, Phi-4: cl100k
    PreTokenizer(
        "tekken",
        _split(_TEKKEN),
        ignore_merges=True,
        spellings=(_kept(_TEKKEN),),
        in_llamacpp=_split(_cased(_NOT_LOWER, _NOT_UPPER, "", "")),
    ),
    PreTokenizer(
        "gpt-4o",  # Phi-4-mini: OpenAI's o200k
        _split(_O200K),
        spellings=(_kept(_O200K),),
        in_llamacpp=_split(_cased(_NOT_LOWER, _NOT_UPPER, _CONTRACTIONS + "?", "{1,3}")),
    ),
    PreTokenizer("deepseek-v3", _split(r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", _DEEPSEEK)),
)


@dataclass(frozen=True)
class Found:
    """The pre-tokenizer of a vocabulary.

    Attributes:
        name: `tokenizer.ggml.pre`.
        nfc: whether the tokenizer brings texts into NFC first, which llama.cpp does not.
        in_llamacpp: as `PreTokenizer`.
    """

    name: str
    nfc: bool
    in_llamacpp: Json | None = None


def find(tokenizer: Mapping[str, Any], encode: Callable[[str], list[int]]) -> Found:
    """The rule of a tokenizer.json: by what it spells out, else by the hash of a published vocabulary.

    Args:
        tokenizer: the parsed file, with a byte-level BPE in it.
        encode: text -> token ids, with the special tokens that the tokenizer puts around a text.

    Raises:
        ExportError: no rule of the table says the same, and the hash is of no published vocabulary.
    """
    normalizer = _canonical(tokenizer.get("normalizer"))
    ignore_merges = bool(tokenizer.get("model", {}).get("ignore_merges", False))
    if normalizer in (None, _NFC):
        wanted = _canonical(tokenizer.get("pre_tokenizer"))
        rules = [
            rule
            for rule in TABLE
            if ignore_merges == rule.ignore_merges
            and wanted in [_canonical(spelling) for spelling in (rule.pre_tokenizer, *rule.spellings)]
        ]
        # Rows that differ in nothing but the normalizer split the same.
        for rule in sorted(rules, key=lambda rule: _canonical(rule.normalizer) != normalizer):
            return Found(rule.name, normalizer == _NFC, rule.in_llamacpp)
        found = fingerprint(encode)
        if found in NAMES:
            return Found(NAMES[found], normalizer == _NFC)
    else:
        found = fingerprint(encode)
    raise ExportError(
        "no llama.cpp pre-tokenizer is known to split like this tokenizer.json: "
        f"normalizer {tokenizer.get('normalizer')}, pre_tokenizer {tokenizer.get('pre_tokenizer')}, "
        f"ignore_merges {ignore_merges}; and its hash {found} is of no published vocabulary",
        fix=f"known are {', '.join(rule.name for rule in TABLE)}; a wrong one would silently degrade the model",
    )


def named(name: str) -> PreTokenizer:
    """The rule of a GGUF's `tokenizer.ggml.pre`.

    Raises:
        ModelError: it is not in the table.
    """
    for rule in TABLE:
        if name in (rule.name, *rule.aliases):
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
