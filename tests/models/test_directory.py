"""Model directories: what must be there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.run import sha256_file


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def configure(directory: Path, **changes: Any) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))


def test_a_complete_directory_opens(tiny_model: Path) -> None:
    model = ModelDirectory.open(tiny_model)
    assert model.architecture == "LlamaForCausalLM"
    assert model.context_length == 512
    assert model.tokenizer.eos_id == 2
    assert len(model.checkpoint().names) == 20


def test_linear_layers_in_layer_order(tiny_model: Path) -> None:
    linears = ModelDirectory.open(tiny_model).layer_linears()
    assert len(linears) == 14
    assert [name.split(".")[2] for name in linears] == ["0"] * 7 + ["1"] * 7
    assert linears["model.layers.1.self_attn.k_proj"] == (32, 64)
    assert linears["model.layers.0.mlp.down_proj"] == (64, 128)


def test_hashes_cover_every_file_that_decides_what_is_computed(copy: Path) -> None:
    before = ModelDirectory.open(copy).hashes()
    expected = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert set(before) >= expected
    assert before["model.safetensors"] == sha256_file(copy / "model.safetensors")
    (copy / "README.md").write_text("not part of it")
    assert ModelDirectory.open(copy).hashes() == before
    configure(copy, rms_norm_eps=1e-5)
    after = ModelDirectory.open(copy).hashes()
    assert {name for name in after if after[name] != before[name]} == {"config.json"}


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer"),
        ("model.safetensors", "no model.safetensors and no model.safetensors.index.json"),
    ],
)
def test_what_is_missing_is_named(copy: Path, missing: str, words: str) -> None:
    (copy / missing).unlink()
    with pytest.raises(ModelError, match=rf"{words}(.|\n)*to do: ") as caught:
        ModelDirectory.open(copy)
    assert str(copy) in str(caught.value)


def test_truncated_weights_are_found_when_the_model_is_opened(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged or truncated"):
        ModelDirectory.open(copy)


@pytest.mark.parametrize(
    ("text", "words"), [("{", "not valid JSON"), ("\xff", "not valid JSON"), ("[]", "not a JSON object")]
)
def test_a_damaged_configuration_is_an_error(copy: Path, text: str, words: str) -> None:
    (copy / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=rf"config.json is {words}"):
        ModelDirectory.open(copy)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quantization": {"mode": "nvfp4"}}, "quantized as nvfp4 with 4 bits in groups of 16"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized by gptq"),
    ],
)
def test_a_quantization_that_is_not_read_here_is_refused(copy: Path, settings: dict[str, Any], words: str) -> None:
    configure(copy, **settings)
    with pytest.raises(ModelError, match=rf"the model is {words}, which cannot be trained here(.|\n)*config\.json"):
        ModelDirectory.open(copy)


def test_sharded_weights_are_one_model(copy: Path) -> None:
    whole = ModelDirectory.open(copy)
    linears = whole.layer_linears()
    tensors = safetensors.numpy.load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    weight_map = {name: f"model-0000{number % 2 + 1}-of-00002.safetensors" for number, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        part = {name: tensor for name, tensor in tensors.items() if weight_map[name] == file}
        safetensors.numpy.save_file(part, copy / file)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    sharded = ModelDirectory.open(copy)
    assert sharded.layer_linears() == linears
    assert set(sharded.hashes()) >= set(weight_map.values())
