"""Hugging Face weights -> GGUF files: each slice of rows is read once and written into every file, in little memory."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf import architectures
from chrysalis_mlx.gguf.architectures import Family, Tensor, Value
from chrysalis_mlx.gguf.imatrix import Imatrix
from chrysalis_mlx.gguf.quantize import choose, file_type, require_importance, tensor_bytes, type_id
from chrysalis_mlx.gguf.stream import Output, Place, stream
from chrysalis_mlx.gguf.vocabulary.vocabulary import Vocabulary
from chrysalis_mlx.models.checkpoint import TensorSource
from chrysalis_mlx.models.parameters import BUFFERS

Array = npt.NDArray[np.float32]
Progress = Callable[[int], None]

_SHOWN = 5  # names in an error message


@dataclass(frozen=True)
class Written:
    """What `write_gguf` wrote.

    Attributes:
        path: the file.
        bytes: its size.
        bits_per_weight: bytes of all tensors * 8 / number of all weights: the true figure.
        tensor_types: ggml type -> number of tensors.
    """

    path: Path
    bytes: int
    bits_per_weight: float
    tensor_types: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """What an export will write.

    Attributes:
        family: the rules.
        vocabulary: the tokenizer's.
        tensors: every tensor, in file order.
        types: name of each file type -> ggml type of each tensor.
        importance: the importance matrix; None without.
        columns: of each tensor, what it says of the columns, (matrices, in).
    """

    family: Family
    vocabulary: Vocabulary
    tensors: list[Tensor]
    types: Mapping[str, list[str]] = field(default_factory=dict)
    importance: Imatrix | None = None
    columns: Sequence[Array | None] = ()

    @property
    def weights(self) -> int:
        """How many numbers all tensors hold."""
        return sum(int(np.prod(tensor.shape)) for tensor in self.tensors)

    def tensor_bytes(self, type_name: str) -> int:
        """Bytes of all tensors of one file."""
        chosen = zip(self.tensors, self.types[type_name], strict=True)
        return sum(tensor_bytes(ggml_type, tensor.shape) for tensor, ggml_type in chosen)

    def choose(self, types: Iterable[str], importance: Imatrix | None) -> Plan:
        """The same model as files of these types.

        Raises:
            ExportError: there is no such type; an importance matrix that is needed and not there, or another model's.
        """
        if importance is not None:
            importance.check({tensor.name: tensor.shape for tensor in self.tensors})
        columns = [importance.weights(tensor.name, tensor.shape) if importance else None for tensor in self.tensors]
        chosen = {name: self._types_of(name, importance is not None) for name in types}
        for type_name, ggml_types in chosen.items():
            for tensor, ggml_type, weights in zip(self.tensors, ggml_types, columns, strict=True):
                if weights is None:
                    require_importance(file_type(type_name), tensor.name, ggml_type)
        return dataclasses.replace(self, types=chosen, importance=importance, columns=columns)

    def bytes_of(self, types: Iterable[str], *, importance: bool) -> int:
        """What files of these types will take, before they are chosen; `importance`: with an importance matrix."""
        return sum(
            tensor_bytes(ggml_type, tensor.shape)
            for name in types
            for tensor, ggml_type in zip(self.tensors, self._types_of(name, importance), strict=True)
        )

    def _types_of(self, type_name: str, importance: bool) -> list[str]:
        kind, traits = file_type(type_name), self.family.traits
        return [choose(kind, tensor.name, tensor.shape, traits, importance=importance) for tensor in self.tensors]


def plan_gguf(source: TensorSource, config: Mapping[str, Any], tokenizer_directory: Path) -> Plan:
    """Everything about an export that can be known, and refused, before a weight is read; no types are chosen yet.

    Args:
        source: the weights under their Hugging Face names.
        config: config.json.
        tokenizer_directory: holds the tokenizer and the chat template.

    Raises:
        ExportError: an architecture, config or tokenizer that cannot be exported; a tensor missing, left over or of the
            wrong shape.
    """
    family = architectures.for_config(config)
    vocabulary = Vocabulary.from_directory(Path(tokenizer_directory), config)
    tensors = family.tensors(source.names)
    _check(family, tensors, source)
    return Plan(family, vocabulary, tensors)


def write_gguf(
    paths: Mapping[str, Path],
    source: TensorSource,
    config: Mapping[str, Any],
    tokenizer_directory: Path,
    *,
    metadata: Mapping[str, Value] | None = None,
    importance: Imatrix | None = None,
    progress: Progress | None = None,
) -> dict[str, Written]:
    """Plan and write in one call: see `plan_gguf`, `Plan.choose` and `write_plan`."""
    plan = plan_gguf(source, config, tokenizer_directory).choose(paths, importance)
    return write_plan(plan, paths, source, metadata=metadata, progress=progress)


def write_plan(
    plan: Plan,
    paths: Mapping[str, Path],
    source: TensorSource,
    *,
    metadata: Mapping[str, Value] | None = None,
    progress: Progress | None = None,
) -> dict[str, Written]:
    """Write a model as files that llama.cpp and Ollama load, from one pass over its weights, on all cores.

    Memory is a few slices of 16 MiB and the vocabulary, whatever the model's size.

    Args:
        plan: with the types of `paths` chosen.
        paths: name of a file type -> its file; an existing one is overwritten. The caller gives temporary names.
        source: the weights of the plan.
        metadata: keys to add or replace, such as general.name or chrysalis.run.
        progress: called with the number of weights done, again and again.

    Raises:
        ExportError: too little room on the disk; values that are not finite.
        ModelError: the source cannot read a tensor, or a value is too large for F16.
        OSError: the disk is full, or fails.
    """
    for folder in {path.parent for path in paths.values()}:
        require_room(folder, sum(plan.tensor_bytes(name) for name, path in paths.items() if path.parent == folder))
    outputs = []
    try:
        for name, path in paths.items():
            start = _write_head(path, name, plan, metadata or {})
            outputs.append(Output(path, _places(plan, name, start)))
        stream(plan.tensors, source, outputs, plan.columns, progress or (lambda weights: None))
    finally:
        for output in outputs:
            output.close()
    return {name: _written(path, name, plan) for name, path in paths.items()}


def _check(family: Family, tensors: list[Tensor], source: TensorSource) -> None:
    """Every tensor is there, of the right shape, and none is left over."""
    wanted = {part.source for tensor in tensors for part in tensor.parts}
    present = [name for name in source.names if not _ignored(name, family)]
    for what, some in (
        ("the weights lack", [name for name in dict.fromkeys(_sources(tensors)) if name not in set(present)]),
        ("the GGUF rules have no place for", [name for name in present if name not in wanted]),
    ):
        if some:
            more = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
            raise ExportError(
                f"{what} {', '.join(some[:_SHOWN])}{more}",
                where=f"{family.classes[0]} with {family.layers} layers",
                fix="check that config.json belongs to these weights and that they are not quantized",
            )
    for name, shape in family.source_shapes(tensors).items():
        if tuple(source.shape(name)) != shape:
            raise ExportError(f"{name} has the shape {tuple(source.shape(name))}, config.json says {shape}", where=name)


def _sources(tensors: list[Tensor]) -> list[str]:
    return [part.source for tensor in tensors for part in tensor.parts]


def _ignored(name: str, family: Family) -> bool:
    """Copies that some checkpoints carry: the head of a tied model, and computed rotary frequencies."""
    return (family.tied and name == "lm_head.weight") or name.endswith(BUFFERS)


def require_room(folder: Path, needed: int) -> None:
    """See that a disk has so many bytes free; the folder need not exist yet.

    Raises:
        ExportError: it has less.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ExportError(
            f"the export takes {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB of the disk are free",
            where=folder,
            fix="make room, or write fewer or smaller types",
        )


