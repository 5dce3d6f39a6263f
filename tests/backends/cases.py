"""Adapters in mid-training and packed rows: what the parity tests run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec, Kind, initialize, resolve_adapter
from chrysalis_mlx.backends.base import Engine, OptimizerName, OptimizerSettings
from chrysalis_mlx.batches.packing import Batch, assemble
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.models.directory import ModelDirectory

TOLERANCE = 1e-5  # of the largest value, float32 against float64 or against another float32
ROW = 32


class Case(NamedTuple):
    directory: Path
    spec: AdapterSpec
    arrays: AdapterArrays

    def engine(self, name: str, **options: Any) -> Engine:
        return backends.load(name)(self.directory, self.spec, self.arrays, **options)


def adapted(
    directory: Path, kind: Kind, modules: Sequence[str], layers: int | Literal["all"] = "all", **options: Any
) -> Case:
    """An adapter in mid-training: B is not zero and DoRA's m not the norm of W; of `full`, every weight has moved."""
    model = ModelDirectory.open(directory)
    if kind == "full":
        options["weights"] = model.layer_weights()
    spec = resolve_adapter(kind, 4, 12.0, layers, modules, model.layer_linears(), **options)
    random = np.random.default_rng(7)
    arrays = initialize(spec, model.checkpoint(), seed=3)
    for name, array in arrays.items():
        noise = random.normal(0.0, 0.1, array.shape).astype(np.float32)
        arrays[name] = array + noise if name.endswith((".A", ".B")) else array * (1 + noise)
    return Case(directory, spec, arrays)


def segments(*lengths: int) -> list[Segment]:
    random = np.random.default_rng(len(lengths))
    return [Segment(random.integers(3, 500, length).astype(np.int32), np.arange(length) > 0) for length in lengths]


def packed() -> list[Batch]:
    """Two micro-batches of uneven target counts, with several segments in a row and padding."""
    a, b, c, d, e = segments(12, 17, 9, 30, 5)
    return [assemble([[a, b], [c]], ROW), assemble([[d], [e]], ROW)]


def alone() -> list[Batch]:
    """The segments of `packed()`, one by one."""
    return [assemble([[piece]], len(piece.tokens)) for piece in segments(12, 17, 9, 30, 5)]


def assert_same(found: Mapping[str, npt.NDArray[Any]], expected: Mapping[str, npt.NDArray[Any]]) -> None:
    """Every array, bit for bit."""
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def assert_goes_on_bit_for_bit(case: Case, backend: str, optimizer: OptimizerName, slots: set[str]) -> None:
    """Two steps, and two more in another engine that was put there, are four steps of one; `slots` of its state."""
    options = {"optimizer": OptimizerSettings(optimizer, weight_decay=0.1, b_ratio=4.0), "seed": 5}
    rates = (1e-3, 3e-3, 2e-3, 1e-3)
    whole, first, second = (case.engine(backend, **options) for _ in range(3))
    losses = [whole.step(packed(), rate).loss for rate in rates]
    assert [first.step(packed(), rate).loss for rate in rates[:2]] == losses[:2]
    second.step(packed(), 0.1)  # whatever it was before, it is not after
    second.restore(first.adapter(), first.optimizer_state())
    assert [second.step(packed(), rate).loss for rate in rates[2:]] == losses[2:]
    assert_same(second.adapter(), whole.adapter())
    assert_same(second.optimizer_state(), whole.optimizer_state())
    state = whole.optimizer_state()
    assert state.pop("step").tolist() == [4.0]
    assert {key.split(".", 1)[0] for key in state} <= slots
    assert {key.split(".", 1)[1] for key in state} == case.arrays.keys()
    assert any(not np.array_equal(array, case.arrays[name]) for name, array in whole.adapter().items())


def difference(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """The largest difference, as a share of the largest expected value."""
    assert found.shape == expected.shape
    return float(np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max())
