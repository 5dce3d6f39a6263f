"""The adapter alone, without its base: for `llama-server --lora`, Ollama's ADAPTER, PEFT and mlx-lm.

llama.cpp computes W·x + (alpha / rank) · B·(A·x) beside a weight W of the loaded model, with one alpha for the file and
the rank of each tensor; an alpha of 0 counts as alpha = rank. Sources: llama.cpp's src/llama-adapter.{h,cpp} and
src/llama-graph.cpp (build_lora_mm, build_lora_mm_id).
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.adapters.experts import matrices
from chrysalis_mlx.adapters.files import save_mlx, save_peft
from chrysalis_mlx.adapters.spec import AdapterSpec, Array
from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf import architectures
from chrysalis_mlx.gguf.architectures import Family, Tensor, Value, permute
from chrysalis_mlx.gguf.writer import add_value
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.floats import to_float16
from chrysalis_mlx.run import atomic_path

Stored = Literal["F32", "F16"]

_FUSE = "fuse it into the model: chrysalis-mlx fuse"
_EMBEDDING = "token_embd.weight"
_NOT_LINEAR = "mlp.gate"  # a router of experts


@dataclass(frozen=True)
class AdapterFiles:
    """What `write_adapter_alone` wrote.

    Attributes:
        written: "gguf", "peft" or "mlx" to its file or directory.
        left_out: the others, to why the format has no place for this adapter.
    """

    written: dict[str, Path]
    left_out: dict[str, str]


@dataclass(frozen=True)
class _Block:
    """Where a module's matrices go: the matrix of a stacked tensor, the first row in it, and which rows of B."""

    module: str
    matrix: int
    row: int
    start: int
    stop: int


Beside = Mapping[str, tuple[Tensor, list[_Block]]]


def write_adapter_alone(
    directory: Path,
    model: ModelDirectory,
    spec: AdapterSpec,
    arrays: Mapping[str, Array],
    base: str,
    *,
    metadata: Mapping[str, Value] | None = None,
    dtype: Stored = "F32",
) -> AdapterFiles:
    """Write adapter.gguf, peft/ and mlx/, each whole or not at all; those that this adapter fits into.

    Args:
        model: the base that it stands beside.
        base: what the adapter was trained on, as PEFT's and mlx-lm's files name it; a path or a Hub id.
        metadata, dtype: as `write_adapter_gguf`.

    Raises:
        ExportError: an architecture without rules.
        ModelError: a value is too large for F16.
    """
    family = architectures.for_config(model.plain_config)
    names = model.checkpoint().names

    def gguf(path: Path) -> None:
        write_adapter_gguf(path, family, names, spec, arrays, metadata=metadata, dtype=dtype)

    def peft(path: Path) -> None:
        if spec.kind == "full":
            raise ExportError("it is a full fine-tuning, and PEFT knows low-rank updates only")
        if family.tied and any(name.endswith("embed_tokens") for name in spec.modules):
            raise ExportError("its embedding is the output head too, and PEFT would adapt one of the two")
        if others := [name for name in spec.modules if name.endswith(_NOT_LINEAR) or ".experts." in name]:
            raise ExportError(f"PEFT adapts linear layers, and {others[0]} is none in transformers")
        with atomic_path(path) as partial:
            save_peft(partial, spec, arrays, base)

    def mlx(path: Path) -> None:
        with atomic_path(path) as partial:
            save_mlx(partial, spec, arrays, base, layers=model.layer_count, experts=family.traits.experts)

    forms: dict[str, tuple[Path, Callable[[Path], None]]] = {
        "gguf": (directory / "adapter.gguf", gguf),
        "peft": (directory / "peft", peft),
        "mlx": (directory / "mlx", mlx),
    }
    done = AdapterFiles({}, {})
    for form, (path, write) in forms.items():
        try:
            write(path)
            done.written[form] = path
        except ExportError as error:
            done.left_out[form] = error.what
            _remove(path)  # an earlier export's is not this adapter
    return done


