"""Which layers an adapter stands beside, and how it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chrysalis_mlx.adapters.spec import Adapted, AdapterSpec, Side, initialize, layer_and_key, resolve_adapter
from chrysalis_mlx.errors import BlueprintError
from chrysalis_mlx.models.directory import ModelDirectory

LINEARS = {
    f"model.layers.{layer}.{key}": shape
    for layer in range(12)
    for key, shape in {
        "self_attn.q_proj": (64, 32),
        "self_attn.v_proj": (16, 32),
        "mlp.gate_proj": (48, 32),
        "mlp.down_proj": (32, 48),
    }.items()
}
KEYS = ("mlp.down_proj", "mlp.gate_proj", "self_attn.q_proj", "self_attn.v_proj")


def test_layer_and_key() -> None:
    assert layer_and_key("model.layers.11.self_attn.q_proj") == (11, "self_attn.q_proj")


@pytest.mark.parametrize(
    ("patterns", "keys"),
    [
        (["all-linear"], KEYS),
        (["q_proj"], ("self_attn.q_proj",)),
        (["self_attn.q_proj", "down_proj"], ("mlp.down_proj", "self_attn.q_proj")),
        (["self_attn.*"], ("self_attn.q_proj", "self_attn.v_proj")),
        (["*.[qv]_proj", "q_proj"], ("self_attn.q_proj", "self_attn.v_proj")),
    ],
)
def test_patterns_choose_modules(patterns: list[str], keys: tuple[str, ...]) -> None:
    spec = resolve_adapter("lora", 4, 8.0, "all", patterns, LINEARS)
    assert spec.keys == keys
    assert dict(spec.modules) == {
        name: Adapted(*shape, 4, 8.0, 2.0) for name, shape in LINEARS.items() if layer_and_key(name)[1] in keys
    }
    assert spec.layer_indices == list(range(12))


@pytest.mark.parametrize(("side", "layers"), [("last", [10, 11]), ("first", [0, 1])])
def test_a_number_of_layers_means_those_of_one_side(side: Side, layers: list[int]) -> None:
    spec = resolve_adapter("lora", 4, 8.0, 2, ["q_proj"], LINEARS, side=side)
    assert list(spec.modules) == [f"model.layers.{layer}.self_attn.q_proj" for layer in layers]
    assert spec.layer_indices == layers


def test_modules_may_have_a_rank_and_an_alpha_of_their_own() -> None:
    options: dict[str, Any] = {"ranks": {"q_proj": 16, "self_attn.*": 9}, "alphas": {"mlp.*": 1.0}}
    spec = resolve_adapter("lora", 4, 8.0, 1, ["all-linear"], LINEARS, **options)
    assert {layer_and_key(name)[1]: (made.rank, made.alpha, made.scale) for name, made in spec.modules.items()} == {
        "self_attn.q_proj": (16, 8.0, 0.5),  # the first pattern counts
        "self_attn.v_proj": (9, 8.0, 8 / 9),
        "mlp.gate_proj": (4, 1.0, 0.25),
        "mlp.down_proj": (4, 1.0, 0.25),
    }
    stable = resolve_adapter("lora", 4, 8.0, 1, ["all-linear"], LINEARS, rslora=True, dropout=0.1, **options)
    assert [made.scale for made in stable.modules.values()] == [8 / 4, 8 / 3, 1 / 2, 1 / 2]
    assert (stable.rslora, stable.dropout, spec.rslora, spec.dropout) == (True, 0.1, False, 0.0)


def test_full_trains_every_weight_of_the_chosen_layers() -> None:
    weights = {f"{name}.weight": shape for name, shape in LINEARS.items()} | {"model.layers.11.norm.weight": (32,)}
    spec = resolve_adapter("full", 4, 8.0, 1, ["all-linear"], LINEARS, weights=weights)
    assert spec.shapes() == spec.weights == {name: weights[name] for name in weights if ".11." in name}
    assert (dict(spec.modules), spec.layer_indices, len(spec.weights)) == ({}, [11], 5)
    assert spec.parameter_count() == 64 * 32 + 16 * 32 + 48 * 32 + 32 * 48 + 32


def test_all_that_does_not_fit_is_told_at_once() -> None:
    named: dict[str, Any] = {"ranks": {"vproj": 2}, "alphas": {"down_porj": 2.0}}
    with pytest.raises(BlueprintError) as caught:
        resolve_adapter("lora", 4, 8.0, 13, ["q_porj", "q_proj", "zzz"], LINEARS, **named)
    assert caught.value.problems == (
        "adapter.layers: 13 of a model that has 12; use 'all' or a smaller number",
        "adapter.modules: 'q_porj' matches no linear layer; did you mean 'q_proj'?",
        f"adapter.modules: 'zzz' matches no linear layer; this model has: {', '.join(KEYS)}",
        "adapter.ranks: 'vproj' matches no linear layer; did you mean 'v_proj'?",
        "adapter.alphas: 'down_porj' matches no linear layer; did you mean 'down_proj'?",
    )


def test_shapes_and_parameter_count() -> None:
    modules = {"model.layers.0.q": Adapted(64, 32, 4, 6.0, 1.5), "model.layers.0.v": Adapted(16, 32, 2, 6.0, 3.0)}
    lora, dora = AdapterSpec("lora", 4, 6.0, modules), AdapterSpec("dora", 4, 6.0, modules)
    assert lora.shapes() == {
        "model.layers.0.q.A": (4, 32),
        "model.layers.0.q.B": (64, 4),
        "model.layers.0.v.A": (2, 32),
        "model.layers.0.v.B": (16, 2),
    }
    assert lora.parameter_count() == 4 * (64 + 32) + 2 * (16 + 32)
    assert dora.parameter_count() == lora.parameter_count() + 64 + 16
    assert dora.shapes()["model.layers.0.v.m"] == (16,)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_begins_as_nothing(tiny_model: Path, kind: str) -> None:
    model = ModelDirectory.open(tiny_model)
    linears = model.layer_linears()
    assert len(linears) == 14
    spec = resolve_adapter(kind, 4, 8.0, "all", ["all-linear"], linears)  # type: ignore[arg-type]
    arrays = initialize(spec, model.checkpoint(), seed=3)
    parts = ("A", "B", "m") if kind == "dora" else ("A", "B")
    assert set(arrays) == {f"{module}.{part}" for module in linears for part in parts}
    assert sum(array.size for array in arrays.values()) == spec.parameter_count()
    for module, (out, into) in linears.items():
        A, B = arrays[f"{module}.A"], arrays[f"{module}.B"]
        assert (A.shape, B.shape) == ((4, into), (out, 4))
        assert A.dtype == B.dtype == np.float32
        assert not B.any()
        assert 0.5 / np.sqrt(into) < np.abs(A).max() <= 1 / np.sqrt(into)
        if kind == "dora":
            weight = model.checkpoint().read(f"{module}.weight").astype(np.float64)
            assert arrays[f"{module}.m"] == pytest.approx(np.sqrt((weight**2).sum(axis=1)), rel=1e-6)


def test_a_module_begins_the_same_whatever_else_is_adapted(tiny_model: Path) -> None:
    model = ModelDirectory.open(tiny_model)
    every = resolve_adapter("lora", 4, 8.0, "all", ["all-linear"], model.layer_linears())
    one = resolve_adapter("lora", 4, 8.0, 1, ["q_proj"], model.layer_linears())
    name = "model.layers.1.self_attn.q_proj.A"
    alone, among = (initialize(spec, model.checkpoint(), 3)[name] for spec in (one, every))
    assert np.array_equal(alone, among)
    assert not np.array_equal(alone, initialize(one, model.checkpoint(), 4)[name])
    layers = initialize(every, model.checkpoint(), 3)
    assert not np.array_equal(layers["model.layers.0.self_attn.q_proj.A"], layers[name])


def test_a_full_fine_tuning_begins_as_the_base(tiny_model: Path) -> None:
    model = ModelDirectory.open(tiny_model)
    spec = resolve_adapter("full", 4, 8.0, 1, ["all-linear"], model.layer_linears(), weights=model.layer_weights())
    arrays = initialize(spec, model.checkpoint(), 3)
    assert len(arrays) == 9
    assert all(np.array_equal(array, model.checkpoint().read(name)) for name, array in arrays.items())
