"""Take a genome apart, strictly: what is not exactly the format is an error that names line or byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.text.markers import (
    FILE_END,
    FILE_START,
    LONGEST,
    MARKED_LINE,
    REPO_END,
    REPO_START,
    marker_of,
    unescape,
)

ParsedFile: TypeAlias = tuple[str, str, str]


def parse(path: Path, blocks: Iterator[bytes]) -> Iterator[ParsedFile]:
    """Repository, path and text of every file; memory for one file and one block at a time.

    Args:
        path: the genome, to name it in errors.
        blocks: its text, in pieces of any size but 0.

    Raises:
        GenomeError: malformed, cut short, not UTF-8, or empty.
    """
    return _Parser(path, blocks).files()


class _Parser:
    """Takes a genome apart, line by line between files and block by block inside of them.

    The buffer begins with the LF in front of the next line; in front of the first line one is thought up.
    """

    def __init__(self, path: Path, blocks: Iterator[bytes]) -> None:
        self._path = path
        self._blocks = blocks
        self._buffer = bytearray(b"\n")
        self._offset = -1  # of the buffer, in the unpacked text
        self._number = 0  # of the line that was taken last, from 1

    def files(self) -> Iterator[ParsedFile]:
        repository: str | None = None
        opened = count = 0
        while line := self._line():
            marker = marker_of(line)
            if line == b"\n":
                continue
            if repository is None:
                if marker != REPO_START:
                    raise self._malformed("<|repo_start|>NAME", line)
                repository, opened = self._rest(line, marker), self._number
            elif marker == FILE_START:
                name = self._rest(line, marker)
                yield repository, name, self._text(name)
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

    def _text(self, path: str) -> str:
        """The text of the file whose first line was taken, and its end."""
        opened = self._number
        searched = 0
        while not (found := MARKED_LINE.search(self._buffer, searched)):
            searched = max(0, len(self._buffer) - LONGEST + 1)
            if not self._more():
                self._decode(self._take(len(self._buffer) - self._buffer.endswith(b"\n")))
                raise self._ended("<|file_end|>", f"file {path!r}", opened)
        text = self._decode(self._take(found.start()))
        line = self._line()
        if marker_of(line) != FILE_END:
            raise self._malformed(f"<|file_end|> of {path!r}, opened in line {opened},", line)
        self._alone(line, FILE_END)
        return unescape(text)[1:]

    def _line(self) -> bytearray:
        """Take the next line, with the LF in front of it; empty at the end of the text."""
        searched = 1
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = max(1, len(self._buffer))
            if not self._more():
                end = len(self._buffer)
                break
        return self._take(end) if len(self._buffer) > 1 else bytearray()

    def _more(self) -> bool:
        block = next(self._blocks, b"")
        self._buffer += block
        return bool(block)

    def _take(self, end: int) -> bytearray:
        taken = self._buffer[:end]
        del self._buffer[:end]
        self._offset += end
        self._number += taken.count(b"\n")
        return taken

    def _decode(self, taken: bytearray) -> str:
        try:
            return taken.decode("utf-8")
        except UnicodeDecodeError as error:
            number = self._number - taken.count(b"\n", error.start)
            raise GenomeError(
                f"the genome is not UTF-8: byte 0x{taken[error.start]:02x}",
                where=f"{self._path}, line {number}, byte {self._offset - len(taken) + error.start}",
                fix="build the genome again; `genome build` leaves out files that are not UTF-8",
            ) from error

    def _rest(self, line: bytearray, marker: bytes) -> str:
        rest = self._decode(line)[1 + len(marker) :]
        if not rest:
            raise self._malformed(f"a name after {marker.decode()}", line)
        return rest

    def _alone(self, line: bytearray, marker: bytes) -> None:
        if line[1:] != marker:
            raise self._malformed(f"{marker.decode()} alone on its line", line)

    def _malformed(self, expected: str, line: bytearray) -> GenomeError:
        found = line[1:]
        if found.endswith(b"\r") and marker_of(line):
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
