"""SentencePiece: tokenizer.model -> GGUF vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf.vocabulary import (
    SENTENCEPIECE,
    TokenType,
    Vocabulary,
    added_tokens,
    added_type,
    chat_template,
    padded,
    read_json,
    special_ids,
    what_encoding_adds,
)

_UNUSED_SCORE = -1000.0  # llama.cpp's converter: never merged

# Fields of sentencepiece_model.proto.
_TRAINER_SPEC, _NORMALIZER_SPEC = 2, 3
_MODEL_TYPE, _UNIGRAM, _BPE = 3, 1, 2
_CHARSMAP, _ADD_DUMMY_PREFIX, _REMOVE_EXTRA_WHITESPACES = 2, 3, 4


def read(directory: Path, tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary of a tokenizer.model.

    Args:
        directory: holds tokenizer.model, and tokenizer_config.json for what encoding adds.
        tokenizer: the parsed tokenizer.json, for added tokens; may be empty.
        config: config.json.

    Raises:
        ExportError: a damaged file, a unigram model, or a normalization that llama.cpp does not do.
    """
    file = directory / "tokenizer.model"
    data = file.read_bytes()
    add_space_prefix = _check_model(file, data)
    tokens, scores = _pieces(file, data)
    for token in added_tokens(directory, tokenizer).values():
        if token.id not in tokens:
            tokens[token.id], scores[token.id] = (token.content, added_type(token)), _UNUSED_SCORE
        elif tokens[token.id][0] != token.content:
            raise ExportError(
                f"id {token.id} is {tokens[token.id][0]!r} in tokenizer.model, {token.content!r} as an added token",
                where=directory,
            )
        elif tokens[token.id][1] is TokenType.NORMAL:
            tokens[token.id] = (token.content, added_type(token))
    size = int(config["vocab_size"])
    texts, types = zip(*padded(tokens, size, directory), strict=True)
    ids = special_ids(directory, config, {text: token for token, (text, _) in tokens.items()})
    settings = read_json(directory / "tokenizer_config.json")
    if tokenizer:
        add_bos, add_eos = what_encoding_adds(directory, ids)
    else:  # the tokenizers of Llama 2 and Mistral add BOS unless told otherwise
        add_bos, add_eos = bool(settings.get("add_bos_token", True)), bool(settings.get("add_eos_token", False))
    return Vocabulary(
        model=SENTENCEPIECE,
        tokens=list(texts),
        types=list(types),
        scores=[scores.get(token, _UNUSED_SCORE) for token in range(size)],
        ids=ids,
        add_bos=add_bos,
        add_eos=add_eos,
        add_space_prefix=add_space_prefix and settings.get("add_prefix_space") is not False,
        pre="default",
        chat_template=chat_template(directory),
    )


def _pieces(file: Path, data: bytes) -> tuple[dict[int, tuple[str, TokenType]], dict[int, float]]:
    import sentencepiece

    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=data)
    except (RuntimeError, OSError) as error:
        raise ExportError(f"not a SentencePiece model: {error}", where=file) from error
    tokens: dict[int, tuple[str, TokenType]] = {}
    scores: dict[int, float] = {}
    for token in range(model.GetPieceSize()):
        kind = TokenType.NORMAL
        if model.IsUnknown(token):
            kind = TokenType.UNKNOWN
        elif model.IsControl(token):
            kind = TokenType.CONTROL
        elif model.IsUnused(token):
            kind = TokenType.UNUSED
        elif model.IsByte(token):
            kind = TokenType.BYTE
        tokens[token] = (model.IdToPiece(token), kind)
        scores[token] = float(model.GetScore(token))
    return tokens, scores


def _check_model(file: Path, data: bytes) -> bool:
    """Whether a space is put before the text; raises for what llama.cpp's "llama" tokenizer does not do."""
    try:
        parts = dict(_fields(data))
        trainer, normalizer = (dict(_fields(parts.get(part, b""))) for part in (_TRAINER_SPEC, _NORMALIZER_SPEC))
    except (IndexError, TypeError, ValueError) as error:
        raise ExportError(f"not a SentencePiece model: {error}", where=file) from error
    if trainer.get(_MODEL_TYPE, _UNIGRAM) != _BPE:
        raise ExportError(
            "the SentencePiece model is not a BPE", where=file, fix="llama-type models with a BPE can be exported"
        )
    if normalizer.get(_CHARSMAP):
        raise ExportError("the SentencePiece model rewrites characters (NFKC or the like)", where=file)
    if normalizer.get(_REMOVE_EXTRA_WHITESPACES, 1):
        raise ExportError("the SentencePiece model removes extra spaces, llama.cpp keeps them", where=file)
    return bool(normalizer.get(_ADD_DUMMY_PREFIX, 1))


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
        yield key >> 3, message[position : position + length]
        position += length
