"""SentencePiece: tokenizer.model -> GGUF vocabulary; and what its two forms (see `spm_json`) have in common."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf.vocabulary.agreement import Agreement, Spaces
from chrysalis_mlx.gguf.vocabulary.special_tokens import (
    CUT,
    AddedToken,
    TokenType,
    added_tokens,
    added_type,
    padded,
    read_json,
    special_ids,
    what_encoding_adds,
)
from chrysalis_mlx.gguf.vocabulary.template import Template
from chrysalis_mlx.gguf.vocabulary.vocabulary import PHI3_KEEPS_SPACE, SENTENCEPIECE, Vocabulary

Tokens = dict[int, tuple[str, TokenType]]

UNUSED_SCORE = -1000.0  # llama.cpp's converter: never merged

# Fields of sentencepiece_model.proto.
_PIECES, _TRAINER_SPEC, _NORMALIZER_SPEC = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _UNIGRAM, _BPE = 3, 1, 2
_CHARSMAP, _ADD_DUMMY_PREFIX, _REMOVE_EXTRA_WHITESPACES = 2, 3, 4


def read(
    directory: Path,
    tokenizer: Mapping[str, Any],
    config: Mapping[str, Any],
    chat: Template | None,
) -> Vocabulary:
    """The vocabulary of a tokenizer.model.

    Args:
        directory: holds tokenizer.model, and tokenizer_config.json for what encoding adds.
        tokenizer: the parsed tokenizer.json, for added tokens and the rule of spaces; may be empty.
        config: config.json.
        chat: the chat template.

    Raises:
        ExportError: a damaged file, a unigram model, or a normalization that llama.cpp does not do.
    """
    from chrysalis_mlx.gguf.vocabulary import spm_json

    tokens, scores, dummy_prefix = _model(directory / "tokenizer.model")
    if spm_json.is_sentencepiece(tokenizer):  # it is what the model is trained with
        if not _is_ordered(spm_json.merges_of(tokenizer), tokens, scores):
            return spm_json.read(directory, tokenizer, config, chat)
        if any(kind is TokenType.USER_DEFINED and "▁" in text for text, kind in tokens.values()):
            # SentencePiece cuts these out of a text, tokenizer.json merges them, which are two results for long runs.
            with suppress(ExportError):
                return spm_json.read(directory, tokenizer, config, chat)
    added = added_tokens(directory, tokenizer)
    for token in added.values():
        if token.id not in tokens:
            tokens[token.id], scores[token.id] = (token.content, added_type(token)), UNUSED_SCORE
        elif tokens[token.id][0] != token.content:
            raise ExportError(
                f"id {token.id} is {tokens[token.id][0]!r} in tokenizer.model, {token.content!r} as an added token",
                where=directory,
            )
        elif tokens[token.id][1] is TokenType.NORMAL:
            tokens[token.id] = (token.content, added_type(token))
    # Without a tokenizer.json transformers makes one: the start of a text is the start of a word, no other place is.
    spaces = spm_json.spaces_of(directory, tokenizer) if tokenizer else Spaces("first" if dummy_prefix else "never")
    for number, (text, kind) in tokens.items():
        if kind is TokenType.USER_DEFINED and "▁" in text:  # cut out of a text before its spaces become ▁
            tokens[number] = (text.replace("▁", " "), kind)
            spaces = replace(spaces, has_runs=True)
    return assemble(directory, tokenizer, config, chat, (tokens, scores, added, spaces))


def _is_ordered(merges: Sequence[tuple[str, str]], tokens: Tokens, scores: Mapping[int, float]) -> bool:
    """Whether the merges of tokenizer.json go down in the scores of tokenizer.model."""
    by_text = {text: scores[token] for token, (text, _) in tokens.items()}
    made = [by_text.get(left + right, float("nan")) for left, right in merges]
    return all(first >= second for first, second in pairwise(made))


def assemble(
    directory: Path,
    tokenizer: Mapping[str, Any],
    config: Mapping[str, Any],
    chat: Template | None,
    parts: tuple[Tokens, dict[int, float], dict[int, AddedToken], Spaces],
) -> Vocabulary:
    """The vocabulary of tokens, scores, added tokens and the rule of spaces."""
    tokens, scores, added, spaces = parts
    size = int(config["vocab_size"])
    texts, types = zip(*padded(tokens, size, directory), strict=True)
    ids = special_ids(directory, config, tokens, "" if chat is None else chat.after_answer)
    settings = read_json(directory / "tokenizer_config.json")
    if tokenizer:
        add_bos, add_eos = what_encoding_adds(directory, ids)
    else:  # the tokenizers of Llama 2 and Mistral add BOS unless told otherwise
        add_bos, add_eos = bool(settings.get("add_bos_token", True)), bool(settings.get("add_eos_token", False))
        if settings.get("add_prefix_space") is False:
            spaces = replace(spaces, prefix="never")
    agreement, is_phi3 = _agreement(tokens, added, spaces, None if chat is None else chat.first)
    return Vocabulary(
        model=SENTENCEPIECE,
        tokens=list(texts),
        types=list(types),
        scores=[scores.get(token, UNUSED_SCORE) for token in range(size)],
        ids=ids,
        add_bos=add_bos,
        add_eos=add_eos,
        add_space_prefix=agreement.add_space_prefix,
        pre="default",
        chat_template=None if chat is None else chat.source,
        agreement=agreement,
        is_phi3=is_phi3,
    )


def _agreement(
    tokens: Tokens, added: Mapping[int, AddedToken], spaces: Spaces, prompt: str | None
) -> tuple[Agreement, bool]:
    special = {text for text, kind in tokens.values() if kind in CUT}
    lstrip = frozenset(token.content for token in added.values() if token.lstrip)
    rstrip = frozenset(token.content for token in added.values() if token.rstrip)
    is_phi3 = bool(rstrip) and rstrip == special - set(PHI3_KEEPS_SPACE) and {*PHI3_KEEPS_SPACE, "</s>"} <= special

    def made(add_space_prefix: bool) -> Agreement:
        return Agreement(
            spaces=spaces,
            add_space_prefix=add_space_prefix,
            special=tuple(special),
            lstrip=lstrip,
            rstrip=frozenset() if is_phi3 else rstrip,
            rstrip_in_c=rstrip if is_phi3 else frozenset(),
        )

    # llama.cpp puts a space before all pieces of text or before none. Where a tokenizer puts one at the start of a text
    # only, the prompts decide, which start with a special token in most models.
    with_space, without = made(spaces.prefix != "never"), made(False)
    decided = prompt is not None and not with_space.agrees(prompt) and without.agrees(prompt)
    return without if decided else with_space, is_phi3


def _model(file: Path) -> tuple[Tokens, dict[int, float], bool]:
    """Tokens, scores, and whether a space is put before the text.

    Raises:
        ExportError: not a BPE that does what llama.cpp's "llama" tokenizer does.
    """
    tokens: Tokens = {}
    scores: dict[int, float] = {}
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    try:
        for number, value in _fields(file.read_bytes()):
            if number == _PIECES:
                piece = dict(_fields(value))
                token = len(tokens)
                tokens[token] = (piece[_PIECE].decode("utf-8"), TokenType(piece.get(_TYPE, TokenType.NORMAL)))
                scores[token] = struct.unpack("<f", piece.get(_SCORE, bytes(4)))[0]
            elif number == _TRAINER_SPEC:
                trainer = dict(_fields(value))
            elif number == _NORMALIZER_SPEC:
                normalizer = dict(_fields(value))
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ExportError(f"not a SentencePiece model: {error}", where=file) from error
    if not tokens:
        raise ExportError("not a SentencePiece model: it has no pieces", where=file)
    if trainer.get(_MODEL_TYPE, _UNIGRAM) != _BPE:
        raise ExportError(
            "the SentencePiece model is not a BPE", where=file, fix="llama-type models with a BPE can be exported"
        )
    if normalizer.get(_CHARSMAP):
        raise ExportError("the SentencePiece model rewrites characters (NFKC or the like)", where=file)
    if normalizer.get(_REMOVE_EXTRA_WHITESPACES, 1):
        raise ExportError("the SentencePiece model removes extra spaces, llama.cpp keeps them", where=file)
    return tokens, scores, bool(normalizer.get(_ADD_DUMMY_PREFIX, 1))


def _fields(message: Any) -> Iterator[tuple[int, Any]]:
    """(field number, int or bytes) of a protocol buffers message: its wire format, so that protobuf is not needed."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = int(message[position])
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while position < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"wire type {kind} at byte {position}")
        length = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        if position + length > len(message):
            raise ValueError(f"it ends inside of a field of {length} bytes at byte {position}")
        yield key >> 3, message[position : position + length]
        position += length
