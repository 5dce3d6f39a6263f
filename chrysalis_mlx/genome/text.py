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

import gzip
import hashlib
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.run import atomic_path

REPO_START, REPO_END = b"<|repo_start|>", b"<|repo_end|>"
FILE_START, FILE_END = b"<|file_start|>", b"<|file_end|>"

_NEEDS_ESCAPE = re.compile(rb"^<(?=\\*\|(?:repo|file)_(?:start|end)\|>)", re.MULTILINE)
_ESCAPED = re.compile(rb"<\\+\|(?:repo|file)_(?:start|end)\|>")


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


class GenomeIdentity(NamedTuple):
    """What a genome is, however it is packed: sha256 (hexadecimal) and size in bytes of its text."""

    sha256: str
    bytes: int


def genome_identity(path: Path) -> GenomeIdentity:
    """Hash and measure the text of a genome.

    Raises:
        GenomeError: it cannot be opened or unpacked.
    """
    digest, size = hashlib.sha256(), 0
    with _opened(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
    return GenomeIdentity(digest.hexdigest(), size)


def read_genome(path: Path) -> Iterator[GenomeFile]:
    """Read a genome file by file, in its order; memory for one file at a time.

    Raises:
        GenomeError: not there, damaged packing, malformed (with the line), not UTF-8 (with line and byte), or empty.
            Files that come before the fault have been handed out by then.
    """
    with _opened(path) as stream:
        yield from _Reader(path, stream).files()


def write_genome(files: Iterable[GenomeFile], path: Path) -> GenomeIdentity:
    """Write a genome: gzip or xz where the name ends in .gz or .xz, the same bytes for the same files.

    Files of one repository are to follow each other. `path` is replaced when everything is written, or not at all.

    Raises:
        GenomeError: no files, a name, path or text that the format cannot hold, or a place that cannot be written.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with atomic_path(path) as partial, _packed(partial, path.suffix) as stream:
            for block in _blocks(files, path):
                digest.update(block)
                size += len(block)
                stream.write(block)
            if not size:
                raise GenomeError("there are no files to write", where=path, fix="name a source that holds text files")
    except OSError as error:
        raise GenomeError(
            f"the genome cannot be written: {error.strerror or error}", where=path, fix="name another output file"
        ) from error
    return GenomeIdentity(digest.hexdigest(), size)


def _blocks(files: Iterable[GenomeFile], path: Path) -> Iterator[bytes]:
    repository = None
    for file in files:
        if file.repository != repository:
            if repository is not None:
                yield REPO_END + b"\n\n"
            yield REPO_START + _name(file.repository, path) + b"\n"
            repository = file.repository
        yield FILE_START + _name(file.path, path) + b"\n"
        yield _NEEDS_ESCAPE.sub(rb"<\\", _encode(file.text, path)) + b"\n"
        yield FILE_END + b"\n"
    if repository is not None:
        yield REPO_END + b"\n\n"


def _name(name: str, path: Path) -> bytes:
    if not name or "\n" in name:
        raise GenomeError(
            f"a genome cannot hold the name {name!r}", where=path, fix="names are not empty and have no line break"
        )
    return _encode(name, path)


def _encode(text: str, path: Path) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise GenomeError(
            f"a genome cannot hold {text[error.start]!r}, which is no character of UTF-8", where=path
        ) from error


@contextmanager
def _packed(target: Path, suffix: str) -> Iterator[BufferedIOBase]:
    # No name, no time: the same text gives the same file.
    with target.open("wb") as raw:
        if suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as stream:
                yield stream
        elif suffix == ".xz":
            with lzma.LZMAFile(raw, "wb", format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=6) as packed:
                yield packed
        else:
            yield raw


@contextmanager
def _opened(path: Path) -> Iterator[BufferedIOBase]:
    try:
        with path.open("rb") as raw:
            # The first bytes, not the name: a download may have lost its suffix.
            magic = raw.peek(6)
            if magic.startswith(b"\x1f\x8b"):
                with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
                    yield stream
            elif magic.startswith(b"\xfd7zXZ\x00"):
                with lzma.LZMAFile(raw, "rb") as unpacked:
                    yield unpacked
            else:
                yield raw
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise GenomeError(
            f"the packed genome is damaged or cut short ({error})",
            where=path,
            fix="copy or download it again; `xz -t` or `gzip -t` checks it",
        ) from error
    except OSError as error:
        raise GenomeError(
            f"the genome cannot be read: {error.strerror or error}",
            where=path,
            fix="name a genome file, or build one: chrysalis-mlx genome build SOURCE... -o FILE",
        ) from error


class _Reader:
    def __init__(self, path: Path, stream: BufferedIOBase) -> None:
        self._path = path
        self._stream = stream
        self._number = 0  # of the line that was read last, from 1
        self._offset = 0  # of its first byte, in the unpacked text
        self._next = 0

    def files(self) -> Iterator[GenomeFile]:
        repository: str | None = None
        opened = count = 0
        while line := self._line():
            marker = _marker(line)
            if line == b"\n":
                continue
            if repository is None:
                if marker != REPO_START:
                    raise self._malformed("<|repo_start|>NAME", line)
                repository, opened = self._rest(line, marker), self._number
            elif marker == FILE_START:
                yield self._file(repository, self._rest(line, marker))
                count += 1
            elif marker == REPO_END:
                self._alone(line, marker)
                repository = None
            else:
                raise self._malformed("<|file_start|>PATH or <|repo_end|>", line)
        if repository is not None:
            raise self._ended("<|repo_end|>", f"repository {repository!r}", opened)
        if not count:
            raise GenomeError(
                "the genome is empty: it holds no file",
                where=self._path,
                fix="build one: chrysalis-mlx genome build SOURCE... -o FILE",
            )

    def _file(self, repository: str, path: str) -> GenomeFile:
        opened = self._number
        lines: list[str] = []
        while line := self._line():
            marker = _marker(line)
            if marker == FILE_END:
                self._alone(line, marker)
                # The last line end belongs to the format, not to the content.
                return GenomeFile(repository, path, "".join(lines)[:-1])
            if marker:
                raise self._malformed(f"<|file_end|> of {path!r}, opened in line {opened},", line)
            lines.append(self._decode(b"<" + line[2:] if _ESCAPED.match(line) else line))
        raise self._ended("<|file_end|>", f"file {path!r}", opened)

    def _line(self) -> bytes:
        line = self._stream.readline()
        self._offset, self._next = self._next, self._next + len(line)
        self._number += bool(line)
        return line

    def _decode(self, line: bytes) -> str:
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise GenomeError(
                f"the genome is not UTF-8: byte 0x{line[error.start]:02x}",
                where=f"{self._path}, line {self._number}, byte {self._offset + error.start}",
                fix="build the genome again; `genome build` leaves out files that are not UTF-8",
            ) from error

    def _rest(self, line: bytes, marker: bytes) -> str:
        rest = self._decode(line[len(marker) :].removesuffix(b"\n"))
        if not rest:
            raise self._malformed(f"a name after {marker.decode()}", line)
        return rest

    def _alone(self, line: bytes, marker: bytes) -> None:
        if line.rstrip(b"\n") != marker:
            raise self._malformed(f"{marker.decode()} alone on its line", line)

    def _malformed(self, expected: str, line: bytes) -> GenomeError:
        found = line.rstrip(b"\n")
        if found.endswith(b"\r") and _marker(found):
            fix = "the line ends were changed to CRLF; a genome has LF: copy it without converting it"
        elif found.startswith(b"\xef\xbb\xbf"):
            fix = "an editor put a byte order mark in front; remove these three bytes"
        else:
            fix = "the file is damaged or no genome; build it again with: chrysalis-mlx genome build"
        return GenomeError(
            f"malformed genome: expected {expected}, found {found[:60].decode('utf-8', 'backslashreplace')!r}",
            where=f"{self._path}, line {self._number}",
            fix=fix,
        )

    def _ended(self, expected: str, what: str, opened: int) -> GenomeError:
        return GenomeError(
            f"malformed genome: it ends before the {expected} of {what}, which line {opened} opens",
            where=f"{self._path}, line {self._number}",
            fix="the file was cut short: copy it again or build it again",
        )


def _marker(line: bytes) -> bytes:
    """The marker that a line starts with; empty when there is none."""
    if line.startswith(b"<|"):
        for marker in (FILE_START, FILE_END, REPO_START, REPO_END):
            if line.startswith(marker):
                return marker
    return b""
