"""Text to token ids, exactly as transformers and mlx-lm make them, without loading either."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from chrysalis_mlx.errors import ModelError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")


class _Engine(Protocol):
    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def token_id(self, token: str) -> int | None: ...


class Tokenizer:
    """A model's tokenizer.

    Attributes:
        eos_id: id of the token that ends a text.
    """

    def __init__(self, engine: _Engine, eos_id: int) -> None:
        self._engine = engine
        self.eos_id = eos_id

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
        return cls(engine, _eos_id(directory, settings, engine))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens that the model expects around it."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, in parallel."""
        return self._engine.encode(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return self._engine.decode(ids)

    def token_id(self, token: str) -> int | None:
        return self._engine.token_id(token)


class _FastTokenizer:
    def __init__(self, file: Path) -> None:
        import tokenizers

        self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def token_id(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found


class _SentencePiece:
    def __init__(self, file: Path, settings: dict[str, Any]) -> None:
        import sentencepiece

        self._processor: Any = sentencepiece.SentencePieceProcessor(model_file=str(file))
        self._add_bos = bool(settings.get("add_bos_token", True))  # the default of LlamaTokenizer

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        encoded: list[list[int]] = self._processor.encode(list(texts), add_bos=self._add_bos)
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._processor.decode(list(ids)))

    def token_id(self, token: str) -> int | None:
        found = int(self._processor.piece_to_id(token))
        return found if self._processor.id_to_piece(found) == token else None


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
