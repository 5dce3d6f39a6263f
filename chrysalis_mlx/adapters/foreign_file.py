"""The two files of a foreign adapter, and what they were found to say, before it is fitted to a model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from chrysalis_mlx.adapters.spec import Array, Kind
from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.checkpoint import Checkpoint, read_entries
from chrysalis_mlx.models.floats import from_bfloat16
from chrysalis_mlx.models.npz import Member, npz_members

Split = Callable[[str], tuple[str, str] | None]

CONFIG_FILE = "adapter_config.json"
_NPZ_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class Pair:
    """The low-rank matrices beside one module; how they are scaled.

    Attributes:
        A: (r, in).
        B: (out, r).
        m: (out,), DoRA only.
    """

    A: Array
    B: Array
    alpha: float
    scale: float
    m: Array | None = None


@dataclass(frozen=True)
class Contents:
    """What an adapter's files say.

    Attributes:
        pairs: module name to its matrices.
        whole: name of a weight or bias that is replaced -> the tensor of the file that replaces it.
        frozen: name of a base weight that is in the file as it was -> its tensor.
        one_table: the embedding and a tied output head were adapted as one.
        experts: where all experts of a layer were adapted as one, how many there were; else 0.
    """

    kind: Kind
    rank: int
    alpha: float
    pairs: Mapping[str, Pair]
    whole: Mapping[str, str]
    frozen: Mapping[str, str] = field(default_factory=dict)
    rslora: bool = False
    dropout: float = 0.0
    one_table: bool = False
    experts: int = 0


class TensorFile:
    """An adapter's tensors, in .safetensors or in the .npz of MLX's first years; read as float32, one at a time.

    Attributes:
        file: the file.
        names: of every tensor.

    Raises:
        ModelError: it is damaged.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._members: dict[str, tuple[Member, bool]] = {}
        if file.suffix == ".npz":
            self._members = npz_members(file)
            self.names: list[str] = list(self._members)
        else:
            self._checkpoint = Checkpoint(read_entries(file), [file])
            self.names = list(self._checkpoint.names)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._members[name][0].shape if self._members else self._checkpoint.shape(name)

    def read(self, name: str) -> Array:
        """One tensor.

        Raises:
            ModelError: it holds no floats, or NaN or an infinity.
        """
        values = self._read_npz(name) if self._members else self._checkpoint.read(name)
        if not np.isfinite(values).all():
            raise ModelError(
                f"the adapter's tensor {name} holds NaN or infinity",
                where=self.file,
                fix="its training went wrong: take an earlier checkpoint of it, or train again",
            )
        return values

    def _read_npz(self, name: str) -> Array:
        (dtype, shape, start, _), by_columns = self._members[name]
        if dtype not in _NPZ_FLOATS:
            raise ModelError(f"the adapter's tensor {name} holds {dtype}, not floats", where=self.file)
        raw = np.fromfile(self.file, _NPZ_FLOATS[dtype], math.prod(shape), offset=start)
        values = from_bfloat16(raw) if dtype == "BF16" else raw.astype(np.float32)
        return values.reshape(shape, order="F" if by_columns else "C")


def read_config(directory: Path) -> dict[str, Any]:
    """The content of adapter_config.json.

    Raises:
        ModelError: it is missing or damaged.
    """
    file = directory / CONFIG_FILE
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"there is no {CONFIG_FILE} in the adapter's directory",
            where=directory,
            fix="give the directory that mlx-lm or PEFT wrote; without this file the adapter's scale is not known",
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"the adapter's config cannot be read: {error}", where=file) from error
    if not isinstance(config, dict):
        raise ModelError("the adapter's config is not a JSON object", where=file)
    return config


def number(values: Mapping[str, Any], key: str, where: Path) -> float:
    """A number of an adapter's config.

    Raises:
        ModelError: it is missing or no number.
    """
    value = values.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ModelError(f"the adapter's config says {key} = {value!r}, which is no number", where=where)
    return float(value)


def grouped(names: Iterable[str], split: Split, where: Path) -> dict[str, dict[str, str]]:
    """Module -> {"A": its tensor, "B": ..., "m": ...}, of the tensors that `split` knows as a module's parts.

    Raises:
        ModelError: a module has only one of A and B, or two tensors for one part.
    """
    modules: dict[str, dict[str, str]] = {}
    for name in sorted(names):
        if found := split(name):
            module, part = found
            if part in modules.setdefault(module, {}):
                raise ModelError(f"the tensors {modules[module][part]} and {name} are the same part", where=where)
            modules[module][part] = name
    for parts in modules.values():
        if missing := {"A", "B"} - parts.keys():
            raise ModelError(
                f"the adapter has {', '.join(parts.values())} without the matrix {' and '.join(sorted(missing))}",
                where=where,
                fix="the file is incomplete: save or download the adapter again",
            )
    return modules
