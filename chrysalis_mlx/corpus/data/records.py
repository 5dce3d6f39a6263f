"""The lines of a file, and what stands in one place of it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from chrysalis_mlx.errors import CorpusError


@dataclass(frozen=True)
class Record:
    """What stands in one place of a file: a JSON object, or why it is none.

    Attributes:
        number: the line where it begins in JSON Lines, CSV and text, else its place among the rows; the first is 1.
        detail: more of the reason, which differs from row to row.
        ends: whether its text ends here, and does not go on in the next record.
    """

    number: int
    value: dict[str, Any] | None
    reason: str = ""
    detail: str = ""
    ends: bool = True


def is_compressed(path: Path) -> bool:
    """Whether its name says so."""
    return path.suffix.lower() == ".gz"


def suffix_of(path: Path) -> str:
    """The suffix that tells the format, in lower case."""
    return (path.with_suffix("") if is_compressed(path) else path).suffix.lower()


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if is_compressed(path) else path.open("rb")


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file with their ends, without a byte order mark.

    Raises:
        CorpusError: they are not UTF-8.
    """
    with _open(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                wide = number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff"))
                raise CorpusError(
                    "the file is UTF-16, not UTF-8" if wide else f"the file is not UTF-8: {error.reason}",
                    where=f"{path}, line {number}, byte {error.start + 1} (0x{line[error.start]:02x})",
                    fix="save it as UTF-8",
                ) from error
            yield text.removeprefix("\ufeff") if number == 1 else text
