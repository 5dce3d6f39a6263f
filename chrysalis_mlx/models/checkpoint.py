"""Safetensors directories without a framework, one tensor in memory at a time.

Own reading of the format (8 bytes of header length, a JSON header, the data), because the numpy front end of
`safetensors` has no bfloat16. Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.floats import from_bfloat16, to_bfloat16, to_float16
from chrysalis_mlx.models.npz import npz_files, read_npz_header
from chrysalis_mlx.models.quantized import Packing, beside, dequantize, find_packed

Array = npt.NDArray[np.float32]
DType = Literal["float32", "float16", "bfloat16"]

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# Storage type of every float dtype of the format; bfloat16 has no numpy type and is read as its bits.
_FLOATS: dict[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_SIZES: dict[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1,
    "I8": 1, "U8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8,
}  # fmt: skip
_WRITTEN: dict[DType, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
WRITTEN_BYTES: dict[DType, int] = {dtype: _SIZES[stored] for dtype, stored in _WRITTEN.items()}
"""Bytes of a number in what `write_checkpoint` writes."""

_MAX_HEADER = 100_000_000  # the limit of the reference implementation


class TensorSource(Protocol):
    """Weights of one model under their Hugging Face names, read one at a time."""

    @property
    def names(self) -> Sequence[str]:
        """Every tensor once."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""

    def read(self, name: str) -> Array:
        """The tensor as float32; a fresh array, or one that nobody writes to."""

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Some rows of the tensor seen as a matrix, all leading axes flattened: (stop - start, in) float32.

        A vector is one row. May be called by several threads at a time.
        """


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its dtype as the format names it, and the bytes that hold it, row by row."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Checkpoint:
    """The weights of a Hugging Face or MLX model directory; a `TensorSource`.

    A weight that MLX packed has the shape and the values of the matrix that it stands for.

    Attributes:
        names: tensor names in file order, without the scales and biases of packed weights.
        files: the safetensors files, in shard order.
    """

    def __init__(
        self, entries: Mapping[str, Entry], files: Sequence[Path], packed: Mapping[str, Packing] | None = None
    ) -> None:
        self._entries = dict(entries)
        self._packed = dict(packed or {})
        parts = {beside(name, part) for name in self._packed for part in ("scales", "biases")}
        self.names: list[str] = [name for name in self._entries if name not in parts]
        self.files: list[Path] = list(files)

    @classmethod
    def open(cls, directory: Path) -> Checkpoint:
        """Read the headers of model.safetensors, of the shards that its index names, or of MLX's older weights.npz.

        Raises:
            ModelError: no weights, a missing shard, or a damaged or truncated file; packed weights that are not as
                config.json says.
        """
        files = _weight_files(Path(directory))
        entries: dict[str, Entry] = {}
        for file in files:
            for name, entry in read_entries(file).items():
                if name in entries:
                    raise ModelError(
                        f"the tensor {name} is in two files of one model",
                        where=f"{entries[name].file} and {file}",
                        fix="download the model again into an empty directory",
                    )
                entries[name] = entry
        packed = find_packed(Path(directory), {name: (entry.dtype, entry.shape) for name, entry in entries.items()})
        return cls(entries, files, packed)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header alone.

        Raises:
            ModelError: there is no such tensor.
        """
        shape = self._entry(name).shape
        return self._packed[name].unpacked(shape) if name in self._packed else shape

    def dtype(self, name: str) -> str:
        """The dtype as the format names it: "F32", "F16", "BF16", of packed weights "U32" ...

        Raises:
            ModelError: there is no such tensor.
        """
        return self._entry(name).dtype

    def stored_dtype(self, name: str) -> str:
        """The dtype that a weight's values have: of packed weights, that of their scales.

        Raises:
            ModelError: there is no such tensor.
        """
        return self.dtype(beside(name, "scales") if name in self._packed else name)

    def read(self, name: str) -> Array:
        """One tensor as a fresh float32 array; F32, F16 and BF16 exactly, F64 rounded, packed ones dequantized.

        Raises:
            ModelError: there is no such tensor, or it holds neither floats nor what can be dequantized.
        """
        shape = self.shape(name)
        return self.rows(name, 0, math.prod(shape[:-1])).reshape(shape)

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Some rows of a tensor seen as a matrix, as `read` gives them; no other row is touched.

        Raises:
            ModelError: as `read`.
        """
        entry = self._entry(name)
        if packing := self._packed.get(name):
            return self._dequantized(name, packing, start, stop)
        if entry.dtype not in _FLOATS:
            raise ModelError(
                f"the tensor {name} holds {entry.dtype}, not float32, float16 or bfloat16 weights",
                where=entry.file,
                fix="this looks like a quantized model whose config.json does not say how: use the unquantized one",
            )
        raw = _map(entry, _FLOATS[entry.dtype], start, stop)
        return from_bfloat16(raw) if entry.dtype == "BF16" else np.array(raw, dtype=np.float32)

    def _dequantized(self, name: str, packing: Packing, start: int, stop: int) -> Array:
        entry, scales = self._entry(name), self._entry(beside(name, "scales"))
        if not packing.is_known:
            raise ModelError(f"the tensor {name} is quantized as {packing}, which cannot be read", where=entry.file)
        words = _map(entry, "<u4", start, stop)
        if packing.mode == "affine":
            groups, biases = (self.rows(beside(name, part), start, stop) for part in ("scales", "biases"))
            return dequantize(words, groups, biases, packing)
        return dequantize(words, _map(scales, "u1", start, stop), None, packing)

    def _entry(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            where = self.files[0].parent if self.files else None
            raise ModelError(f"the model has no tensor {name}", where=where) from None


def write_checkpoint(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], npt.NDArray[Any]],
    *,
    dtype: DType = "float32",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write one safetensors file: the header from the shapes, then one tensor after the other.

    For a `TensorSource` s: `write_checkpoint(path, {n: s.shape(n) for n in s.names}, s.read)`.

    Args:
        path: the file; an existing one is overwritten. The caller gives it a temporary name and renames it.
        shapes: every tensor's shape, in the order in which they are written.
        read: called once per name, in that order; float32, of exactly that shape.
        dtype: what is stored. bfloat16 rounds to nearest, ties to even.
        metadata: the `__metadata__` of the file; transformers and mlx-lm look for {"format": "pt"}, the default.

    Raises:
        ModelError: `read` gave another shape, or a value that is too large for float16.
    """
    stored, size = _WRITTEN[dtype], WRITTEN_BYTES[dtype]
    header: dict[str, Any] = {"__metadata__": dict({"format": "pt"} if metadata is None else metadata)}
    offset = 0
    for name, shape in shapes.items():
        end = offset + math.prod(shape) * size
        header[name] = {"dtype": stored, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data to start at a multiple of 8
    with Path(path).open("wb") as handle:
        handle.write(len(text).to_bytes(8, "little"))
        handle.write(text)
        for name, shape in shapes.items():
            values = np.asarray(read(name))
            if values.shape != tuple(shape):
                raise ModelError(f"the tensor {name} was announced as {tuple(shape)} and came as {values.shape}")
            _encode(name, values, dtype).tofile(handle)
        handle.flush()
        os.fsync(handle.fileno())


def _encode(name: str, values: npt.NDArray[Any], dtype: DType) -> npt.NDArray[Any]:
    if dtype == "float16":
        stored: npt.NDArray[Any] = to_float16(name, values)
    elif dtype == "bfloat16":
        stored = to_bfloat16(values)
    else:
        stored = values.astype("<f4", copy=False)
    return np.ascontiguousarray(stored).reshape(-1)


def _map(entry: Entry, storage: str, start: int, stop: int) -> npt.NDArray[Any]:
    """Rows of a tensor as they lie in its file, (stop - start, in).

    Mapped for one read, so that the pages of earlier tensors do not count as ours.
    """
    columns = entry.shape[-1] if entry.shape else 1
    shape = (stop - start, columns)
    if 0 in shape:
        return np.zeros(shape, dtype=storage)
    offset = entry.start + start * columns * np.dtype(storage).itemsize
    return np.memmap(entry.file, dtype=storage, mode="r", offset=offset, shape=shape)


def _weight_files(directory: Path) -> list[Path]:
    single, index = directory / SINGLE_FILE, directory / INDEX_FILE
    if single.is_file():
        return [single]
    if not index.is_file():
        if older := npz_files(directory):
            return older
        raise ModelError(
            f"no {SINGLE_FILE} and no {INDEX_FILE}",
            where=directory,
            fix="give a Hugging Face or MLX model directory with safetensors weights",
        )
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the weight index is damaged: {error}", where=index, fix="download the model again"
        ) from error
    if missing := [name for name in names if not (directory / name).is_file()]:
        raise ModelError(
            f"{len(missing)} of {len(names)} weight files are missing: {', '.join(missing)}",
            where=directory,
            fix="download the model again",
        )
    return [directory / name for name in names]


