"""The Modelfile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from chrysalis_mlx.export.ollama import modelfile
from chrysalis_mlx.models.directory import ModelDirectory


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_what_a_plain_model_needs(tiny_model: Path) -> None:
    text = modelfile(Path("export/model-Q4_K_M.gguf"), ModelDirectory.open(tiny_model), system=None, context=None)
    assert text == (
        'FROM ./model-Q4_K_M.gguf\nPARAMETER num_ctx 512\nPARAMETER stop "<|im_end|>"\nPARAMETER stop "<|endoftext|>"\n'
    )


def test_system_prompt_context_and_the_makers_sampling(copy: Path) -> None:
    settings = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.1, "do_sample": True}
    (copy / "generation_config.json").write_text(json.dumps(settings))
    text = modelfile(Path("m.gguf"), ModelDirectory.open(copy), system='Say "yes".\nAlways.', context=256)
    lines = text.splitlines()
    assert lines[:4] == ["FROM ./m.gguf", 'SYSTEM """Say "yes".', 'Always."""', "PARAMETER num_ctx 256"]
    assert lines[6:] == [
        "PARAMETER temperature 0.6",
        "PARAMETER top_k 20",
        "PARAMETER top_p 0.95",
        "PARAMETER repeat_penalty 1.1",
    ]


def test_a_long_context_is_cut_to_what_laptops_hold(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 131072}))
    model = ModelDirectory.open(copy)
    assert "PARAMETER num_ctx 8192\n" in modelfile(Path("m.gguf"), model, system=None, context=None)
    assert "PARAMETER num_ctx 32768\n" in modelfile(Path("m.gguf"), model, system=None, context=32768)


def test_no_sampling_file_is_fine(copy: Path) -> None:
    (copy / "generation_config.json").unlink()
    assert "temperature" not in modelfile(Path("m.gguf"), ModelDirectory.open(copy), system=None, context=None)
