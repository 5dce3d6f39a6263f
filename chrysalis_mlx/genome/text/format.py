r"""A genome: the text of many repositories in one file, in the format of the asi-ecosystem.

    genome     = repository { repository }
    repository = "<|repo_start|>" NAME LF { file } "<|repo_end|>" LF LF
    file       = "<|file_start|>" PATH LF CONTENT LF "<|file_end|>" LF
    NAME, PATH = one or more characters, none of them LF
    CONTENT    = any UTF-8 text, escaped

A marker counts only at the start of a line, and a line ends at LF alone (a CR belongs to the line), so CRLF files, byte
order marks and a missing last line end come back as they were. Outside of files empty lines are skipped.

Escape: a line of CONTENT that starts with a marker is written with a backslash after its "<": `<\|file_end|>`. One that
starts with such an escaped marker gets one backslash more. Reading takes one away. Genomes that know no escape, with
markers in the middle of lines, read and write unchanged.

The file may be plain, gzip or xz. Its identity is the sha256 of the text, so that packing it does not change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.text.markers import FILE_END, FILE_START, REPO_END, REPO_START, escape
from chrysalis_mlx.genome.text.packing import packing, unpacked
from chrysalis_mlx.genome.text.parse import parse
from chrysalis_mlx.run import atomic_path

_BLOCK = 1 << 20


@dataclass(frozen=True)
class GenomeFile:
    """One file of a genome.

    Attributes:
        repository: the name of the repository it belongs to.
        path: its path there, with forward slashes.
        text: its content, exactly.
    """

    repository: str
    path: str
    text: str

    @cached_property
    def content(self) -> bytes:
        """The content in UTF-8, as its size and hash are taken."""
        return self.text.encode("utf-8")


class GenomeIdentity(NamedTuple):
    """What a genome is, however it is packed: sha256 (hexadecimal) and size in bytes of its text."""

    sha256: str
    bytes: int


def genome_identity(path: Path) -> GenomeIdentity:
    """Hash and measure the text of a genome.

    Raises:
        GenomeError: it cannot be opened or unpacked.
    """
    meter = _Meter()
    for _ in _unpacked_blocks(path, meter, _BLOCK):
        pass
    return meter.identity()


def read_genome(path: Path, *, block_bytes: int = _BLOCK) -> GenomeReading:
    """Read a genome file by file, in its order; memory for one file and one block at a time.

    Raises (while it is read, not by this call):
        GenomeError: not there, damaged packing, malformed (with the line), not UTF-8 (with line and byte), or empty.
            Files that come before the fault have been handed out by then.
    """
    return GenomeReading(path, block_bytes)


class GenomeReading(Iterator[GenomeFile]):
    """The files of a genome, once.

    Attributes:
        identity: of the whole text; None until its end was reached, which the last file may come before or after.
    """

    def __init__(self, path: Path, block_bytes: int) -> None:
        self._meter = _Meter()
        self._files = parse(path, _unpacked_blocks(path, self._meter, block_bytes))

    def __next__(self) -> GenomeFile:
        return GenomeFile(*next(self._files))

    @property
    def identity(self) -> GenomeIdentity | None:
        return self._meter.identity() if self._meter.ended else None


def write_genome(files: Iterable[GenomeFile], path: Path) -> GenomeIdentity:
    """Write a genome: gzip or xz where the name ends in .gz or .xz, the same bytes for the same files.

    Files of one repository are to follow each other. `path` is replaced when everything is written, or not at all.

    Raises:
        GenomeError: no files, a name, path or text that the format cannot hold, or a place that cannot be written.
    """
    meter = _Meter()
    try:
        with atomic_path(path) as partial, packing(partial, path.suffix) as stream:
            for block in _blocks(files, path):
                meter.add(block)
                stream.write(block)
            if not meter.bytes:
                raise GenomeError("there are no files to write", where=path, fix="name a source that holds text files")
    except OSError as error:
        raise GenomeError(
            f"the genome cannot be written: {error.strerror or error}", where=path, fix="name another output file"
        ) from error
    return meter.identity()


class _Meter:
    """Takes the identity of a text that comes in blocks."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.ended = False

    def add(self, block: bytes) -> None:
        self._digest.update(block)
        self.bytes += len(block)

    def identity(self) -> GenomeIdentity:
        return GenomeIdentity(self._digest.hexdigest(), self.bytes)


def _unpacked_blocks(path: Path, meter: _Meter, block_bytes: int) -> Iterator[bytes]:
    with unpacked(path) as stream:
        while block := stream.read(block_bytes):
            meter.add(block)
            yield block
    meter.ended = True


def _blocks(files: Iterable[GenomeFile], path: Path) -> Iterator[bytes]:
    repository = None
    for file in files:
        if file.repository != repository:
            if repository is not None:
                yield REPO_END + b"\n\n"
            yield REPO_START + _name(file.repository, path) + b"\n"
            repository = file.repository
        yield FILE_START + _name(file.path, path)
        with _only_characters(path):
            content = file.content
        yield escape(b"\n" + content)
        yield b"\n" + FILE_END + b"\n"
    if repository is not None:
        yield REPO_END + b"\n\n"


def _name(name: str, path: Path) -> bytes:
    if not name or "\n" in name:
        raise GenomeError(
            f"a genome cannot hold the name {name!r}", where=path, fix="names are not empty and have no line break"
        )
    with _only_characters(path):
        return name.encode("utf-8")


@contextmanager
def _only_characters(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        raise GenomeError(
            f"a genome cannot hold {error.object[error.start]!r}, which is no character of UTF-8", where=path
        ) from error
