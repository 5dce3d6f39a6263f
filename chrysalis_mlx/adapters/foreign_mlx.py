"""An adapter as mlx-lm writes it, of this and of older versions.

Beside y = x Wᵀ mlx-lm computes scale · (x · lora_a) · lora_b: `lora_a` is (in, r) and `lora_b` (r, out). Beside an
embedding they are (tokens, r) and (r, out); beside stacked experts (experts, r, in) and (experts, out, r), in older
versions (experts · r, in). A full fine-tuning is the weights themselves.
Source: mlx_lm/tuner/{lora,dora,utils}.py, versions 0.0.14 to 0.32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from chrysalis_mlx.adapters.experts import EXPERT, matrices
from chrysalis_mlx.adapters.foreign_file import CONFIG_FILE, Contents, Pair, TensorFile, grouped, number
from chrysalis_mlx.adapters.spec import Array, Kind
from chrysalis_mlx.errors import ModelError

MLX_FILES = ("adapters.safetensors", "adapters.npz")
_PARTS = {"lora_a": "A", "lora_b": "B", "m": "m"}
_KINDS = ("lora", "dora", "full")


def read_mlx(tensors: TensorFile, config: Mapping[str, Any]) -> Contents:
    """What the files say.

    Args:
        config: adapter_config.json.

    Raises:
        ModelError: something in them that cannot be merged, or config and tensors that contradict each other.
    """
    kind = _kind(config, tensors.file)
    if kind == "full":
        return Contents("full", 0, 0.0, {}, {name: name for name in tensors.names})
    modules = grouped(tensors.names, _split, tensors.file)
    known = {tensor for parts in modules.values() for tensor in parts.values()}
    if left := [name for name in tensors.names if name not in known]:
        raise ModelError(f"the adapter's tensor {left[0]} is none of lora_a, lora_b and m", where=tensors.file)
    parameters = config.get("lora_parameters")
    parameters = parameters if isinstance(parameters, Mapping) else {}
    pairs: dict[str, Pair] = {}
    for module, parts in modules.items():
        _check_magnitude(kind, module, parts, tensors.file)
        pairs |= _pairs(module, parts, tensors, _scale(config, parameters, tensors.file))
    rank = max((len(pair.A) for pair in pairs.values()), default=0)
    _check_rank(parameters, pairs, tensors.file)
    scale = next((pair.scale for pair in pairs.values()), 0.0)
    dropout = number(parameters, "dropout", tensors.file) if "dropout" in parameters else 0.0
    experts = max((int(found["expert"]) + 1 for found in map(EXPERT.fullmatch, pairs) if found), default=0)
    return Contents(kind, rank, scale * rank, pairs, {}, dropout=dropout, one_table=True, experts=experts)


def _kind(config: Mapping[str, Any], where: Path) -> Kind:
    kind = config.get("fine_tune_type") or ("dora" if config.get("use_dora") else "lora")
    if kind not in _KINDS:
        raise ModelError(f"the adapter's fine_tune_type is {kind!r}, not one of {', '.join(_KINDS)}", where=where)
    return cast(Kind, kind)


def _split(name: str) -> tuple[str, str] | None:
    module, _, part = name.rpartition(".")
    return (module, _PARTS[part]) if part in _PARTS else None


def _check_magnitude(kind: Kind, module: str, parts: Mapping[str, str], where: Path) -> None:
    if ("m" in parts) != (kind == "dora"):
        has = "has" if "m" in parts else "lacks"
        raise ModelError(
            f"the adapter's config says {kind}, and its module {module} {has} a magnitude (m)",
            where=where,
            fix="adapter_config.json and the tensors are of two adapters, or fine_tune_type was changed",
        )


def _scale(config: Mapping[str, Any], parameters: Mapping[str, Any], where: Path) -> float:
    """What the low-rank product is multiplied by.

    mlx-lm up to 0.14.1 multiplied it by alpha / rank too; it wrote alpha beside lora_layers, as did later versions that
    did no more than write it. Since 0.19 the layers are num_layers, and alpha says nothing.
    """
    if "scale" not in parameters:
        raise ModelError(
            "the adapter's config has no lora_parameters.scale",
            where=where.with_name(CONFIG_FILE),
            fix="write the one that it was trained with; the first versions of mlx-lm had rank 8 and scale 20",
        )
    scale = number(parameters, "scale", where)
    if "alpha" in parameters and "num_layers" not in config:
        alpha, rank = number(parameters, "alpha", where), number(parameters, "rank", where)
        if rank and alpha != rank:
            raise ModelError(
                f"the adapter's config has a scale of {scale:g} and an alpha of {alpha:g}: mlx-lm up to 0.14.1 "
                f"computed with scale * alpha / rank = {scale * alpha / rank:g}, from 0.14.2 on with {scale:g}",
                where=where.with_name(CONFIG_FILE),
                fix="write the number it was trained with into lora_parameters.scale, and remove alpha",
            )
    return scale


def _pairs(module: str, parts: Mapping[str, str], tensors: TensorFile, scale: float) -> dict[str, Pair]:
    """Module -> matrices; several of stacked experts."""
    a, b = tensors.read(parts["A"]), tensors.read(parts["B"])
    if a.ndim == 3 or b.ndim == 3:
        if "m" in parts:
            raise ModelError(f"the adapter has DoRA beside the experts of {module}, unknown here", where=tensors.file)
        return _experts(module, a, b, scale, tensors.file)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ModelError(
            f"{parts['A']} is {a.shape} and {parts['B']} {b.shape}: no matrices of one rank", where=tensors.file
        )
    # Beside an embedding the first matrix holds a row for each token, which are the rows of the weight.
    A, B = (b, a) if module.endswith("embed_tokens") else (a.T, b.T)
    m = tensors.read(parts["m"]) if "m" in parts else None
    return {module: Pair(A, B, scale * len(A), scale, m)}


def _experts(module: str, a: Array, b: Array, scale: float, where: Path) -> dict[str, Pair]:
    """The matrices of each expert."""
    if b.ndim != 3 or a.size != b.shape[0] * b.shape[2] * a.shape[-1]:
        raise ModelError(f"the matrices of {module} are {a.shape} and {b.shape}: not of one rank", where=where)
    experts, out, rank = b.shape
    each = matrices(f"{module}.weight", (experts, out, a.shape[-1]))
    if not each:
        raise ModelError(
            f"the adapter's module {module} stands beside {experts} stacked matrices that are no experts known here",
            where=where,
            fix="fuse it with mlx-lm (mlx_lm.fuse), and give the result as --model",
        )
    a = a.reshape(experts, rank, -1)
    return {matrix.module: Pair(a[expert], b[expert], scale * rank, scale) for expert, matrix in enumerate(each)}


def _check_rank(parameters: Mapping[str, Any], pairs: Mapping[str, Pair], where: Path) -> None:
    if "rank" not in parameters:
        return
    rank = number(parameters, "rank", where)
    for module, pair in pairs.items():
        if len(pair.A) != rank:
            raise ModelError(
                f"the adapter's config says rank {rank:g}, and its module {module} has rank {len(pair.A)}", where=where
            )
