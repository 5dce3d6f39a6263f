"""Folding an adapter into its base."""

from __future__ import annotations

import numpy as np
import pytest

from chrysalis_mlx.adapters.merge import MergedSource, merge
from chrysalis_mlx.adapters.spec import AdapterSpec, Array

NAME = "model.layers.0.self_attn.q_proj"


def spec(kind: str) -> AdapterSpec:
    return AdapterSpec(kind, 2, 3.0, {NAME: (6, 5)}, 1, ("self_attn.q_proj",))  # type: ignore[arg-type]


def arrays(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = {"W": (6, 5), "A": (2, 5), "B": (6, 2), "m": (6,), "x": (4, 5)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_lora_merged_computes_what_base_and_adapter_do() -> None:
    a = arrays()
    merged = merge(spec("lora"), a["W"], a["A"], a["B"])
    x, A, B, W = (a[name].astype(np.float64) for name in "xABW")
    assert merged.dtype == np.float32
    assert x @ merged.T == pytest.approx(x @ W.T + 1.5 * (x @ A.T) @ B.T, abs=1e-5)


def test_dora_merged_has_the_magnitudes_as_its_row_norms() -> None:
    a = arrays()
    merged = merge(spec("dora"), a["W"], a["A"], a["B"], a["m"])
    W, A, B, m = (a[name].astype(np.float64) for name in "WABm")
    direction = W + 1.5 * B @ A
    expected = m[:, None] * direction / np.sqrt((direction**2).sum(axis=1))[:, None]
    assert merged.dtype == np.float32
    assert merged == pytest.approx(expected, abs=1e-5)
    assert np.linalg.norm(merged, axis=1) == pytest.approx(np.abs(m), rel=1e-5)


def test_a_fresh_adapter_changes_nothing() -> None:
    a = arrays()
    a["B"][:] = 0
    assert np.array_equal(merge(spec("lora"), a["W"], a["A"], a["B"]), a["W"])
    m = np.linalg.norm(a["W"], axis=1)
    assert merge(spec("dora"), a["W"], a["A"], a["B"], m) == pytest.approx(a["W"], rel=1e-6)


def test_a_merged_source_changes_adapted_weights_only_and_leaves_the_base_alone() -> None:
    a = arrays()
    tensors = {f"{NAME}.weight": a["W"], f"{NAME}.bias": a["m"], "model.norm.weight": a["m"]}

    class Base:
        names = tuple(tensors)

        def shape(self, name: str) -> tuple[int, ...]:
            return tensors[name].shape

        def read(self, name: str) -> Array:
            return tensors[name]

    before = a["W"].copy()
    source = MergedSource(Base(), spec("lora"), {f"{NAME}.A": a["A"], f"{NAME}.B": a["B"]})
    assert source.names == tuple(tensors)
    assert source.shape(f"{NAME}.weight") == (6, 5)
    assert np.array_equal(source.read(f"{NAME}.weight"), merge(spec("lora"), a["W"], a["A"], a["B"]))
    assert np.array_equal(source.read(f"{NAME}.bias"), a["m"])
    assert np.array_equal(source.read("model.norm.weight"), a["m"])
    assert np.array_equal(a["W"], before)
