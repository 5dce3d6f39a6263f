"""SentencePiece-like BPE of a tokenizer.json without a tokenizer.model -> GGUF vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf.vocabulary import merge_order
from chrysalis_mlx.gguf.vocabulary.agreement import Spaces
from chrysalis_mlx.gguf.vocabulary.merge_order import Pair
from chrysalis_mlx.gguf.vocabulary.special_tokens import AddedToken, TokenType, added_tokens, added_type
from chrysalis_mlx.gguf.vocabulary.spm import Tokens, assemble
from chrysalis_mlx.gguf.vocabulary.template import Template
from chrysalis_mlx.gguf.vocabulary.vocabulary import Vocabulary

_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}


def is_sentencepiece(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json holds a BPE that writes what it does not know as bytes, <0x00> to <0xFF>."""
    model = tokenizer.get("model") or {}
    return model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def read(
    directory: Path,
    tokenizer: Mapping[str, Any],
    config: Mapping[str, Any],
    chat: Template | None,
) -> Vocabulary:
    """The vocabulary of a tokenizer.json; arguments as `spm.read`.

    Raises:
        ExportError: a rule that llama.cpp lacks, or merges in an order that scores cannot say.
    """
    file = directory / "tokenizer.json"
    model = tokenizer["model"]
    for key in ("ignore_merges", "continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise ExportError(f"llama.cpp's SentencePiece BPE has no {key}", where=file)
    vocabulary = {str(text): int(token) for text, token in model["vocab"].items()}
    if missing := sorted(_BYTES - set(vocabulary)):
        raise ExportError(f"the tokenizer has no token for {len(missing)} bytes, such as {missing[0]}", where=file)
    merges = merges_of(tokenizer)
    added = added_tokens(directory, tokenizer)
    results = {left + right for left, right in merges}
    # transformers keeps runs of ▁ among the added tokens, where no text has them: its spaces become ▁ later.
    runs = {token for token, entry in added.items() if set(entry.content) == {"▁"} and entry.content in results}
    added = {token: entry for token, entry in added.items() if token not in runs}
    cut = {entry.content for entry in added.values()}
    uncut = [(left, right) for left, right in merges if left + right not in cut]
    scores = merge_order.scores(set(vocabulary) - cut - _BYTES, uncut, file)
    tokens = _tokens(vocabulary, added, model.get("unk_token"))
    spaces = replace(spaces_of(directory, tokenizer), has_runs=bool(runs))
    _check_words(tokenizer, results, file)
    numbered = {vocabulary[text]: score for text, score in scores.items()}
    plain = {token: 0.0 for token in tokens if token not in added}
    return assemble(directory, tokenizer, config, chat, (tokens, plain | numbered, added, spaces))


def merges_of(tokenizer: Mapping[str, Any]) -> list[Pair]:
    """The merges of a tokenizer.json, in order."""
    pairs = (pair if isinstance(pair, list) else pair.split(" ") for pair in tokenizer["model"]["merges"])
    return [(left, right) for left, right in pairs]


def _tokens(vocabulary: Mapping[str, int], added: Mapping[int, AddedToken], unknown: str | None) -> Tokens:
    tokens: Tokens = {}
    for text, token in vocabulary.items():
        kind = TokenType.BYTE if text in _BYTES else TokenType.NORMAL
        tokens[token] = (text, TokenType.UNKNOWN if text == unknown else kind)
    for token, entry in added.items():
        if tokens.get(token, ("", TokenType.NORMAL))[1] is not TokenType.UNKNOWN:
            tokens[token] = (entry.content, added_type(entry))
    return tokens


def spaces_of(directory: Path, tokenizer: Mapping[str, Any]) -> Spaces:
    """What a SentencePiece-like tokenizer.json does with spaces.

    Raises:
        ExportError: its normalizer or pre-tokenizer does something else too.
    """
    normalizers = _steps(tokenizer.get("normalizer"), "normalizers")
    steps = _steps(tokenizer.get("pre_tokenizer"), "pretokenizers")
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    # As SentencePiece: the ▁ that Metaspace leaves out before another one.
    doubled = {"type": "Replace", "pattern": {"Regex": r"\A▁"}, "content": "▁▁"}
    known = {"normalizer": tokenizer.get("normalizer"), "pre_tokenizer": tokenizer.get("pre_tokenizer")}
    refused = ExportError(
        f"llama.cpp's SentencePiece BPE does not rewrite or split texts like this tokenizer.json: {known}",
        where=directory / "tokenizer.json",
    )
    if steps and steps[0].get("type") == "Metaspace" and len(steps) == 1:
        if steps[0].get("replacement") != "▁" or normalizers not in ([], [spaces], [spaces, doubled]):
            raise refused
        scheme: Any = steps[0].get("prepend_scheme") or (
            "always" if steps[0].get("add_prefix_space", True) else "never"
        )
        if doubled in normalizers and scheme != "always":
            raise refused
        return Spaces(scheme, unless_space=normalizers != [spaces, doubled])
    # After the normalizer no space is left for Gemma's pre-tokenizer to split at.
    if any((step.get("type"), step.get("pattern")) != ("Split", {"String": " "}) for step in steps):
        raise refused
    if normalizers == [spaces]:
        return Spaces("never")
    if normalizers in (
        [{"type": "Prepend", "prepend": "▁"}, spaces],
        [{"type": "Prepend", "prepend": " "}, spaces],
    ):
        return Spaces("always")
    raise refused


def _steps(step: Any, key: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    return [inner for part in step[key] for inner in _steps(part, key)] if step["type"] == "Sequence" else [step]


def _check_words(tokenizer: Mapping[str, Any], results: set[str], file: Path) -> None:
    """Metaspace may cut a text before each ▁, which llama.cpp does not: no token may reach over such a cut."""
    steps = _steps(tokenizer.get("pre_tokenizer"), "pretokenizers")
    over = [text for text in results if "▁" in text[1:]]
    if over and any(step.get("type") == "Metaspace" and step.get("split", True) for step in steps):
        raise ExportError(
            f"the tokenizer cuts a text at spaces, llama.cpp does not and would make {over[0]!r} over such a cut",
            where=file,
        )
