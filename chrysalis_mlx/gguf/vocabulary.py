"""A vocabulary as GGUF stores it, and the Hugging Face tokenizer directory it comes from.

Two kinds: byte-level BPE from tokenizer.json (`bpe`), SentencePiece from tokenizer.model (`spm`).
Source of the keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import ExportError, ModelError

BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"
"""`tokenizer.ggml.model` of the two kinds."""

SPECIAL_ROLES = ("bos", "eos", "unk", "pad")
_GGUF_ROLE = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`, llama.cpp's llama_token_type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class AddedToken:
    """A token that is cut out of a text before anything else."""

    id: int
    content: str
    special: bool


@dataclass(frozen=True)
class Vocabulary:
    """Everything under `tokenizer.` in a GGUF.

    Attributes:
        model: BYTE_LEVEL or SENTENCEPIECE.
        tokens: text of every id; the byte alphabet of GPT-2 for byte-level BPE, ▁ for a space in SentencePiece.
        types: one per token.
        scores: one per token, SentencePiece only.
        merges: "left right", byte-level BPE only.
        pre: llama.cpp's pre-tokenizer, byte-level BPE only.
        ids: "bos", "eos", "unk", "pad" -> id, as far as the model has them.
        add_bos, add_eos: whether encoding a text adds them.
        add_space_prefix: whether encoding puts a space before the text; None leaves llama.cpp's default.
        chat_template: Jinja, None without.
    """

    model: str
    tokens: list[str]
    types: list[TokenType]
    ids: dict[str, int]
    add_bos: bool
    add_eos: bool
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    pre: str | None = None
    add_space_prefix: bool | None = None
    chat_template: str | None = None

    @classmethod
    def from_directory(cls, directory: Path, config: Mapping[str, Any]) -> Vocabulary:
        """Read a Hugging Face tokenizer.

        Args:
            directory: holds tokenizer.json with a byte-level BPE, or tokenizer.model.
            config: config.json; its vocab_size is the number of tokens written, its ids fill in missing special tokens.

        Raises:
            ExportError: no such tokenizer, more tokens than the model has, no end token, or a rule llama.cpp lacks.
        """
        from chrysalis_mlx.gguf import bpe, spm

        tokenizer = read_json(directory / "tokenizer.json")
        if bpe.is_byte_level(tokenizer):
            return bpe.read(directory, tokenizer, config)
        if (directory / "tokenizer.model").is_file():
            return spm.read(directory, tokenizer, config)
        raise ExportError(
            "no tokenizer that llama.cpp can use: neither a byte-level BPE in tokenizer.json nor a tokenizer.model",
            where=directory,
            fix="copy tokenizer.model of the base model into this directory",
        )

    @classmethod
    def from_gguf(cls, fields: Mapping[str, Any]) -> Vocabulary:
        """Read a GGUF's keys.

        Args:
            fields: the `tokenizer.` keys as Python values.

        Raises:
            ModelError: the vocabulary is missing or inconsistent.
        """
        prefix = "tokenizer.ggml."
        tokens = fields.get(prefix + "tokens")
        if not tokens or prefix + "model" not in fields:
            raise ModelError("the GGUF has no vocabulary")
        types = fields.get(prefix + "token_type") or [TokenType.NORMAL] * len(tokens)
        if len(types) != len(tokens) or not set(types) <= set(TokenType):
            raise ModelError(f"the GGUF has {len(tokens)} tokens and {len(types)} token types, {sorted(set(types))}")
        keys = {role: f"{prefix}{_GGUF_ROLE[role]}_token_id" for role in SPECIAL_ROLES}
        return cls(
            model=fields[prefix + "model"],
            tokens=list(tokens),
            types=[TokenType(kind) for kind in types],
            scores=list(fields.get(prefix + "scores") or ()),
            merges=list(fields.get(prefix + "merges") or ()),
            pre=fields.get(prefix + "pre"),
            ids={role: int(fields[key]) for role, key in keys.items() if key in fields},
            add_bos=bool(fields.get(prefix + "add_bos_token", False)),
            add_eos=bool(fields.get(prefix + "add_eos_token", False)),
            add_space_prefix=fields.get(prefix + "add_space_prefix"),
            chat_template=fields.get("tokenizer.chat_template"),
        )

    def add_to(self, writer: Any) -> None:
        """Add the keys to a `gguf.GGUFWriter`."""
        writer.add_tokenizer_model(self.model)
        if self.pre is not None:
            writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        if self.scores:
            writer.add_token_scores(self.scores)
        writer.add_token_types([int(kind) for kind in self.types])
        if self.merges:
            writer.add_token_merges(self.merges)
        for role, token in self.ids.items():
            writer.add_uint32(f"tokenizer.ggml.{_GGUF_ROLE[role]}_token_id", token)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        if self.add_space_prefix is not None:
            writer.add_add_space_prefix(self.add_space_prefix)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty when the file is missing.

    Raises:
        ExportError: the file is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__}, not an object")
    except ValueError as error:
        raise ExportError(f"cannot be read as JSON: {error}", where=path) from error
    return value


def added_tokens(directory: Path, tokenizer: Mapping[str, Any]) -> dict[int, AddedToken]:
    """The added tokens of tokenizer.json, tokenizer_config.json and added_tokens.json, by id.

    Raises:
        ExportError: one of them swallows the spaces around it, which llama.cpp cannot do.
    """
    found: dict[int, dict[str, Any]] = {}
    for content, token in read_json(directory / "added_tokens.json").items():
        found[int(token)] = {"content": content}
    for token, entry in read_json(directory / "tokenizer_config.json").get("added_tokens_decoder", {}).items():
        found[int(token)] = entry
    for entry in tokenizer.get("added_tokens", ()):
        found[int(entry["id"])] = entry
    for entry in found.values():
        if greedy := [key for key in ("lstrip", "rstrip", "single_word") if entry.get(key)]:
            raise ExportError(
                f"the added token {entry['content']!r} has {' and '.join(greedy)}, which a GGUF cannot say",
                where=directory,
            )
    return {
        token: AddedToken(token, entry["content"], bool(entry.get("special", False)))
        for token, entry in sorted(found.items())
    }


def added_type(token: AddedToken) -> TokenType:
    """CONTROL for special tokens and what looks like one, USER_DEFINED for the rest.

    Source: llama.cpp's convert_hf_to_gguf.py, `does_token_look_special`; it finds end and infill tokens among these.
    """
    text = token.content
    looks = text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
    looks |= text.startswith("<|") and text.endswith("|>")
    looks |= text.startswith("<｜") and text.endswith("｜>")
    return TokenType.CONTROL if token.special or looks else TokenType.USER_DEFINED


def special_ids(directory: Path, config: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, int]:
    """ "bos", "eos", "unk", "pad" -> id, from the tokenizer's files, then from config.json.

    Args:
        directory: the tokenizer's directory.
        config: config.json.
        ids: token text -> id.

    Raises:
        ExportError: no end token, or one that is not in the vocabulary.
    """
    sources = [read_json(directory / name) for name in ("tokenizer_config.json", "special_tokens_map.json")]
    found: dict[str, int] = {}
    for role in SPECIAL_ROLES:
        named = next((source[f"{role}_token"] for source in sources if source.get(f"{role}_token")), None)
        content = named.get("content") if isinstance(named, dict) else named
        configured = config.get(f"{role}_token_id")
        if content is not None:
            if content not in ids:
                raise ExportError(f"the {role} token {content!r} is not in the vocabulary", where=directory)
            found[role] = ids[content]
        elif isinstance(configured, list) and configured:
            found[role] = int(configured[0])
        elif isinstance(configured, int):
            found[role] = configured
    if "eos" not in found:
        raise ExportError(
            "the model has no end token, so its text would never end",
            where=directory,
            fix="name eos_token in tokenizer_config.json or eos_token_id in config.json",
        )
    return found


def what_encoding_adds(directory: Path, ids: Mapping[str, int]) -> tuple[bool, bool]:
    """Whether encoding a text puts BOS before it and EOS after it, as the post-processor of tokenizer.json does.

    transformers ignores add_bos_token and add_eos_token of tokenizer_config.json beside a tokenizer.json.

    Raises:
        ExportError: it adds other tokens.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    plain, special = (tokenizer.encode("a", add_special_tokens=add).ids for add in (False, True))
    starts = [start for start in range(len(special)) if special[start : start + len(plain)] == plain]
    before, after = (special[: starts[0]], special[starts[0] + len(plain) :]) if starts else (special, [])
    for added, role in ((before, "bos"), (after, "eos")):
        if added not in ([], [ids.get(role)]):
            raise ExportError(
                f"the tokenizer adds the tokens {added}, a GGUF can only add the {role} token {ids.get(role)}",
                where=directory / "tokenizer.json",
            )
    return bool(before), bool(after)


def chat_template(directory: Path) -> str | None:
    """chat_template.jinja, or the (default) chat_template of tokenizer_config.json."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = read_json(directory / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        return next((str(entry["template"]) for entry in template if entry.get("name") == "default"), None)
    return None if template is None else str(template)


def padded(tokens: Mapping[int, tuple[str, TokenType]], size: int, directory: Path) -> list[tuple[str, TokenType]]:
    """Every id below `size`; ids without a token become UNUSED, as llama.cpp's converter names them.

    Raises:
        ExportError: the tokenizer has ids that the model has no embedding for.
    """
    if tokens and max(tokens) >= size:
        raise ExportError(
            f"the tokenizer has ids up to {max(tokens)}, the model {size} embeddings",
            where=directory,
            fix="use the tokenizer that belongs to the model",
        )
    return [tokens.get(token, (f"[PAD{token}]", TokenType.UNUSED)) for token in range(size)]
