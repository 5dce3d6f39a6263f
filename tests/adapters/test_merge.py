"""Folding an adapter into its base."""

from __future__ import annotations

import numpy as np
import pytest

from chrysalis_mlx.adapters.merge import MergedSource, merge
from chrysalis_mlx.adapters.spec import Adapted, AdapterSpec, Array

NAME, OTHER = (f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1))


def arrays(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = {"W": (6, 5), "A": (2, 5), "B": (6, 2), "m": (6,), "x": (4, 5)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_lora_merged_computes_what_base_and_adapter_do() -> None:
    a = arrays()
    merged = merge(1.5, a["W"], a["A"], a["B"])
    x, A, B, W = (a[name].astype(np.float64) for name in "xABW")
    assert merged.dtype == np.float32
    assert x @ merged.T == pytest.approx(x @ W.T + 1.5 * (x @ A.T) @ B.T, abs=1e-5)


def test_dora_merged_has_the_magnitudes_as_its_row_norms() -> None:
    a = arrays()
    merged = merge(1.5, a["W"], a["A"], a["B"], a["m"])
    W, A, B, m = (a[name].astype(np.float64) for name in "WABm")
    direction = W + 1.5 * B @ A
    expected = m[:, None] * direction / np.sqrt((direction**2).sum(axis=1))[:, None]
    assert merged.dtype == np.float32
    assert merged == pytest.approx(expected, abs=1e-5)
    assert np.linalg.norm(merged, axis=1) == pytest.approx(np.abs(m), rel=1e-5)


def test_a_fresh_adapter_changes_nothing() -> None:
    a = arrays()
    a["B"][:] = 0
    assert np.array_equal(merge(1.5, a["W"], a["A"], a["B"]), a["W"])
    m = np.linalg.norm(a["W"], axis=1)
    assert merge(1.5, a["W"], a["A"], a["B"], m) == pytest.approx(a["W"], rel=1e-6)


class Base:
    """A base of a few tensors."""

    def __init__(self, tensors: dict[str, Array]) -> None:
        self.tensors, self.names = tensors, tuple(tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def read(self, name: str) -> Array:
        return self.tensors[name]


def test_a_merged_source_changes_adapted_weights_only_and_leaves_the_base_alone() -> None:
    a, b = arrays(), arrays(1)
    tensors = {f"{NAME}.weight": a["W"], f"{NAME}.bias": a["m"], f"{OTHER}.weight": b["W"], "model.norm.weight": a["m"]}
    modules = {NAME: Adapted(6, 5, 2, 3.0, 1.5), OTHER: Adapted(6, 5, 2, 1.0, 0.5)}
    held = {f"{name}.{part}": of[part] for name, of in ((NAME, a), (OTHER, b)) for part in "AB"}
    before = a["W"].copy()
    source = MergedSource(Base(tensors), AdapterSpec("lora", 2, 3.0, modules), held)
    assert source.names == tuple(tensors)
    assert source.shape(f"{NAME}.weight") == (6, 5)
    assert np.array_equal(source.read(f"{NAME}.weight"), merge(1.5, a["W"], a["A"], a["B"]))
    assert np.array_equal(source.read(f"{OTHER}.weight"), merge(0.5, b["W"], b["A"], b["B"]))
    assert np.array_equal(source.read(f"{NAME}.bias"), a["m"])
    assert np.array_equal(source.read("model.norm.weight"), a["m"])
    assert np.array_equal(a["W"], before)


def test_of_a_full_fine_tuning_the_trained_weights_are_read() -> None:
    a, b = arrays(), arrays(1)
    base = Base({f"{NAME}.weight": a["W"], f"{NAME}.bias": a["m"], f"{OTHER}.weight": a["W"]})
    trained = {f"{NAME}.weight": b["W"], f"{NAME}.bias": b["m"]}
    spec = AdapterSpec("full", 2, 3.0, {}, weights={name: array.shape for name, array in trained.items()})
    source = MergedSource(base, spec, trained)
    assert np.array_equal(source.read(f"{NAME}.weight"), b["W"])
    assert np.array_equal(source.read(f"{NAME}.bias"), b["m"])
    assert np.array_equal(source.read(f"{OTHER}.weight"), a["W"])
