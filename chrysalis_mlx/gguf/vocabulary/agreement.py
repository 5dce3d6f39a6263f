"""What llama.cpp cannot do whatever a GGUF says, and which texts it therefore tokenizes otherwise.

A vocabulary with such limits is still worth exporting where the texts that its model sees are not among them, which the
prompts of its chat template must not be. Everything is said in the open: `limits` for people, `agrees` for a text.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

_PREFIX_WHERE = {
    "always": "before every piece of text between special tokens",
    "first": "at the start of a text only",
    "never": "nowhere",
}
_C_SPACE = " \t\n\v\f\r"  # isspace of the C locale; tokenizers takes every white space of Unicode


@dataclass(frozen=True)
class Spaces:
    """What a SentencePiece-like tokenizer does beyond writing ▁ for a space.

    Attributes:
        prefix: where it puts a ▁ that is not in the text: before every piece of text between special tokens, as
            llama.cpp, or at the start of the text, or nowhere.
        unless_space: not before a space, as tokenizers' Metaspace; SentencePiece and llama.cpp put it there too.
        has_runs: it has runs of ▁ among the tokens that are cut out of a text first; llama.cpp then does not read a ▁
            that somebody wrote as it reads a space.
    """

    prefix: Literal["always", "first", "never"] = "never"
    unless_space: bool = False
    has_runs: bool = False


@dataclass(frozen=True)
class Agreement:
    """On which texts llama.cpp and the Hugging Face tokenizer agree.

    Attributes:
        nfc: the tokenizer brings a text into NFC.
        spaces: the tokenizer's own rule.
        add_space_prefix: what the GGUF says, llama.cpp's rule.
        special: texts of the tokens that are cut out of a text first.
        lstrip, rstrip: of those, the ones that take white space along and cannot in llama.cpp.
        rstrip_in_c: those that can, but know no white space beyond ASCII.
        pre_tokenizer, in_llamacpp: of tokenizer.json, where they do not split every text the same; else None.
    """

    nfc: bool = False
    spaces: Spaces = field(default_factory=Spaces)
    add_space_prefix: bool = False
    special: tuple[str, ...] = ()
    lstrip: frozenset[str] = frozenset()
    rstrip: frozenset[str] = frozenset()
    rstrip_in_c: frozenset[str] = frozenset()
    pre_tokenizer: Any = None
    in_llamacpp: Any = None

    @property
    def limits(self) -> list[str]:
        """One sentence about each kind of text that is tokenized otherwise; none where all texts agree."""
        found = []
        if self.nfc:
            found.append("llama.cpp does not bring a text into Unicode's NFC, the tokenizer does")
        if self.spaces.prefix != ("always" if self.add_space_prefix else "never"):
            here = _PREFIX_WHERE["always" if self.add_space_prefix else "never"]
            found.append(f"the tokenizer puts a space {_PREFIX_WHERE[self.spaces.prefix]}, llama.cpp {here}")
        if self.spaces.unless_space and self.add_space_prefix:
            found.append("llama.cpp puts that space before a space too, the tokenizer does not")
        if self.spaces.has_runs:
            found.append("llama.cpp reads ▁ in a text otherwise than the tokenizer")
        if stripping := sorted(self.lstrip | self.rstrip):
            found.append(f"{', '.join(stripping[:3])} take the white space beside them along, in llama.cpp they do not")
        if self.in_llamacpp is not None:
            found.append("llama.cpp splits words with marks, or with capitals outside of A-Z, otherwise")
        return found

    def agrees(self, text: str) -> bool:
        """Whether llama.cpp, reading special tokens, tokenizes a text as the Hugging Face tokenizer does."""
        if self.nfc and not unicodedata.is_normalized("NFC", text):
            return False
        if self.spaces.has_runs and "▁" in text:
            return False
        pieces = list(self._pieces(text))
        return all(self._piece_agrees(before, piece, after) for before, piece, after in pieces) and (
            self.in_llamacpp is None or all(self._splits_alike(piece) for _, piece, _ in pieces)
        )

    def _pieces(self, text: str) -> Iterator[tuple[str | None, str, str | None]]:
        """(special token before, text, special token after) of each piece of text between special tokens."""
        if not self.special:
            yield None, text, None
            return
        parts: list[str | None] = [None, *self._split.split(text), None]
        for index in range(1, len(parts) - 1, 2):
            yield parts[index - 1], parts[index] or "", parts[index + 1]

    @cached_property
    def _split(self) -> re.Pattern[str]:
        longest_first = sorted(self.special, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def _piece_agrees(self, before: str | None, piece: str, after: str | None) -> bool:
        stripped = piece.lstrip() if before in self.rstrip or before in self.rstrip_in_c else piece
        stripped = stripped.rstrip() if after in self.lstrip else stripped
        theirs = piece.lstrip(_C_SPACE) if before in self.rstrip_in_c else piece
        if stripped != theirs:
            return False
        if not stripped:
            return True
        prefixed = self.spaces.prefix == "always" or (self.spaces.prefix == "first" and before is None)
        if self.spaces.unless_space and stripped[0] in " ▁":
            prefixed = False
        return prefixed == self.add_space_prefix

    def _splits_alike(self, piece: str) -> bool:
        ours, theirs = ([end for _, (_, end) in split.pre_tokenize_str(piece)] for split in self._pre_tokenizers)
        return ours == theirs

    @cached_property
    def _pre_tokenizers(self) -> list[Any]:
        from tokenizers import Tokenizer
        from tokenizers.models import BPE

        made = []
        for step in (self.pre_tokenizer, self.in_llamacpp):
            tokenizer = json.loads(Tokenizer(BPE()).to_str())
            made.append(Tokenizer.from_str(json.dumps({**tokenizer, "pre_tokenizer": step})).pre_tokenizer)
        return made