def write_adapter_gguf(
    path: Path,
    family: Family,
    names: Collection[str],
    spec: AdapterSpec,
    arrays: Mapping[str, Array],
    *,
    metadata: Mapping[str, Value] | None = None,
    dtype: Stored = "F32",
) -> None:
    """Write a LoRA that llama.cpp puts beside a GGUF of its base; a whole file or none.

    A module's exact scale is kept: where it is not alpha / rank of the file, B takes the difference.

    Args:
        family: the rules of the base's architecture.
        names: of the base's tensors.
        metadata: keys to add, such as general.name.
        dtype: of all matrices.

    Raises:
        ExportError: an adapter that no sum can express (DoRA, replaced weights), or beside a tensor that has no place.
        ModelError: a value is too large for F16.
    """
    import gguf

    _check_additive(spec)
    tensors = family.tensors(names)
    shapes = family.source_shapes(tensors)
    beside = {tensor.name: (tensor, _blocks(tensor, spec, shapes)) for tensor in tensors}
    beside = {name: found for name, found in beside.items() if found[1]}
    _check_placed(spec, beside)
    ranks = {name: _rank(blocks, spec) for name, (_, blocks) in beside.items()}
    alpha = _common_alpha(spec, beside, ranks)
    general: dict[str, Value] = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
        "general.file_type": 0 if dtype == "F32" else 1,
        **(metadata or {}),
    }
    with atomic_path(path) as partial:
        writer = gguf.GGUFWriter(partial, family.gguf)
        try:
            for key, value in general.items():
                add_value(writer, key, value)
            for name, (tensor, blocks) in beside.items():
                A, B = _matrices(tensor, blocks, ranks[name], alpha, spec, arrays)
                writer.add_tensor(f"{name}.lora_a", _stored(name, A, dtype))
                writer.add_tensor(f"{name}.lora_b", _stored(name, B, dtype))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _check_additive(spec: AdapterSpec) -> None:
    if spec.kind == "dora":
        raise ExportError(
            "a DoRA adapter cannot be a GGUF of its own: its magnitudes rescale the base's rows, and the format holds "
            "only the sum W + s·B·A",
            fix=_FUSE,
        )
    if spec.weights:
        raise ExportError(
            f"an adapter that replaces weights ({next(iter(spec.weights))}) cannot be a GGUF of its own: the format "
            "holds only sums with low-rank matrices",
            fix=_FUSE,
        )


def _check_placed(spec: AdapterSpec, beside: Beside) -> None:
    placed = {block.module for _, blocks in beside.values() for block in blocks}
    left = [module for module in spec.modules if module not in placed]
    if left or _EMBEDDING in beside:
        raise ExportError(
            f"the adapter stands beside {left[0] if left else _EMBEDDING}, for which a GGUF of an adapter has no place",
            fix=_FUSE,
        )


def _blocks(tensor: Tensor, spec: AdapterSpec, shapes: Mapping[str, tuple[int, ...]]) -> list[_Block]:
    """Which adapted modules a tensor is made of, and where in it they lie.

    Args:
        shapes: of stacked tensors of the checkpoint.
    """
    if len(tensor.shape) < 2:
        return []
    rows, place, found = tensor.shape[-2], 0, []
    for part in tensor.parts:
        shape = shapes[part.source] if len(tensor.shape) == 3 else (part.stop, tensor.shape[-1])
        for matrix in matrices(part.source, shape):
            first, last = max(part.start, matrix.start), min(part.stop, matrix.stop)
            if first < last and matrix.module in spec.modules:
                row, start = place + first - part.start, first - matrix.start
                found.append(_Block(matrix.module, row // rows, row % rows, start, last - matrix.start))
        place += part.stop - part.start
    return found


def _rank(blocks: list[_Block], spec: AdapterSpec) -> int:
    """Of the tensor: of the matrix with the most; modules that share a matrix lie side by side."""
    ranks = Counter[int]()
    for block in blocks:
        ranks[block.matrix] += spec.modules[block.module].rank
    return max(ranks.values())


def _common_alpha(spec: AdapterSpec, beside: Beside, ranks: Mapping[str, int]) -> float:
    """The alpha with which most modules' B stay as they are."""
    wanted = Counter(
        spec.modules[block.module].scale * ranks[name] for name, (_, blocks) in beside.items() for block in blocks
    )
    return next((alpha for alpha, _ in wanted.most_common() if alpha), 1.0)


def _matrices(
    tensor: Tensor, blocks: list[_Block], rank: int, alpha: float, spec: AdapterSpec, arrays: Mapping[str, Array]
) -> tuple[Array, Array]:
    """A, (..., rank, in), and B, (..., out, rank), in the tensor's order of rows."""
    count = tensor.shape[0] if len(tensor.shape) == 3 else 1
    A = np.zeros((count, rank, tensor.shape[-1]), np.float32)
    B = np.zeros((count, tensor.shape[-2], rank), np.float32)
    used = Counter[int]()
    for block in blocks:
        adapted, first = spec.modules[block.module], used[block.matrix]
        last = used[block.matrix] = first + adapted.rank
        factor = adapted.scale * rank / alpha
        rows = arrays[f"{block.module}.B"][block.start : block.stop]
        A[block.matrix, first:last] = arrays[f"{block.module}.A"]
        # A scale that was alpha / rank up to rounding leaves every bit of B.
        B[block.matrix, block.row : block.row + len(rows), first:last] = (
            rows if math.isclose(factor, 1.0, rel_tol=1e-7) else rows * np.float32(factor)
        )
    if len(tensor.shape) == 3:
        return A, B
    return A[0], permute(B[0], tensor.heads) if tensor.heads else B[0]


def _stored(name: str, values: Array, dtype: Stored) -> npt.NDArray[Any]:
    return to_float16(name, values) if dtype == "F16" else values


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
