"""The importance matrix file that llama.cpp wrote before it had one in GGUF (.dat): read, never written.

Little-endian int32 and float32 (source: llama.cpp's tools/imatrix/imatrix.cpp):

    entries, then for each: length of the name, name, calls, number of values, values
    then, if there is more: calls in all, length of a name, name of the text

A value is the mean square times calls, of all experts one after the other.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ExportError

Array = npt.NDArray[np.float32]

_LONGEST_NAME = 1024  # in bytes; GGUF's limit is 64, and what is no such file gives billions


@dataclass(frozen=True)
class Legacy:
    """What a .dat file holds.

    Attributes:
        entries: tensor name -> (1, values) and (1,) float32; their quotient is the mean square.
        datasets: name of the text, if the file says it.
        chunks: calls in all; 0 if the file does not say it.
    """

    entries: dict[str, tuple[Array, Array]]
    datasets: tuple[str, ...]
    chunks: int


def read_legacy(path: Path) -> Legacy:
    """Read a .dat file.

    Raises:
        ExportError: it is none, or truncated.
    """
    data = _Bytes(path)
    count = data.integer("the number of entries")
    if count < 1:
        raise data.refused(f"it has {count} entries")
    entries = {}
    for number in range(1, count + 1):
        what = f"entry {number} of {count}"
        name = data.name(what)
        calls, length = data.integer(what), data.integer(what)
        values = np.frombuffer(data.take(4 * length, what), "<f4").astype(np.float32)
        if not length:
            raise data.refused(f"{what} has no values")
        # llama-quantize divides by the calls if there are any.
        entries[name] = (values[None], np.array([max(calls, 1)], np.float32))
    if data.ended:
        return Legacy(entries, (), 0)
    chunks = data.integer("the number of calls")
    named = "" if data.ended else data.name("the name of the text")
    return Legacy(entries, (named,) if named else (), chunks)


class _Bytes:
    """A file read from front to end."""

    def __init__(self, path: Path) -> None:
        self._path, self._data, self._at = path, path.read_bytes(), 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self._data)

    def take(self, size: int, what: str) -> bytes:
        if not 0 <= size <= len(self._data) - self._at:
            raise self.refused(f"it ends inside {what}")
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def integer(self, what: str) -> int:
        number: int = struct.unpack("<i", self.take(4, what))[0]
        return number

    def name(self, what: str) -> str:
        length = self.integer(what)
        if not 0 <= length <= _LONGEST_NAME:
            raise self.refused(f"the name in {what} has {length} bytes")
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError:
            raise self.refused(f"the name in {what} is not text") from None

    def refused(self, why: str) -> ExportError:
        return ExportError(
            f"the file is no importance matrix of llama.cpp, or damaged: {why}",
            where=self._path,
            fix="give a file that llama-imatrix wrote, a GGUF or .dat",
        )
