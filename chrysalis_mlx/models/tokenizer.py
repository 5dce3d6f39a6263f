"""Text to token ids, exactly as transformers and mlx-lm make them, without loading either."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.chat import ChatTemplate
from chrysalis_mlx.run import sha256_file, sha256_json

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
_READ = (
    *TOKENIZER_FILES, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "config.json"
)  # fmt: skip
# Texts, and characters of them, whose encodings, about 150 bytes a token, are in memory together.
_TEXTS, _CHARACTERS = 512, 1 << 18

_NO_DUMMY_PREFIX = bytes(
    [3 << 3 | 2, 2, 3 << 3, 0]
)  # {normalizer_spec: {add_dummy_prefix: false}}; the last one counts

_FIM = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma, Granite 4
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, SmolLM, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # CodeLlama
)


class _Engine(Protocol):
    special_tokens: Mapping[str, int]

    def encode(self, texts: Sequence[str], special: bool) -> list[list[int]]: ...
    def encode_spans(self, texts: Sequence[str], special: bool) -> list[Encoded]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def token_id(self, token: str) -> int | None: ...


@dataclass(frozen=True)
class Encoded:
    """The tokens of one text and where they lie in it.

    Attributes:
        ids: (n,) int32.
        spans: (n, 2) int32; first character and the one after the last. Tokens that are parts of one character share
            its span; every token that comes from the text has at least one character.
    """

    ids: npt.NDArray[np.int32]
    spans: npt.NDArray[np.int32]


@dataclass(frozen=True)
class FimTokens:
    """The tokens of fill-in-the-middle: `{prefix}before{suffix}after{middle}hole`."""

    prefix: str
    suffix: str
    middle: str


class Tokenizer:
    """A model's tokenizer.

    Attributes:
        eos_id: id of the token that ends a text.
        chat: the model's chat template; None when it has none.
        fingerprint: sha256 of the files that it was read from; empty when it was not.
    """

    def __init__(self, engine: _Engine, eos_id: int, chat: ChatTemplate | None = None, fingerprint: str = "") -> None:
        self._engine = engine
        self.eos_id = eos_id
        self.chat = chat
        self.fingerprint = fingerprint

    @classmethod
    def open(cls, directory: Path) -> Tokenizer:
        """The tokenizer of a model directory: tokenizer.json, else SentencePiece's tokenizer.model.

        Raises:
            ModelError: none of them, an unreadable one, or no end-of-text token named anywhere.
        """
        settings = _read_json(directory / "tokenizer_config.json")
        engine: _Engine
        try:
            if (directory / "tokenizer.json").is_file():
                engine = _FastTokenizer(directory / "tokenizer.json")
            else:
                engine = _SentencePiece(directory / "tokenizer.model", settings)
        except Exception as error:  # the libraries raise bare Exception and OSError
            raise ModelError(
                f"the tokenizer cannot be read: {error}", where=directory, fix="copy it again from the original model"
            ) from error
        named = _read_json(directory / "special_tokens_map.json") | {k: v for k, v in settings.items() if v is not None}
        read = {name: sha256_file(directory / name) for name in _READ if (directory / name).is_file()}
        chat = ChatTemplate.open(directory, named)
        return cls(engine, _eos_id(directory, settings, engine), chat, sha256_json(read))

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Tokens that a text is split at before anything else, such as <|im_end|> or <fim_prefix>, and their ids."""
        return self._engine.special_tokens

    @cached_property
    def fim(self) -> FimTokens | None:
        """The tokens of fill-in-the-middle, when the vocabulary has all three."""
        known = self.special_tokens
        return next((FimTokens(*names) for names in _FIM if all(name in known for name in names)), None)

    @cached_property
    def turn_tokens(self) -> tuple[str, ...]:
        """The special tokens by which the chat template begins and ends turns; none without a template.

        Some vocabularies have line ends and HTML tags among their added tokens, which mean nothing of the kind.
        """
        if self.chat is None:
            return ()
        named = self.chat.source + " ".join(self.chat.tokens.values())
        return tuple(name for name in self.special_tokens if name in named and re.search(r"\w", name))

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text; as `encode_batch`."""
        return self.encode_batch([text], special=special)[0]

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Token ids of many texts, in parallel.

        Args:
            special: with the special tokens that the model expects around a text, such as <s>. What looks like a
                special token inside of a text is one, either way.
        """
        return [ids for block in _blocks(texts) for ids in self._engine.encode(block, special)]

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each of many texts has, without special tokens around it; in little memory.

        A text of more than 262,144 characters is counted in pieces, each of which may be a token more or less.
        """
        pieces = [(number, piece) for number, text in enumerate(texts) for piece in _pieces(text)]
        lengths = [
            len(ids) for block in _blocks([piece for _, piece in pieces]) for ids in self._engine.encode(block, False)
        ]
        counts = [0] * len(texts)
        for (number, _), length in zip(pieces, lengths, strict=True):
            counts[number] += length
        return counts

    def encode_spans(self, texts: Sequence[str], *, special: bool = True) -> list[Encoded]:
        """As `encode_batch`, with the characters that each token stands for."""
        return [encoded for block in _blocks(texts) for encoded in self._engine.encode_spans(block, special)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return self._engine.decode(ids)

    def token_id(self, token: str) -> int | None:
        return self._engine.token_id(token)


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in groups of a bounded size; a text that is larger is one by itself."""
    start = size = 0
    for end, text in enumerate(texts):
        if end > start and (size + len(text) > _CHARACTERS or end - start == _TEXTS):
            yield texts[start:end]
            start, size = end, 0
        size += len(text)
    if start < len(texts):
        yield texts[start:]


