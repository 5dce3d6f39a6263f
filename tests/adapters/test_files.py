"""Adapter files: names, shapes, settings and errors. (What mlx-lm and PEFT make of them: test_loaded.py.)"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chrysalis_mlx.adapters.files import check_arrays, load_adapter, peft_config, save_mlx, save_peft
from chrysalis_mlx.adapters.spec import Adapted, AdapterArrays, AdapterSpec
from chrysalis_mlx.errors import ModelError

NAMES = [f"model.layers.{layer}.self_attn.q_proj" for layer in (1, 2)]
FIRST, SECOND = NAMES


def spec(kind: str = "dora", **changes: Any) -> AdapterSpec:
    modules = {name: Adapted(6, 5, 2, 3.0, 1.5) for name in NAMES}
    return dataclasses.replace(AdapterSpec(kind, 2, 3.0, modules), **changes)  # type: ignore[arg-type]


def mixed() -> AdapterSpec:
    """The second module has a rank, an alpha and a scale of its own."""
    return spec(modules={FIRST: Adapted(6, 5, 2, 3.0, 1.5), SECOND: Adapted(6, 5, 4, 1.0, 0.25)}, dropout=0.2)


def full() -> AdapterSpec:
    return spec("full", modules={}, weights={f"{FIRST}.weight": (6, 5), f"{FIRST}.bias": (6,)})


def arrays_of(spec: AdapterSpec) -> AdapterArrays:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in spec.shapes().items()}


def save(directory: Path, spec: AdapterSpec) -> AdapterArrays:
    arrays = arrays_of(spec)
    save_mlx(directory, spec, arrays, "org/base")
    save_peft(directory / "peft", spec, arrays, "org/base")
    return arrays


def config_of(directory: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((directory / "adapter_config.json").read_text())
    return config


@pytest.mark.parametrize("made", [spec("lora"), spec("dora"), mixed(), full()], ids=["lora", "dora", "mixed", "full"])
def test_an_adapter_comes_back_as_it_was(tmp_path: Path, made: AdapterSpec) -> None:
    arrays = save(tmp_path, made)
    back = load_adapter(tmp_path, made)
    assert list(back) == list(arrays)
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())


def test_mlx_lm_names_shapes_and_settings(tmp_path: Path) -> None:
    arrays = save(tmp_path, spec())
    tensors = load_file(tmp_path / "adapters.safetensors")
    assert {key: value.shape for key, value in tensors.items() if key.startswith(FIRST)} == {
        f"{FIRST}.lora_a": (5, 2),
        f"{FIRST}.lora_b": (2, 6),
        f"{FIRST}.m": (6,),
    }
    assert np.array_equal(tensors[f"{FIRST}.lora_a"], arrays[f"{FIRST}.A"].T)
    assert np.array_equal(tensors[f"{FIRST}.lora_b"], arrays[f"{FIRST}.B"].T)
    expected = {
        "fine_tune_type": "dora",
        "model": "org/base",
        "num_layers": 2,
        "lora_parameters": {"rank": 2, "scale": 1.5, "dropout": 0.0, "keys": NAMES},
    }
    assert config_of(tmp_path) == expected
    for layers, keys in {3: ["self_attn.q_proj"], 4: NAMES}.items():  # of 3 layers they are the last ones
        save_mlx(tmp_path, spec(), arrays, "org/base", layers=layers)
        expected["lora_parameters"] |= {"keys": keys}  # type: ignore[operator]
        assert config_of(tmp_path) == expected


def test_for_mlx_lm_ranks_and_scales_become_one(tmp_path: Path) -> None:
    arrays = save(tmp_path, mixed())
    tensors = load_file(tmp_path / "adapters.safetensors")
    settings = config_of(tmp_path)["lora_parameters"]
    assert (settings["rank"], settings["scale"], settings["dropout"]) == (4, 1.5, 0.2)
    a, b = tensors[f"{FIRST}.lora_a"], tensors[f"{FIRST}.lora_b"]  # (5, 4), (4, 6)
    assert np.array_equal(a[:, :2].T, arrays[f"{FIRST}.A"])
    assert np.array_equal(b[:2].T, arrays[f"{FIRST}.B"])
    assert not a[:, 2:].any()
    assert not b[2:].any()
    assert np.array_equal(tensors[f"{SECOND}.lora_a"].T, arrays[f"{SECOND}.A"])
    np.testing.assert_allclose(tensors[f"{SECOND}.lora_b"].T, arrays[f"{SECOND}.B"] * 0.25 / 1.5, rtol=1e-6)
    for module, adapted in mixed().modules.items():
        update = 1.5 * (tensors[f"{module}.lora_a"] @ tensors[f"{module}.lora_b"]).T
        assert update == pytest.approx(adapted.scale * arrays[f"{module}.B"] @ arrays[f"{module}.A"], abs=1e-5)


def test_a_full_fine_tuning_holds_the_weights_themselves(tmp_path: Path) -> None:
    arrays = save(tmp_path, full())
    tensors = load_file(tmp_path / "adapters.safetensors")
    assert tensors.keys() == arrays.keys()
    assert all(np.array_equal(tensors[name], array) for name, array in arrays.items())
    assert config_of(tmp_path) == {"fine_tune_type": "full", "model": "org/base", "num_layers": 1}
    assert not (tmp_path / "peft").exists()


def test_peft_names_shapes_and_settings(tmp_path: Path) -> None:
    arrays = save(tmp_path, spec())
    tensors = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    for part, theirs in {"A": "lora_A.weight", "B": "lora_B.weight", "m": "lora_magnitude_vector"}.items():
        assert np.array_equal(tensors[f"base_model.model.{SECOND}.{theirs}"], arrays[f"{SECOND}.{part}"])
    assert len(tensors) == 6
    config = config_of(tmp_path / "peft")
    assert config == {**peft_config(spec()), "base_model_name_or_path": "org/base", "inference_mode": True}
    assert (config["r"], config["lora_alpha"], config["use_dora"]) == (2, 3.0, True)
    assert (config["rank_pattern"], config["alpha_pattern"], config["use_rslora"]) == ({}, {}, False)
    assert (config["target_modules"], config["layers_to_transform"]) == (["self_attn.q_proj"], [1, 2])


def test_peft_knows_what_modules_have_of_their_own() -> None:
    config = peft_config(dataclasses.replace(mixed(), rslora=True))
    assert (config["rank_pattern"], config["alpha_pattern"]) == ({SECOND: 4}, {SECOND: 1.0})
    assert (config["use_rslora"], config["lora_dropout"]) == (True, 0.2)
    value = Adapted(6, 5, 2, 3.0, 1.5)
    uneven = spec(modules={FIRST: value, SECOND: value, "model.layers.2.mlp.up_proj": value})
    assert peft_config(uneven)["target_modules"] == [FIRST, SECOND, "model.layers.2.mlp.up_proj"]
    assert "layers_to_transform" not in peft_config(uneven)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda held: held.pop(f"{FIRST}.B"), r"q_proj.B is None, expected \(6, 2\)"),
        (lambda held: held.update(extra=np.zeros(2, np.float32)), r"extra is \(2,\), expected None"),
        (
            lambda held: held.update({f"{SECOND}.A": np.zeros((2, 5), np.float32)}),
            r"q_proj.A is \(2, 5\), expected \(4, 5\)",
        ),
    ],
)
def test_arrays_of_another_adapter_are_an_error(change: object, words: str) -> None:
    held = arrays_of(mixed())
    change(held)  # type: ignore[operator]
    with pytest.raises(ModelError, match=rf"the adapter does not fit: .*{words}(.|\n)*where: here"):
        check_arrays(mixed(), held, "here")


def test_an_adapter_of_another_kind_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, spec("lora"))
    with pytest.raises(ModelError, match=r"q_proj.m is None, expected \(6,\)"):
        load_adapter(tmp_path, spec("dora"))
    with pytest.raises(ModelError, match=r"q_proj.bias is None, expected \(6,\)"):
        load_adapter(tmp_path, full())


@pytest.mark.parametrize("made", [spec(), full()], ids=["dora", "full"])
def test_a_missing_a_damaged_and_a_foreign_file_are_errors(tmp_path: Path, made: AdapterSpec) -> None:
    file = tmp_path / ("adapters.safetensors" if made.weights else "peft/adapter_model.safetensors")
    with pytest.raises(ModelError, match="cannot be read"):
        load_adapter(tmp_path, made)
    save(tmp_path, made)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ModelError, match=r"cannot be read(.|\n)*train again"):
        load_adapter(tmp_path, made)
    save_file({"weight": np.zeros(3, np.float32)}, file)
    with pytest.raises(ModelError, match="does not fit"):
        load_adapter(tmp_path, made)
