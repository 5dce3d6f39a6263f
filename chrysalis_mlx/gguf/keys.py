"""The key-values of a GGUF, read without its vocabulary and tensors.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A vocabulary of 150,000 tokens takes gguf's own
reader seconds; here an array that is longer than asked for is passed over.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from chrysalis_mlx.errors import ModelError

Scalar = str | int | float | bool
Value = Scalar | list[Scalar]

_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# Type number -> how `struct` writes it.
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def read_keys(file: Path, *, longest: int = 4096) -> dict[str, Value]:
    """The key-values of a GGUF, in the file's order.

    Args:
        longest: arrays of more elements are left out.

    Raises:
        ModelError: there is no such file, it is not a GGUF, or it is damaged or truncated.
    """
    if not file.is_file():
        raise ModelError("there is no such GGUF file", where=file)
    with file.open("rb") as handle:
        if handle.read(4) != b"GGUF":
            raise ModelError("the file is not a GGUF", where=file, fix="a GGUF starts with the letters GGUF")
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _Reader(content, longest).keys()
            except (struct.error, ValueError, OverflowError) as error:
                raise ModelError(
                    f"the GGUF is damaged or truncated: {error}", where=file, fix="download or write it again"
                ) from error


class _Reader:
    def __init__(self, content: mmap.mmap, longest: int) -> None:
        self._content, self._longest, self._place = content, longest, 4
        self._order = "<"
        version = self._number("I")
        if version > 0xFFFF:  # the other byte order
            self._order, self._place = ">", 4
            version = self._number("I")
        if version not in _VERSIONS:
            raise ValueError(f"it has version {version}; {', '.join(map(str, _VERSIONS))} are read")

    def keys(self) -> dict[str, Value]:
        self._number("Q")  # tensors
        found: dict[str, Value] = {}
        for _ in range(int(self._number("Q"))):
            name, value = self._string(), self._value(int(self._number("I")))
            if value is not None:
                found[name] = value
        return found

    def _value(self, kind: int) -> Value | None:
        """A value; None for an array that is passed over."""
        if kind != _ARRAY:
            return self._scalar(kind)
        kind, count = int(self._number("I")), int(self._number("Q"))
        if count <= self._longest:
            return [self._scalar(kind) for _ in range(count)]
        if kind == _STRING:
            self._pass_strings(count)
        else:
            self._pass(struct.calcsize(self._order + self._format(kind)) * count)
        return None

    def _scalar(self, kind: int) -> Scalar:
        return self._string() if kind == _STRING else self._number(self._format(kind))

    def _format(self, kind: int) -> str:
        if kind not in _FORMATS:
            raise ValueError(f"a value has the type {kind}, which GGUF does not know here")
        return _FORMATS[kind]

    def _number(self, form: str) -> int | float | bool:
        form = self._order + form
        value: int | float | bool = struct.unpack_from(form, self._content, self._place)[0]
        self._place += struct.calcsize(form)
        return value

    def _string(self) -> str:
        length = int(self._number("Q"))
        start = self._place
        self._pass(length)
        return self._content[start : start + length].decode("utf-8", "replace")

    def _pass(self, length: int) -> None:
        self._place += length
        if self._place > len(self._content):
            raise ValueError("it ends inside its key-values")

    def _pass_strings(self, count: int) -> None:
        # The inner loop of a vocabulary: no method calls.
        content, place, length = self._content, self._place, struct.Struct(self._order + "Q")
        for _ in range(count):
            place += 8 + length.unpack_from(content, place)[0]
        self._place = place
        self._pass(0)
