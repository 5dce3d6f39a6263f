"""The importance matrix: what goes into each tensor's columns, squared and summed over the tokens of a text.

The file is llama.cpp's, both its GGUF and the older .dat (source: llama.cpp's common/imatrix-loader.cpp and
tools/imatrix/imatrix.cpp); what becomes of it is what llama-quantize makes of it (tools/quantize/quantize.cpp).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf.architectures import Tensor, Value
from chrysalis_mlx.gguf.legacy_imatrix import read_legacy
from chrysalis_mlx.run import atomic_path

Array = npt.NDArray[np.float32]

_SUMS, _COUNTS = ".in_sum2", ".counts"
_DATASETS, _CHUNKS, _CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
# llama-imatrix collects neither: an embedding is looked up, and the head is left out unless it is asked for.
_NOT_COLLECTED = ("token_embd.weight", "output.weight")
_EXPERT = re.compile(r"\.experts\.(\d+)\.")


@dataclass(frozen=True)
class Entry:
    """One tensor's.

    Attributes:
        sums: (matrices, in) float32, sums of squared inputs; one matrix, or one per expert.
        counts: (matrices,) float32, tokens that were summed; of a .dat file, calls.
    """

    sums: Array
    counts: Array


class Squares(Protocol):
    """What a backend collected of one linear layer: as in `Entry`."""

    @property
    def sums(self) -> Array: ...
    @property
    def counts(self) -> Array: ...


@dataclass(frozen=True)
class Imatrix:
    """An importance matrix.

    Attributes:
        entries: by GGUF tensor name.
        datasets: names of the texts that it was computed on.
        chunks: how many pieces of text that were.
        chunk_size: tokens of a piece; 0 where the file does not say.
        file: name of its file.
    """

    entries: Mapping[str, Entry]
    datasets: tuple[str, ...]
    chunks: int
    chunk_size: int
    file: str = "imatrix.gguf"

    def weights(self, name: str, shape: tuple[int, ...] | None = None) -> Array | None:
        """(matrices, in) float32: mean squared inputs, exactly what llama-quantize hands to the quantizer.

        All are 1 of an expert that no token came to.

        Args:
            shape: the tensor's, (out, in) or (experts, out, in). Files that have one count for all experts need it.

        Returns:
            None if there is no such entry, or it does not fit the shape, which is no error for embeddings alone.
        """
        entry = self.entries.get(name)
        if entry is None or (shape is not None and entry.sums.size != _columns(shape)):
            return None
        counts = np.floor(entry.counts.astype(np.float64) + 0.5).astype(np.float32)[:, None]  # C's lround
        means = np.where(counts > 0, entry.sums / np.maximum(counts, 1), np.float32(1))
        return means if shape is None else means.reshape(-1, shape[-1])

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        """See that it was made for this model.

        Args:
            shapes: GGUF name -> shape of the model's tensors; those of one dimension do not count.

        Returns:
            the tensors that it says nothing of, though llama-imatrix would have.

        Raises:
            ExportError: an entry has another length than the tensor's row, or there is none for any tensor.
        """
        matrices = {name: shape for name, shape in shapes.items() if len(shape) > 1 and name != _NOT_COLLECTED[0]}
        for name, shape in matrices.items():
            entry = self.entries.get(name)
            if entry is not None and entry.sums.size != _columns(shape):
                experts = f" for each of {shape[0]} experts" if len(shape) == 3 else ""
                raise ExportError(
                    f"the importance matrix has {entry.sums.size} values for {name}, whose rows have {shape[-1]}"
                    f"{experts}",
                    where=self.file,
                    fix="it was made for another model: take this model's, or none",
                )
        missing = [name for name in matrices if name not in self.entries and name not in _NOT_COLLECTED]
        if not matrices.keys() & self.entries.keys():
            known = next(iter(self.entries), "nothing")
            raise ExportError(
                f"the importance matrix has no entry for any of the model's tensors; it knows {known}",
                where=self.file,
                fix="it was made for another architecture: take this model's, or none",
            )
        return missing

    def metadata(self) -> dict[str, Value]:
        """The keys by which llama-quantize says in a model's file that an importance matrix was used."""
        keys: dict[str, Value] = {"quantize.imatrix.file": self.file}
        if self.datasets:
            keys["quantize.imatrix.dataset"] = self.datasets[0]
        keys["quantize.imatrix.entries_count"] = len(self.entries)
        if self.chunks > 0:
            keys["quantize.imatrix.chunks_count"] = self.chunks
        return keys


