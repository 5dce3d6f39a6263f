"""Weights on their way into files: slices of rows, read, encoded and written by all cores at once.

A row is quantized by itself, so slices may be written in any order, each at its own place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.gguf.architectures import Tensor, permute, row_count
from chrysalis_mlx.gguf.quantize import encode, tensor_bytes
from chrysalis_mlx.models.checkpoint import TensorSource

Array = npt.NDArray[np.float32]

_SLICE = 1 << 22  # weights of a slice: 16 MiB in float32
_WAITING = 2  # slices per core that are asked for ahead


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a file, its size in bytes, and its ggml type."""

    offset: int
    bytes: int
    ggml_type: str


class Output:
    """A file whose head is written: tensors may be put to their places, by several threads at a time.

    Args:
        path: the file.
        places: one per tensor, in file order.
    """

    def __init__(self, path: Path, places: Sequence[Place]) -> None:
        self.places = places
        self._path = path
        self._descriptor: int | None = os.open(path, os.O_WRONLY)
        os.ftruncate(self._descriptor, places[-1].offset + places[-1].bytes)

    def write(self, offset: int, data: npt.NDArray[Any]) -> None:
        """Write bytes at a place; a full disk raises OSError."""
        assert self._descriptor is not None
        view = np.ascontiguousarray(data).data.cast("B")
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written

    def sync(self) -> None:
        """See that all bytes are on the disk."""
        assert self._descriptor is not None
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


@dataclass(frozen=True)
class _Slice:
    """Rows of one tensor: its number, the first row in the GGUF, and the rows of a Hugging Face tensor."""

    number: int
    row: int
    source: str
    start: int
    stop: int


def stream(
    tensors: Sequence[Tensor],
    source: TensorSource,
    outputs: Sequence[Output],
    importance: Sequence[Array | None],
    progress: Callable[[int], None],
) -> None:
    """Write every tensor into every output; each slice is read once.

    Args:
        importance: of each tensor's columns, (matrices, in) float32; None without.
        progress: called with the number of weights done, again and again.

    Raises:
        ExportError, ModelError: as `quantize.encode` and the source.
        OSError: the disk is full, or fails.
    """
    cores = os.cpu_count() or 1
    pending: set[Future[int]] = set()
    with ThreadPoolExecutor(cores) as pool:
        try:
            for piece in _slices(tensors):
                if len(pending) >= cores * _WAITING:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    progress(sum(future.result() for future in done))
                number = piece.number
                pending.add(pool.submit(_carry, piece, tensors[number], source, outputs, importance[number]))
            for future in pending:
                progress(future.result())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    for output in outputs:
        output.sync()


def _slices(tensors: Sequence[Tensor]) -> Iterator[_Slice]:
    """Slices of at most `_SLICE` weights; none holds rows of two matrices, or a part of a head that is interleaved."""
    for number, tensor in enumerate(tensors):
        if tensor.values is not None:
            yield _Slice(number, 0, "", 0, 1)
        rows_of_matrix = tensor.shape[-2] if len(tensor.shape) > 1 else 1
        unit = rows_of_matrix // tensor.heads if tensor.heads and len(tensor.shape) > 1 else 1
        step = max(1, _SLICE // tensor.shape[-1] // unit) * unit
        row = 0
        for part in tensor.parts:
            start = part.start
            while start < part.stop:
                stop = min(start + step, part.stop, start + rows_of_matrix - row % rows_of_matrix)
                yield _Slice(number, row, part.source, start, stop)
                row, start = row + stop - start, stop


def _carry(
    piece: _Slice, tensor: Tensor, source: TensorSource, outputs: Sequence[Output], importance: Array | None
) -> int:
    """Bring one slice into all files; returns its number of weights."""
    values = tensor.values if tensor.values is not None else _values(piece, tensor, source)
    weights = None if importance is None else importance[piece.row // tensor.shape[-2]]
    encoded: dict[str, npt.NDArray[Any]] = {}
    for output in outputs:
        place = output.places[piece.number]
        if place.ggml_type not in encoded:
            encoded[place.ggml_type] = encode(tensor.name, values, place.ggml_type, weights)
        row_bytes = tensor_bytes(place.ggml_type, tensor.shape[-1:])
        output.write(place.offset + piece.row * row_bytes, encoded[place.ggml_type])
    return int(values.size)


def _values(piece: _Slice, tensor: Tensor, source: TensorSource) -> Array:
    values = source.rows(piece.source, piece.start, piece.stop)
    if len(tensor.shape) == 1:
        values = values.reshape(tensor.shape)
    if tensor.heads:
        share = len(values) / (tensor.shape[0] if len(tensor.shape) == 1 else row_count(tensor.shape))
        values = permute(values, round(tensor.heads * share))
    return values + np.float32(tensor.plus) if tensor.plus else values
