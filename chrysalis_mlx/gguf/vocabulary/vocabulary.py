"""A vocabulary as GGUF stores it, and the Hugging Face tokenizer directory it comes from.

Two kinds: byte-level BPE from tokenizer.json (`bpe`); SentencePiece from tokenizer.model (`spm`), or from a
tokenizer.json that says the same (`spm_json`).
Source of the keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import ExportError, ModelError
from chrysalis_mlx.gguf.vocabulary.agreement import Agreement
from chrysalis_mlx.gguf.vocabulary.special_tokens import CUT, END_ROLES, SPECIAL_ROLES, TokenType, read_json
from chrysalis_mlx.gguf.vocabulary.template import Template

BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"
"""`tokenizer.ggml.model` of the two kinds."""

ROLES = (*SPECIAL_ROLES, *END_ROLES)
_GGUF_ROLE = {"unk": "unknown", "pad": "padding"}

_PHI3 = re.compile("phi-?3", re.IGNORECASE)
PHI3_KEEPS_SPACE = ("<unk>", "<s>", "<|endoftext|>")
"""Of a model whose name has phi-3 or phi3 in it, llama.cpp lets every special token but these take along the white
space after it; without these and </s> in the vocabulary it does not load. Source: src/llama-vocab.cpp."""


@dataclass(frozen=True)
class Vocabulary:
    """Everything under `tokenizer.` in a GGUF.

    Attributes:
        model: BYTE_LEVEL or SENTENCEPIECE.
        tokens: text of every id; the byte alphabet of GPT-2 for byte-level BPE, ▁ for a space in SentencePiece.
        types: one per token.
        ids: "bos", "eos", "unk", "pad", "eot" (end of turn), "eom" (end of message) -> id, where there are.
        add_bos, add_eos: whether encoding a text adds them.
        scores: one per token, SentencePiece only.
        merges: "left right", byte-level BPE only.
        pre: llama.cpp's pre-tokenizer; "default" for SentencePiece.
        add_space_prefix: whether encoding puts a space before the text; None leaves llama.cpp's default.
        chat_template: Jinja, None without.
        agreement: which texts llama.cpp tokenizes as the tokenizer does; of no meaning for a vocabulary from a GGUF.
        is_phi3: whether general.name has to say phi-3; `general_name` does that.
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
    agreement: Agreement = field(default_factory=Agreement, compare=False)
    is_phi3: bool = field(default=False, compare=False)

    @classmethod
    def from_directory(cls, directory: Path, config: Mapping[str, Any]) -> Vocabulary:
        """Read a Hugging Face tokenizer.

        Args:
            directory: holds tokenizer.json with a BPE, or tokenizer.model; generation_config.json names end tokens.
            config: config.json; its vocab_size is the number of tokens written, its ids fill in missing special tokens.

        Raises:
            ExportError: no such tokenizer, more tokens than the model has, no end token, a rule llama.cpp lacks, or
                prompts of the chat template that llama.cpp would tokenize otherwise.
            ModelError: the chat template is no Jinja template.
        """
        from chrysalis_mlx.gguf.vocabulary import bpe, spm, spm_json

        chat = Template.open(directory)
        tokenizer = read_json(directory / "tokenizer.json")
        if bpe.is_byte_level(tokenizer):
            made = bpe.read(directory, tokenizer, config, chat)
        elif (directory / "tokenizer.model").is_file():
            made = spm.read(directory, tokenizer, config, chat)
        elif spm_json.is_sentencepiece(tokenizer):
            made = spm_json.read(directory, tokenizer, config, chat)
        else:
            raise _no_tokenizer(directory, tokenizer)
        # How words are split may differ in a word of the prompt; what differs beside special tokens differs always.
        first = None if chat is None else chat.first
        if first is not None and not replace(made.agreement, in_llamacpp=None).agrees(first):
            raise ExportError(
                "llama.cpp would tokenize every prompt of the chat template otherwise: "
                + "; ".join(made.agreement.limits),
                where=directory,
                fix="take the tokenizer.json of the base model, if it has another one",
            )
        return made

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
        keys = {role: _key(role) for role in ROLES}
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
            writer.add_uint32(_key(role), token)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        if self.add_space_prefix is not None:
            writer.add_add_space_prefix(self.add_space_prefix)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)

    def general_name(self, name: str) -> str:
        """The name of the model for general.name, by which llama.cpp tells Phi-3's tokens from all others."""
        if self.is_phi3:
            return name if _PHI3.search(name) else f"{name} (Phi-3)"
        return _PHI3.sub("Phi 3", name)

    @property
    def special_tokens(self) -> list[str]:
        """Texts of the tokens that are cut out of a text before anything else."""
        return [text for text, kind in zip(self.tokens, self.types, strict=True) if kind in CUT]


def _key(role: str) -> str:
    return f"tokenizer.ggml.{_GGUF_ROLE.get(role, role)}_token_id"


def _no_tokenizer(directory: Path, tokenizer: Mapping[str, Any]) -> ExportError:
    kind = (tokenizer.get("model") or {}).get("type")
    named = read_json(directory / "tokenizer_config.json").get("tokenizer_class")
    if kind is not None:
        return ExportError(
            f"llama.cpp's language models have no tokenizer of the kind {kind}"
            + (", with neither bytes for letters nor for what is unknown" if kind == "BPE" else ""),
            where=directory / "tokenizer.json",
            fix="byte-level BPE and SentencePiece-like BPE can be exported",
        )
    return ExportError(
        f"a missing tokenizer.model: there is neither that nor a tokenizer.json{f' for the {named}' if named else ''}",
        where=directory,
        fix="copy tokenizer.model or tokenizer.json of the base model into this directory",
    )
