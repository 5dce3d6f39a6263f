"""What the corpus is made from: one text, wherever it came from, and what was decided about it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

from chrysalis_mlx.genome.text.format import GenomeFile


@dataclass(frozen=True)
class Document:
    """One text: a file of a genome, or a row of one's own data.

    Attributes:
        repository: where it comes from; the file's name for own data.
        path: its path there; the row's number for own data.
        text: without a byte order mark, and with LF where there was CRLF.
        backup: its repository holds older copies of others.
    """

    repository: str
    path: str
    text: str
    backup: bool = False

    @classmethod
    def of(cls, file: GenomeFile, *, backup: bool = False) -> Document:
        return cls(file.repository, file.path, file.text.removeprefix("\ufeff").replace("\r\n", "\n"), backup)

    @property
    def name(self) -> str:
        return f"{self.repository}/{self.path}"

    @cached_property
    def digest(self) -> str:
        """sha256 of the text without what a copy may differ in: white space at line ends and around the whole."""
        normalized = "\n".join(line.rstrip(" \t") for line in self.text.split("\n")).strip()
        return hashlib.sha256(normalized.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Verdict:
    """Whether a document is expressed, and why.

    Attributes:
        rule: what decided, for instance `include: *`, `exclude: *.log`, `gate: log_lines`, `copy of r/a.md`,
            `near copy of r/a.md`, `backup of known text`, `budget: total`.
        score: what the rule measured (a gate's score, a similarity, a share); None where it measures nothing.
        scores: of the gates that the document came to.
        family: its number, for documents that came as far as the search for copies; a copy has its original's.
    """

    document: Document
    expressed: bool
    rule: str
    score: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    family: int | None = None


@dataclass(frozen=True)
class Selected:
    """A document that is expressed.

    Attributes:
        family: number of its family; documents of one family stay on one side of the split.
        weight: how often it is seen in an epoch.
        tokens: of its text, before framing.
    """

    document: Document
    family: int
    weight: float
    tokens: int