def imatrix_of(
    squares: Mapping[str, Squares], tensors: Iterable[Tensor], *, datasets: Sequence[str], chunk_size: int
) -> Imatrix:
    """What a backend's `input_squares` means for the tensors of a GGUF.

    Args:
        squares: by Hugging Face module; experts of one projection under one name, `...mlp.experts.gate_proj`.
        tensors: the family's; those that no collected module feeds get no entry.
        datasets: names of the texts.
        chunk_size: tokens of a row of text; llama-imatrix's context.

    Raises:
        ExportError: what was collected does not fit a tensor.
    """
    entries = {tensor.name: entry for tensor in tensors if (entry := _entry(tensor, squares)) is not None}
    most = max((float(entry.counts.max()) for entry in entries.values()), default=0.0)
    return Imatrix(entries, tuple(datasets), max(1, int(most) // chunk_size), chunk_size)


def read_imatrix(path: Path) -> Imatrix:
    """Read llama.cpp's importance matrix, a GGUF or a .dat.

    Raises:
        ExportError: neither of them, truncated, damaged, or with values that no sum of squares has.
    """
    path = Path(path)
    if not path.is_file():
        raise ExportError("there is no such importance matrix", where=path)
    with path.open("rb") as handle:
        is_gguf = handle.read(4) == b"GGUF"
    if is_gguf:
        imatrix = _read_gguf(path)
    else:
        legacy = read_legacy(path)
        entries = {name: Entry(*pair) for name, pair in legacy.entries.items()}
        imatrix = Imatrix(entries, legacy.datasets, legacy.chunks, 0, path.name)
    for name, entry in imatrix.entries.items():
        for values in (entry.sums, entry.counts):
            if not (np.isfinite(values).all() and (values >= 0).all()):
                raise ExportError(
                    f"the importance matrix has values for {name} that are not finite, or negative",
                    where=path,
                    fix="make it again; a model in half precision may have overflowed",
                )
    return imatrix


def write_imatrix(path: Path, imatrix: Imatrix) -> None:
    """Write a GGUF as llama-imatrix does, byte for byte; whole or not at all."""
    import gguf

    with atomic_path(Path(path)) as partial:
        writer = gguf.GGUFWriter(partial, "")
        try:
            writer.kv_data[0].clear()  # the writer's architecture: an importance matrix has none
            writer.add_type(gguf.GGUFType.IMATRIX)
            writer.add_key_value(
                _DATASETS, list(imatrix.datasets) or [""], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING
            )
            writer.add_uint32(_CHUNKS, imatrix.chunks)
            writer.add_uint32(_CHUNK_SIZE, imatrix.chunk_size)
            for name, entry in sorted(imatrix.entries.items()):
                # ggml drops outer dimensions of 1.
                sums, counts = (
                    (entry.sums[0], entry.counts) if len(entry.counts) == 1 else (entry.sums, entry.counts[:, None])
                )
                writer.add_tensor(name + _SUMS, np.ascontiguousarray(sums, np.float32))
                writer.add_tensor(name + _COUNTS, np.ascontiguousarray(counts, np.float32))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _read_gguf(path: Path) -> Imatrix:
    import gguf

    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        sums, counts = (dict(_named(reader.tensors, suffix)) for suffix in (_SUMS, _COUNTS))
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise ExportError(
            f"the importance matrix is damaged or truncated: {error}", where=path, fix="download or make it again"
        ) from error
    lacking = next((key for key in (_DATASETS, _CHUNKS, _CHUNK_SIZE) if key not in fields), None)
    if lacking or not sums:
        kind = fields.get("general.type", "of no type")
        what = f"it lacks {lacking}" if lacking else "it has no sums"
        raise ExportError(
            f"this GGUF ({kind}) is not an importance matrix: {what}",
            where=path,
            fix="give the file that llama-imatrix wrote",
        )
    entries = {}
    for name in sorted(sums.keys() | counts.keys()):
        own = counts.get(name, np.empty(0, np.float32)).reshape(-1)
        if name not in sums or not own.size or not sums[name].size or sums[name].size % own.size:
            raise ExportError(f"the sums and counts of {name} do not go together", where=path, fix="make it again")
        entries[name] = Entry(sums[name].reshape(own.size, -1), own)
    try:
        datasets = tuple(name for name in fields[_DATASETS] if name)
        return Imatrix(entries, datasets, int(fields[_CHUNKS]), int(fields[_CHUNK_SIZE]), path.name)
    except (TypeError, ValueError) as error:
        raise ExportError(f"a key of the importance matrix has a wrong type: {error}", where=path) from error


def _named(tensors: Sequence[Any], suffix: str) -> Iterator[tuple[str, Array]]:
    """The float32 tensors whose names end so, without the ending, in memory of their own."""
    for tensor in tensors:
        if tensor.name.endswith(suffix):
            if tensor.tensor_type.name != "F32":
                raise ValueError(f"{tensor.name} is {tensor.tensor_type.name}, not F32")
            yield tensor.name.removesuffix(suffix), np.array(tensor.data, np.float32)


def _entry(tensor: Tensor, squares: Mapping[str, Squares]) -> Entry | None:
    """A tensor's; None if what feeds it was not collected. Its rows' order does not matter, its experts' does."""
    fed: dict[str, list[int | None]] = {}
    for part in tensor.parts:
        module, expert = _module(part.source)
        experts = fed.setdefault(module, [])
        if expert not in experts:
            experts.append(expert)
    if not fed or len(tensor.shape) == 1 or any(module not in squares for module in fed):
        return None
    found = [_chosen(squares[module], experts) for module, experts in fed.items()]
    matrices = tensor.shape[0] if len(tensor.shape) == 3 else 1
    for entry in found:
        same = np.array_equal(entry.sums, found[0].sums) and np.array_equal(entry.counts, found[0].counts)
        if entry.sums.shape != (matrices, tensor.shape[-1]) or not same:
            raise ExportError(
                f"what was collected of {', '.join(fed)} has the shape {entry.sums.shape}, the tensor {tensor.shape}",
                where=tensor.name,
                fix="report this with the model's name",
            )
    return found[0]


def _chosen(squares: Squares, experts: list[int | None]) -> Entry:
    rows = [expert for expert in experts if expert is not None]
    if not rows:
        return Entry(squares.sums, squares.counts)
    if max(rows) >= len(squares.counts):
        return Entry(squares.sums[:0], squares.counts[:0])  # fits no tensor
    return Entry(squares.sums[rows], squares.counts[rows])


def _module(source: str) -> tuple[str, int | None]:
    """The collected module that a weight belongs to, and the expert whose it is alone.

    Experts are stored one by one; or stacked, under mlx-lm's names or with gate and up in one as in transformers 5.
    """
    module = source.removesuffix(".weight").replace(".switch_mlp.", ".experts.")
    found = _EXPERT.search(module)
    module = _EXPERT.sub(".experts.", module)
    if module.endswith(".experts.gate_up_proj"):
        module = module.replace(".gate_up_proj", ".gate_proj")
    return module, int(found[1]) if found else None


def _columns(shape: tuple[int, ...]) -> int:
    """How many values an entry for a tensor has."""
    return shape[-1] * (shape[0] if len(shape) == 3 else 1)
