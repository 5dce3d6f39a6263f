"""Adapter files: what is written is what was held. (What mlx-lm and PEFT make of them: tests/backends.)"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chrysalis_mlx.adapters.files import check_arrays, load_mlx, peft_config, save_mlx, save_peft
from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec
from chrysalis_mlx.errors import ModelError

MODULES = {f"model.layers.{layer}.self_attn.q_proj": (6, 5) for layer in (1, 2)}


def spec(kind: str = "dora") -> AdapterSpec:
    return AdapterSpec(kind, 2, 3.0, MODULES, 2, ("self_attn.q_proj",))  # type: ignore[arg-type]


def arrays(kind: str = "dora") -> AdapterArrays:
    rng = np.random.default_rng(0)
    shapes = {"A": (2, 5), "B": (6, 2)} | ({"m": (6,)} if kind == "dora" else {})
    return {
        f"{module}.{part}": rng.standard_normal(shape).astype(np.float32)
        for module in MODULES
        for part, shape in shapes.items()
    }


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_comes_back_as_it_was(tmp_path: Path, kind: str) -> None:
    save_mlx(tmp_path, spec(kind), arrays(kind), "base")
    back = load_mlx(tmp_path, spec(kind))
    assert back.keys() == arrays(kind).keys()
    for name, array in arrays(kind).items():
        assert np.array_equal(back[name], array)


def test_mlx_lm_names_shapes_and_settings(tmp_path: Path) -> None:
    save_mlx(tmp_path, spec(), arrays(), "org/base")
    tensors = load_file(tmp_path / "adapters.safetensors")
    name = "model.layers.1.self_attn.q_proj"
    assert {key: value.shape for key, value in tensors.items() if key.startswith(name)} == {
        f"{name}.lora_a": (5, 2),
        f"{name}.lora_b": (2, 6),
        f"{name}.m": (6,),
    }
    assert np.array_equal(tensors[f"{name}.lora_a"], arrays()[f"{name}.A"].T)
    assert json.loads((tmp_path / "adapter_config.json").read_text()) == {
        "fine_tune_type": "dora",
        "model": "org/base",
        "num_layers": 2,
        "lora_parameters": {"rank": 2, "scale": 1.5, "dropout": 0.0, "keys": ["self_attn.q_proj"]},
    }


def test_peft_names_shapes_and_settings(tmp_path: Path) -> None:
    save_peft(tmp_path, spec(), arrays(), "org/base")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = "model.layers.2.self_attn.q_proj"
    for part, theirs in {"A": "lora_A.weight", "B": "lora_B.weight", "m": "lora_magnitude_vector"}.items():
        assert np.array_equal(tensors[f"base_model.model.{name}.{theirs}"], arrays()[f"{name}.{part}"])
    assert len(tensors) == 6
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config == {**peft_config(spec()), "base_model_name_or_path": "org/base", "inference_mode": True}
    assert (config["r"], config["lora_alpha"], config["use_dora"]) == (2, 3.0, True)
    assert (config["target_modules"], config["layers_to_transform"]) == (["self_attn.q_proj"], [1, 2])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda held: held.pop("model.layers.1.self_attn.q_proj.B"), r"q_proj.B is None, expected \(6, 2\)"),
        (lambda held: held.update(extra=np.zeros(2, np.float32)), r"extra is \(2,\), expected None"),
        (
            lambda held: held.update({"model.layers.1.self_attn.q_proj.A": np.zeros((3, 5), np.float32)}),
            r"q_proj.A is \(3, 5\), expected \(2, 5\)",
        ),
    ],
)
def test_arrays_of_another_adapter_are_an_error(change: object, words: str) -> None:
    held = arrays()
    change(held)  # type: ignore[operator]
    with pytest.raises(ModelError, match=rf"the adapter does not fit: .*{words}(.|\n)*where: here"):
        check_arrays(spec(), held, "here")


def test_a_lora_file_is_no_dora_adapter(tmp_path: Path) -> None:
    save_mlx(tmp_path, spec("lora"), arrays("lora"), "base")
    with pytest.raises(ModelError, match=r"q_proj.m is None, expected \(6,\)"):
        load_mlx(tmp_path, spec("dora"))


def test_a_missing_a_damaged_and_a_foreign_file_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "adapters.safetensors"
    with pytest.raises(ModelError, match="cannot be read"):
        load_mlx(tmp_path, spec())
    save_mlx(tmp_path, spec(), arrays(), "base")
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ModelError, match=r"cannot be read(.|\n)*train again"):
        load_mlx(tmp_path, spec())
    save_file({"weight": np.zeros(3, np.float32)}, file)
    with pytest.raises(ModelError, match="does not fit"):
        load_mlx(tmp_path, spec())