def read_entries(file: Path) -> dict[str, Entry]:
    """Every tensor of a .safetensors or .npz file in file order, without reading one; for `Checkpoint`.

    Raises:
        ModelError: the file is damaged or truncated, or holds an .npz that cannot be read where it lies.
    """
    if file.suffix == ".npz":
        return {name: Entry(file, *member) for name, member in read_npz_header(file).items()}
    return _read_header(file)


def _read_header(file: Path) -> dict[str, Entry]:
    size = file.stat().st_size
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, _MAX_HEADER):
            raise _damaged(file, f"it has {size} bytes and announces a header of {length}")
        text = handle.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        entries = {name: _entry(file, fields, 8 + length) for name, fields in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(file, f"its header cannot be read ({error})") from error
    for name, entry in entries.items():
        if entry.end > size:
            raise _damaged(file, f"it ends at byte {size}, inside the tensor {name}, which goes to byte {entry.end}")
        expected = math.prod(entry.shape) * _SIZES.get(entry.dtype, 0)
        if entry.dtype in _SIZES and expected != entry.end - entry.start:
            raise _damaged(file, f"the tensor {name} of shape {entry.shape} takes {entry.end - entry.start} bytes")
    return dict(sorted(entries.items(), key=lambda item: item[1].start))


def _entry(file: Path, fields: Any, base: int) -> Entry:
    start, end = (int(offset) for offset in fields["data_offsets"])
    shape = tuple(int(length) for length in fields["shape"])
    if not 0 <= start <= end or min(shape, default=0) < 0:
        raise ValueError(f"offsets {start} to {end}, shape {shape}")
    return Entry(file, str(fields["dtype"]), shape, base + start, base + end)


def _damaged(file: Path, why: str) -> ModelError:
    return ModelError(
        f"the safetensors file is damaged or truncated: {why}", where=file, fix="download or write the file again"
    )
