"""What a genome holds, in figures."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from chrysalis_mlx.genome.text.format import GenomeIdentity, read_genome

LARGEST = 10


@dataclass
class RepositorySummary:
    """One repository of a genome in figures.

    Attributes:
        repository: its name.
        files: how many.
        bytes: the size of their contents.
        tokens: of their contents; None when nobody counted them.
        duplicates: files whose content is exactly that of an earlier one, in this repository or one before it.
        duplicate_bytes: the size of those.
        duplicate_share: of `bytes`, from 0 to 1.
    """

    repository: str
    files: int = 0
    bytes: int = 0
    tokens: int | None = None
    duplicates: int = 0
    duplicate_bytes: int = 0
    duplicate_share: float = 0.0


@dataclass(frozen=True)
class LargeFile:
    """One of the largest files of a genome."""

    repository: str
    path: str
    bytes: int


@dataclass(frozen=True)
class GenomeSummary:
    """A genome in figures.

    Attributes:
        path: the genome.
        sha256: of its text, however it is packed.
        repositories: how many have at least one file.
        files: how many.
        bytes: the size of its text, markers included.
        content_bytes: the size of the files' contents alone.
        tokens: of the contents, each file counted alone; None when nobody counted them.
        duplicates: files whose content is exactly that of an earlier one.
        duplicate_bytes: the size of those.
        duplicate_share: of `content_bytes`, from 0 to 1.
        blank: files of nothing but white space.
        largest: the ten largest files; of two as large, the earlier one first.
        by_repository: each repository, in the genome's order.
    """

    path: Path
    sha256: str
    repositories: int
    files: int
    bytes: int
    content_bytes: int
    tokens: int | None
    duplicates: int
    duplicate_bytes: int
    duplicate_share: float
    blank: int
    largest: list[LargeFile]
    by_repository: list[RepositorySummary]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarize(path: Path, count_tokens: Callable[[str], int] | None = None) -> GenomeSummary:
    """Read a genome once through and count; memory for one file and a hash of each.

    Args:
        path: the genome.
        count_tokens: tells how many tokens a text has.

    Raises:
        GenomeError: as `read_genome`.
    """
    by_name: dict[str, RepositorySummary] = {}
    seen: set[bytes] = set()
    largest: list[LargeFile] = []
    blank = 0
    reading = read_genome(path)
    for file in reading:
        content = file.content
        digest = hashlib.sha256(content).digest()
        entry = by_name.setdefault(file.repository, RepositorySummary(file.repository))
        entry.files += 1
        entry.bytes += len(content)
        if digest in seen:
            entry.duplicates += 1
            entry.duplicate_bytes += len(content)
        seen.add(digest)
        if count_tokens is not None:
            entry.tokens = (entry.tokens or 0) + count_tokens(file.text)
        blank += not file.text.strip()
        candidates = [*largest, LargeFile(file.repository, file.path, len(content))]
        largest = heapq.nlargest(LARGEST, candidates, key=attrgetter("bytes"))
    assert reading.identity is not None  # it was read to its end
    return _in_total(path, reading.identity, list(by_name.values()), blank, largest)


def _in_total(
    path: Path, identity: GenomeIdentity, repositories: list[RepositorySummary], blank: int, largest: list[LargeFile]
) -> GenomeSummary:
    for entry in repositories:
        entry.duplicate_share = _share(entry.duplicate_bytes, entry.bytes)
    content_bytes = sum(entry.bytes for entry in repositories)
    duplicate_bytes = sum(entry.duplicate_bytes for entry in repositories)
    tokens = [entry.tokens for entry in repositories if entry.tokens is not None]
    return GenomeSummary(
        path=path,
        sha256=identity.sha256,
        repositories=len(repositories),
        files=sum(entry.files for entry in repositories),
        bytes=identity.bytes,
        content_bytes=content_bytes,
        tokens=sum(tokens) if tokens else None,
        duplicates=sum(entry.duplicates for entry in repositories),
        duplicate_bytes=duplicate_bytes,
        duplicate_share=_share(duplicate_bytes, content_bytes),
        blank=blank,
        largest=largest,
        by_repository=repositories,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
