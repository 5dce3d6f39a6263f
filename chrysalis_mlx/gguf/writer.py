"""Hugging Face weights -> one GGUF file, one tensor in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf.hyperparameters import Hyperparameters
from chrysalis_mlx.gguf.quantize import FileType, choose, encode, file_type, tensor_bytes, type_id
from chrysalis_mlx.gguf.rope import ROPE_FREQS
from chrysalis_mlx.gguf.vocabulary import Vocabulary
from chrysalis_mlx.models.checkpoint import TensorSource

Value = str | int | float
Progress = Callable[[str, int, int], None]

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
class _Planned:
    source: str | None  # None: the rotary factors, which are computed
    name: str
    shape: tuple[int, ...]
    ggml_type: str


def write_gguf(
    path: Path,
    source: TensorSource,
    config: Mapping[str, Any],
    tokenizer_directory: Path,
    type_name: str,
    *,
    metadata: Mapping[str, Value] | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write a model that llama.cpp and Ollama load.

    Args:
        path: the file; an existing one is overwritten. The caller gives it a temporary name and renames it.
        source: the weights under their Hugging Face names; every tensor is read once.
        config: config.json.
        tokenizer_directory: holds the tokenizer and the chat template.
        type_name: a key of `quantize.TYPES`.
        metadata: keys to add or replace, such as general.name or chrysalis.run.
        progress: called with (GGUF name, tensors done, tensors in all) after every tensor.

    Raises:
        ExportError: an architecture, config, tokenizer or type that cannot be exported; a tensor missing, left over or
            of the wrong shape; values that are not finite.
        ModelError: the source cannot read a tensor, or a value is too large for F16.
    """
    import gguf

    kind = file_type(type_name)
    model = Hyperparameters.from_config(config)
    vocabulary = Vocabulary.from_directory(Path(tokenizer_directory), config)
    plan = _plan(kind, model, source)
    writer = gguf.GGUFWriter(path, model.rules.gguf)
    try:
        general: dict[str, Value] = {
            "general.type": "model",
            "general.file_type": kind.ftype,
            "general.quantization_version": gguf.GGML_QUANT_VERSION,
        }
        for key, value in {**general, **model.gguf_metadata(), **(metadata or {})}.items():
            _add(writer, key, value)
        vocabulary.add_to(writer)
        for tensor in plan:
            size = tensor_bytes(tensor.ggml_type, tensor.shape)
            ggml_type = gguf.GGMLQuantizationType(type_id(tensor.ggml_type))
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, ggml_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, tensor in enumerate(plan, 1):
            writer.write_tensor_data(_data(tensor, model, source))
            if progress is not None:
                progress(tensor.name, done, len(plan))
        writer.flush()
        for handle in writer.fout or ():
            os.fsync(handle.fileno())
    finally:
        writer.close()
    return _written(Path(path), plan)


def _plan(kind: FileType, model: Hyperparameters, source: TensorSource) -> list[_Planned]:
    names, shapes = model.tensor_names(), model.tensor_shapes()
    present = [name for name in source.names if not _ignored(name, model)]
    for what, some in (
        ("the weights lack", [name for name in names if name not in set(present)]),
        ("the GGUF rules have no place for", [name for name in present if name not in names]),
    ):
        if some:
            more = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
            raise ExportError(
                f"{what} {', '.join(some[:_SHOWN])}{more}",
                where=f"{model.rules.name} with {model.layers} layers",
                fix="check that config.json belongs to these weights and that they are not quantized",
            )
    plan = []
    for name, stored in names.items():
        shape = tuple(source.shape(name))
        if shape != shapes[name]:
            raise ExportError(f"{name} has the shape {shape}, config.json says {shapes[name]}", where=name)
        chosen = choose(kind, stored, shape, layers=model.layers, tied=model.tied, wide=model.wide)
        plan.append(_Planned(name, stored, shape, chosen))
    if model.llama3_scaling is not None:
        plan.append(_Planned(None, ROPE_FREQS, (model.head_dim // 2,), "F32"))
    return plan


def _ignored(name: str, model: Hyperparameters) -> bool:
    """Copies that some checkpoints carry: the head of a tied model, and computed rotary frequencies."""
    return (model.tied and name == "lm_head.weight") or name.endswith(".rotary_emb.inv_freq")


def _data(tensor: _Planned, model: Hyperparameters, source: TensorSource) -> Any:
    if tensor.source is None:
        factors = model.rope_frequency_factors()
        assert factors is not None
        return factors
    return encode(tensor.name, model.permuted(tensor.source, source.read(tensor.source)), tensor.ggml_type)


def _add(writer: Any, key: str, value: Value) -> None:
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
    else:
        writer.add_string(key, value)


def _written(path: Path, plan: list[_Planned]) -> Written:
    total = sum(tensor_bytes(tensor.ggml_type, tensor.shape) for tensor in plan)
    weights = sum(int(np.prod(tensor.shape)) for tensor in plan)
    types: dict[str, int] = {}
    for tensor in plan:
        types[tensor.ggml_type] = types.get(tensor.ggml_type, 0) + 1
    return Written(path, path.stat().st_size, total * 8 / weights, dict(sorted(types.items())))
