"""What mlx-lm and PEFT make of adapter files: the logits of the fused model, whatever the spec."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from peft import PeftModel

from chrysalis_mlx.adapters.files import load_adapter, save_mlx, save_peft
from chrysalis_mlx.adapters.merge import MergedSource
from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec, initialize, resolve_adapter
from chrysalis_mlx.export.fuse import write_fused
from chrysalis_mlx.models.directory import ModelDirectory
from tests import tiny

TOKENS = np.random.default_rng(0).integers(3, 512, 24)
LAYERS = 3

Logits = npt.NDArray[np.float32]


def spec_of(model: ModelDirectory, kind: str, *, without: str = "", **options: Any) -> AdapterSpec:
    """`without` leaves one module out, so that the layers differ."""
    options = {"layers": "all", "patterns": ["all-linear"], **options}
    weights = model.layer_weights() if kind == "full" else None
    spec = resolve_adapter(kind, 4, 12.0, linears=model.layer_linears(), weights=weights, **options)  # type: ignore[arg-type]
    modules = {name: adapted for name, adapted in spec.modules.items() if name != without}
    return dataclasses.replace(spec, modules=modules)


def trained(spec: AdapterSpec, model: ModelDirectory) -> AdapterArrays:
    """Arrays as training might have left them: B is not zero, m is not the norm, weights have moved."""
    rng = np.random.default_rng(1)
    arrays = initialize(spec, model.checkpoint(), seed=2)
    for name, array in arrays.items():
        noise = rng.standard_normal(array.shape).astype(np.float32)
        arrays[name] = array + (0.1 * noise if not name.endswith(".m") else 0.1 * array * noise)
    return arrays


OPTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "last": {"layers": 2, "patterns": ["q_proj", "mlp.*"], "dropout": 0.1},
    "first": {"layers": 2, "side": "first"},
    "ranks": {"ranks": {"q_proj": 2, "mlp.*": 6}, "alphas": {"down_proj": 3.0, "mlp.*": 40.0, "v_proj": 0.0}},
    "rslora": {"rslora": True, "ranks": {"self_attn.*": 9}, "layers": 1, "side": "first"},
    "uneven": {"without": "model.layers.1.self_attn.k_proj", "ranks": {"k_proj": 1}},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_llama(tmp_path_factory.mktemp("base") / "model", layers=LAYERS, bias=True)


Saved = tuple[AdapterSpec, AdapterArrays, Path]


@pytest.fixture(params=[f"{kind}-{name}" for kind in ("lora", "dora") for name in OPTIONS])
def saved(request: pytest.FixtureRequest, base: Path, tmp_path: Path) -> Saved:
    """A spec, its arrays, and a directory with adapters/ and fused/."""
    kind, name = request.param.split("-")
    return save(base, tmp_path, lambda model: spec_of(model, kind, **OPTIONS[name]))


def save(
    base: Path, directory: Path, make: Callable[[ModelDirectory], AdapterSpec], layers: int | None = None
) -> Saved:
    model = ModelDirectory.open(base)
    spec = make(model)
    arrays = trained(spec, model)
    save_mlx(directory / "adapters", spec, arrays, str(base), layers=layers)
    save_peft(directory / "adapters" / "peft", spec, arrays, str(base))
    write_fused(directory / "fused", MergedSource(model.checkpoint(), spec, arrays), model, "float32")
    return spec, arrays, directory


def in_mlx(directory: Path, adapter: Path | None = None) -> Logits:
    model, _ = mlx_lm.load(str(directory), adapter_path=adapter and str(adapter))
    return np.array(model(mx.array(TOKENS)[None])[0])


def in_torch(model: Any) -> Logits:
    with torch.no_grad():
        logits: Logits = model(torch.from_numpy(TOKENS)[None]).logits[0].numpy()
    return logits


def transformers_model(directory: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def assert_close(found: Logits, expected: Logits, base: Logits) -> None:
    assert np.abs(expected - base).max() > 0.05
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_mlx_lm_loads_every_adapter(saved: Saved, base: Path) -> None:
    _, _, directory = saved
    assert_close(in_mlx(base, directory / "adapters"), in_mlx(directory / "fused"), in_mlx(base))


def test_peft_loads_every_adapter(saved: Saved, base: Path) -> None:
    spec, _, directory = saved
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = PeftModel.from_pretrained(transformers_model(base), str(directory / "adapters" / "peft"))
    adapted = {name for name, layer in model.get_base_model().named_modules() if hasattr(layer, "lora_A")}
    assert adapted == set(spec.modules)
    fused = in_torch(transformers_model(directory / "fused"))
    assert_close(in_torch(model), fused, in_torch(transformers_model(base)))


def test_every_adapter_is_read_back_bit_for_bit(saved: Saved) -> None:
    spec, arrays, directory = saved
    back = load_adapter(directory / "adapters", spec)
    assert list(back) == list(spec.shapes())
    for name, array in arrays.items():
        assert back[name].dtype == np.float32
        assert np.array_equal(back[name].view(np.uint32), array.view(np.uint32))


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("all", 7),  # names inside a layer
        ("last", 4),
        ("first", 2 * 7),  # full names
        ("uneven", 3 * 7 - 1),
    ],
)
def test_the_last_layers_are_told_as_every_reader_knows_them(
    base: Path, tmp_path: Path, kind: str, name: str, keys: int
) -> None:
    _, _, directory = save(base, tmp_path, lambda model: spec_of(model, kind, **OPTIONS[name]), layers=LAYERS)
    config = json.loads((directory / "adapters" / "adapter_config.json").read_text())
    assert len(config["lora_parameters"]["keys"]) == keys
    assert config["num_layers"] == (3 if name in ("all", "uneven") else 2)
    assert_close(in_mlx(base, directory / "adapters"), in_mlx(directory / "fused"), in_mlx(base))


@pytest.mark.parametrize("side", ["last", "first"])
def test_a_full_fine_tuning_is_loaded_and_read_back(base: Path, tmp_path: Path, side: str) -> None:
    spec, arrays, directory = save(base, tmp_path, lambda model: spec_of(model, "full", layers=1, side=side))
    assert {name.split(".")[2] for name in arrays} == {"2" if side == "last" else "0"}
    assert_close(in_mlx(base, directory / "adapters"), in_mlx(directory / "fused"), in_mlx(base))
    assert not (directory / "adapters" / "peft").exists()
    back = load_adapter(directory / "adapters", spec)
    assert list(back) == list(arrays)
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("lora", {"bits": 3}),
        ("lora", {"mode": "mxfp4"}),
        ("lora", {"bits": 6, "group_size": 64}),
        ("dora", {"bits": 4}),
        ("dora", {"bits": 8, "group_size": 64}),
        ("dora", {"mode": "mxfp4"}),
    ],
)
def test_an_adapter_beside_a_quantized_base(base: Path, tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    """mlx-lm runs the adapter beside packed weights; the fused model holds what these stand for, unpacked."""
    quantized = tiny.quantized(base, tmp_path / "quantized", **settings)
    _, _, directory = save(quantized, tmp_path, lambda model: spec_of(model, kind, ranks={"q_proj": 2}))
    config = json.loads((directory / "fused" / "config.json").read_text())
    assert {"quantization", "quantization_config"} & config.keys() == set()
    assert config["dtype"] == "float32"
    assert sorted(ModelDirectory.open(directory / "fused").checkpoint().names) == sorted(
        ModelDirectory.open(base).checkpoint().names
    )
    fused = in_mlx(directory / "fused")
    assert_close(in_mlx(quantized, directory / "adapters"), fused, in_mlx(quantized))
    np.testing.assert_allclose(in_torch(transformers_model(directory / "fused")), fused, atol=2e-4)