def _write_head(path: Path, type_name: str, plan: Plan, metadata: Mapping[str, Value]) -> int:
    """Write everything before the weights, and return where they start."""
    import gguf

    writer = gguf.GGUFWriter(path, plan.family.gguf)
    try:
        general: dict[str, Value] = {
            "general.type": "model",
            "general.file_type": file_type(type_name).ftype,
            "general.quantization_version": gguf.GGML_QUANT_VERSION,
        }
        if plan.importance is not None and file_type(type_name).takes_importance:
            general |= plan.importance.metadata()
        keys = {**general, **plan.family.metadata(), **metadata}
        if isinstance(name := keys.get("general.name"), str):
            keys["general.name"] = plan.vocabulary.general_name(name)
        for key, value in keys.items():
            add_value(writer, key, value)
        plan.vocabulary.add_to(writer)
        for tensor, ggml_type in zip(plan.tensors, plan.types[type_name], strict=True):
            size, number = tensor_bytes(ggml_type, tensor.shape), gguf.GGMLQuantizationType(type_id(ggml_type))
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, number)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        return _padded(int(writer.fout[0].tell()))
    finally:
        writer.close()


def _places(plan: Plan, type_name: str, start: int) -> list[Place]:
    """Where each tensor of a file lies; the order and the padding are those that GGUFWriter announced."""
    places = []
    for tensor, ggml_type in zip(plan.tensors, plan.types[type_name], strict=True):
        size = tensor_bytes(ggml_type, tensor.shape)
        places.append(Place(start, size, ggml_type))
        start = _padded(start + size)
    return places


def _padded(offset: int) -> int:
    import gguf

    return int(gguf.GGUFWriter.ggml_pad(offset, gguf.GGUF_DEFAULT_ALIGNMENT))


def add_value(writer: Any, key: str, value: Value) -> None:
    """Put a key into a `gguf.GGUFWriter`, in the type that llama.cpp's converter gives such a value.

    Raises:
        ExportError: it is general.architecture, which the writer was made with.
    """
    if key == "general.architecture":
        raise ExportError("the architecture of a GGUF is not metadata that can be chosen", where=key)
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int) and 0 <= value < 1 << 32:
        writer.add_uint32(key, value)
    elif isinstance(value, int):
        writer.add_int64(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        writer.add_string(key, value)


def _written(path: Path, type_name: str, plan: Plan) -> Written:
    types: dict[str, int] = {}
    for ggml_type in plan.types[type_name]:
        types[ggml_type] = types.get(ggml_type, 0) + 1
    bits = plan.tensor_bytes(type_name) * 8 / plan.weights
    return Written(path, path.stat().st_size, bits, dict(sorted(types.items())))
