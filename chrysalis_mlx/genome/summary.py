"""What a genome holds, in figures."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chrysalis_mlx.genome.text import genome_identity, read_genome


@dataclass
class RepositorySummary:
    """One repository of a genome: its files and the size of their contents in bytes."""

    repository: str
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class LongestFile:
    """The longest file of a genome, in characters and bytes."""

    repository: str
    path: str
    characters: int
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
        duplicates: files whose content is exactly that of an earlier one.
        blank: files of nothing but white space.
        longest: the longest file.
        by_repository: each repository, in the genome's order.
    """

    path: Path
    sha256: str
    repositories: int
    files: int
    bytes: int
    content_bytes: int
    duplicates: int
    blank: int
    longest: LongestFile
    by_repository: list[RepositorySummary]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarize(path: Path) -> GenomeSummary:
    """Read a genome once through and count; memory for one file and a hash of each.

    Raises:
        GenomeError: as `read_genome`.
    """
    identity = genome_identity(path)
    repositories: dict[str, RepositorySummary] = {}
    contents: set[bytes] = set()
    longest: LongestFile | None = None
    files = blank = 0
    for file in read_genome(path):
        content = file.text.encode("utf-8")
        files += 1
        blank += not file.text.strip()
        contents.add(hashlib.sha256(content).digest())
        entry = repositories.setdefault(file.repository, RepositorySummary(file.repository))
        entry.files += 1
        entry.bytes += len(content)
        if longest is None or len(file.text) > longest.characters:
            longest = LongestFile(file.repository, file.path, len(file.text), len(content))
    assert longest is not None  # read_genome raises for a genome without files
    return GenomeSummary(
        path=path,
        sha256=identity.sha256,
        repositories=len(repositories),
        files=files,
        bytes=identity.bytes,
        content_bytes=sum(entry.bytes for entry in repositories.values()),
        duplicates=files - len(contents),
        blank=blank,
        longest=longest,
        by_repository=list(repositories.values()),
    )
