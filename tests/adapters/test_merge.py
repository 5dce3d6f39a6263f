"""Folding an adapter into its base."""

from __future__ import annotations

import numpy as np
import pytest

from chrysalis_mlx.adapters.merge import MergedSource, merge
from chrysalis_mlx.adapters.spec import Adapted, AdapterSpec, Array, Kind

NAME, OTHER = (f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1))
MODULE = Adapted(6, 5, 2, 3.0, 1.5)


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
    """A base of a few tensors: a `TensorSource`."""

    def __init__(self, tensors: dict[str, Array]) -> None:
        self.tensors, self.names = tensors, tuple(tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def read(self, name: str) -> Array:
        return self.tensors[name]

    def rows(self, name: str, start: int, stop: int) -> Array:
        tensor = self.tensors[name]
        return tensor.reshape(-1, tensor.shape[-1])[start:stop]


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


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_rows_are_those_of_the_whole(kind: Kind) -> None:
    a, b = arrays(), arrays(1)
    base = Base({f"{NAME}.weight": a["W"], f"{NAME}.bias": a["m"]})
    held, spec = {f"{NAME}.{part}": b[part] for part in "ABm"}, AdapterSpec(kind, 2, 3.0, {NAME: MODULE})
    if kind == "lora":
        del held[f"{NAME}.m"]
    if kind == "full":
        held = {f"{NAME}.weight": b["W"], f"{NAME}.bias": b["m"]}
        spec = AdapterSpec(kind, 2, 3.0, {}, weights={name: array.shape for name, array in held.items()})
    source = MergedSource(base, spec, held)
    whole = source.read(f"{NAME}.weight")
    assert whole.shape == (6, 5)
    assert np.abs(whole - a["W"]).max() > 0.1
    for start, stop in [(0, 6), (0, 1), (2, 5), (5, 6), (3, 3)]:
        assert source.rows(f"{NAME}.weight", start, stop) == pytest.approx(whole[start:stop], rel=1e-6, abs=1e-6)
    vector = source.read(f"{NAME}.bias")
    assert vector.shape == (6,)
    assert np.array_equal(vector, b["m"] if kind == "full" else a["m"])
    assert np.array_equal(source.rows(f"{NAME}.bias", 0, 1), vector[None])


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_rows_of_stacked_experts_cross_from_one_to_the_next(kind: Kind) -> None:
    block, parts = "model.layers.0.mlp", ("gate_proj", "up_proj")
    names = [f"{block}.experts.{expert}.{part}" for expert in range(3) for part in parts]
    own = {name: arrays(seed) for seed, name in enumerate(names)}
    stacked = np.concatenate([own[name]["W"] for name in names]).reshape(3, 12, 5)
    adapted = [name for name in names if name != names[2]]
    held = {f"{name}.{part}": own[name][part] for name in adapted for part in ("AB" if kind == "lora" else "ABm")}
    spec = AdapterSpec(kind, 2, 3.0, dict.fromkeys(adapted, MODULE))
    source = MergedSource(Base({f"{block}.experts.gate_up_proj": stacked}), spec, held)
    wanted = [
        merge(1.5, of["W"], of["A"], of["B"], of["m"] if kind == "dora" else None) if name in adapted else of["W"]
        for name, of in own.items()
    ]
    whole = source.read(f"{block}.experts.gate_up_proj")
    assert np.array_equal(whole, np.concatenate(wanted).reshape(3, 12, 5))
    for start, stop in [(0, 36), (4, 9), (11, 25), (12, 18), (35, 36), (7, 7)]:
        found = source.rows(f"{block}.experts.gate_up_proj", start, stop)
        assert found == pytest.approx(whole.reshape(36, 5)[start:stop], rel=1e-6, abs=1e-6)