def _pieces(text: str) -> Iterator[str]:
    """A text cut at line ends, where it has some, into pieces of a bounded size."""
    start = 0
    while len(text) - start > _CHARACTERS:
        end = text.rfind("\n", start, start + _CHARACTERS) + 1 or start + _CHARACTERS
        yield text[start:end]
        start = end
    yield text[start:]


class _FastTokenizer:
    def __init__(self, file: Path) -> None:
        import tokenizers

        # A token that is all white space would have no characters left. This changes no id.
        content = re.sub(r'("trim_offsets"\s*:\s*)true', r"\1false", file.read_text(encoding="utf-8"))
        self._tokenizer: Any = tokenizers.Tokenizer.from_str(content)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = self._tokenizer.get_added_tokens_decoder()
        self.special_tokens: Mapping[str, int] = {token.content: id for id, token in sorted(added.items())}

    def encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=special)
        return [encoding.ids for encoding in encodings]

    def encode_spans(self, texts: Sequence[str], special: bool) -> list[Encoded]:
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=special)
        return [_encoded(encoding.ids, encoding.offsets) for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def token_id(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found


class _SentencePiece:
    """A SentencePiece model. Special tokens are found by us: the library reads them as text."""

    def __init__(self, file: Path, settings: dict[str, Any]) -> None:
        import sentencepiece

        self._processor: Any = sentencepiece.SentencePieceProcessor(model_file=str(file))
        # Only the start of a text is the start of a word; what follows a special token is as it is (transformers).
        inside = self._processor.serialized_model_proto() + _NO_DUMMY_PREFIX
        self._inside: Any = sentencepiece.SentencePieceProcessor(model_proto=inside)
        self._bos = [self._processor.bos_id()] if settings.get("add_bos_token", True) else []  # as LlamaTokenizer
        self.special_tokens: Mapping[str, int] = self._special(settings)
        self._added = {id: name for name, id in self.special_tokens.items()}
        names = sorted(self.special_tokens, key=lambda name: (-len(name), name))
        self._split = re.compile("(" + "|".join(map(re.escape, names)) + ")")

    def encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        return [encoded.ids.tolist() for encoded in self.encode_spans(texts, special)]

    def encode_spans(self, texts: Sequence[str], special: bool) -> list[Encoded]:
        return [self._encode(text, self._bos if special else []) for text in texts]

    def _encode(self, text: str, before: list[int]) -> Encoded:
        ids, spans, at = list(before), [(0, 0)] * len(before), 0
        for part in self._split.split(text):
            if part in self.special_tokens:
                ids.append(self.special_tokens[part])
                spans.append((at, at + len(part)))
            elif part:
                processor = self._inside if at else self._processor
                found = processor.encode(part, return_type="offset_mapping")
                ids += found["ids"]
                # All bytes of a character but its last have an empty span where the character is.
                spans += [(at + start, at + max(end, start + 1)) for start, end in found["offsets"]]
            at += len(part)
        return _encoded(ids, spans)

    def decode(self, ids: Sequence[int]) -> str:
        text = ""
        # The library fails at ids that are not its own: tokens that settings add, and rows that fill up an embedding.
        for own, part in itertools.groupby(ids, lambda id: id < self._processor.get_piece_size()):
            if own:
                text += str((self._inside if text else self._processor).decode(list(part)))
            else:
                text += "".join(self._added.get(id, "") for id in part)
        return text

    def token_id(self, token: str) -> int | None:
        if token in self.special_tokens:
            return self.special_tokens[token]
        found = int(self._processor.piece_to_id(token))
        return found if self._processor.id_to_piece(found) == token else None

    def _special(self, settings: dict[str, Any]) -> dict[str, int]:
        model = self._processor
        pieces = range(model.get_piece_size())
        found = {str(model.id_to_piece(id)): id for id in pieces if model.is_control(id) or model.is_unknown(id)}
        added = settings.get("added_tokens_decoder") or {}
        return found | {str(token["content"]): int(id) for id, token in added.items()}


def _encoded(ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> Encoded:
    return Encoded(np.asarray(ids, np.int32), np.asarray(spans, np.int32).reshape(len(ids), 2))


def _eos_id(directory: Path, settings: dict[str, Any], engine: _Engine) -> int:
    """The tokenizer's own end token; else the model's."""
    token = settings.get("eos_token")
    if isinstance(token, dict):
        token = token.get("content")
    found = engine.token_id(token) if token else None
    if found is None:
        ids = _read_json(directory / "config.json").get("eos_token_id")
        found = next(iter(ids), None) if isinstance(ids, list) else ids
    if found is None:
        raise ModelError(
            "the tokenizer names no end-of-text token",
            where=directory / "tokenizer_config.json",
            fix="add its eos_token, or eos_token_id to config.json",
        )
    return int(found)


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file.name} is not valid JSON: {error}", where=file) from error
    return content if isinstance(content, dict) else {}
