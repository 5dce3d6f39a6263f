"""Which layers an adapter stands beside, and how it begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chrysalis_mlx.adapters.spec import AdapterSpec, initialize, layer_and_key, resolve_adapter
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
    assert dict(spec.modules) == {name: shape for name, shape in LINEARS.items() if layer_and_key(name)[1] in keys}
    assert (spec.num_layers, spec.layer_indices) == (12, list(range(12)))


def test_a_number_of_layers_means_the_last_ones() -> None:
    spec = resolve_adapter("lora", 4, 8.0, 2, ["q_proj"], LINEARS)
    assert list(spec.modules) == ["model.layers.10.self_attn.q_proj", "model.layers.11.self_attn.q_proj"]
    assert (spec.num_layers, spec.layer_indices) == (2, [10, 11])


def test_all_that_does_not_fit_is_told_at_once() -> None:
    with pytest.raises(BlueprintError) as caught:
        resolve_adapter("lora", 4, 8.0, 13, ["q_porj", "q_proj", "zzz"], LINEARS)
    assert caught.value.problems == (
        "adapter.layers: 13 of a model that has 12; use 'all' or a smaller number",
        "adapter.modules: 'q_porj' matches no linear layer; did you mean 'q_proj'?",
        f"adapter.modules: 'zzz' matches no linear layer; this model has: {', '.join(KEYS)}",
    )


def test_scale_and_parameter_count() -> None:
    modules = {"model.layers.0.self_attn.q_proj": (64, 32), "model.layers.0.self_attn.v_proj": (16, 32)}
    lora = AdapterSpec("lora", 4, 6.0, modules, 1, ("self_attn.q_proj", "self_attn.v_proj"))
    dora = AdapterSpec("dora", 4, 6.0, modules, 1, lora.keys)
    assert lora.scale == 1.5
    assert lora.parameter_count() == 4 * (64 + 32) + 4 * (16 + 32)
    assert dora.parameter_count() == lora.parameter_count() + 64 + 16


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
