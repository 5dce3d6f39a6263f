"""What goes wrong with an export ends in an error that says what to do, with nothing half-written under its name."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests import tiny
from tests.end_to_end.inputs import call

# The program, which stops or fails in the moment that a test is about: no clock decides when.
KILLED = """
import os, signal, sys

def die():
    os.kill(os.getpid(), signal.SIGKILL)

{patch}
from chrysalis_mlx.cli import main
sys.exit(main(sys.argv[1:]))
"""
AT_TENSOR = """
from chrysalis_mlx.adapters.merge import MergedSource
read, seen = MergedSource.read, []

def stop(self, name):
    seen.append(name)
    return read(self, name) if len(seen) < 5 else die()

MergedSource.read = stop
"""
AT_SLICE = """
from chrysalis_mlx.gguf import stream
write, seen = stream.Output.write, []

def stop(self, offset, data):
    seen.append(offset)
    return write(self, offset, data) if len(seen) < 9 else die()

stream.Output.write = stop
"""
AT_PROOF = """
from chrysalis_mlx.llamacpp.server import LlamaServer

def stop(self, *arguments, **options):
    die()

LlamaServer.tokenize = stop
"""
FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_llama(tmp_path_factory.mktemp("faults") / "model", seed=3)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A LoRA as mlx-lm writes it."""
    return write_adapter(tmp_path_factory.mktemp("faults") / "adapter", (64, 64))


def write_adapter(directory: Path, shape: tuple[int, int]) -> Path:
    directory.mkdir()
    chance, (out, into) = np.random.default_rng(1), shape
    tensors = {}
    for layer in range(2):
        name = f"model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_a"] = chance.standard_normal((into, 4)).astype(np.float32) * 0.1
        tensors[f"{name}.lora_b"] = chance.standard_normal((4, out)).astype(np.float32) * 0.1
    save_file(tensors, directory / "adapters.safetensors")
    parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


def arguments(model: Path, adapter: Path | None, output: Path, *types: str) -> list[str]:
    named = ["fuse", f"--model={model}", f"--output={output}"] + ([f"--adapter={adapter}"] if adapter else [])
    return named + [f"--quantize={name}" for name in types or ("F16",)]


def program(patch: str, options: list[str]) -> subprocess.CompletedProcess[str]:
    script = KILLED.format(patch=patch)
    return subprocess.run([sys.executable, "-c", script, *options], capture_output=True, text=True, check=False)


def files(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def final(names: list[str]) -> list[str]:
    return [name for name in names if ".partial" not in name and ".unverified." not in name]


@pytest.mark.parametrize(
    ("patch", "left"),
    [
        (AT_TENSOR, r"fused\.partial/model\.safetensors"),
        (AT_SLICE, r"export/model-F16\.unverified\.gguf\.partial"),
        (AT_PROOF, r"export/model-F16\.unverified\.gguf"),
    ],
)
def test_a_killed_export_leaves_nothing_under_a_final_name(
    model: Path, adapter: Path, tmp_path: Path, patch: str, left: str
) -> None:
    output = tmp_path / "out"
    assert program(patch, arguments(model, adapter, output)).returncode == -signal.SIGKILL
    names = files(output)
    assert any(re.fullmatch(left, name) for name in names)
    assert not [name for name in final(names) if not name.startswith("fused/")]
    assert "fused/model.safetensors" in names or not [name for name in names if name.startswith("fused/")]
    done = program("", arguments(model, adapter, output))
    assert done.returncode == 0, done.stderr
    assert "export/model-F16.gguf" in files(output)
    assert final(files(output)) == files(output)


def test_a_full_disk_leaves_nothing_and_is_named(model: Path, tmp_path: Path) -> None:
    done = program(FULL, [*arguments(model, None, tmp_path / "out"), "--no-verify"])
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert files(tmp_path / "out") == []


def test_a_disk_without_room_is_told_before_fused_is_written(
    capfd: pytest.CaptureFixture[str], model: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=400_000)  # enough for the GGUF, and not for fused/ beside it
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    status, _, error = call(capfd, *arguments(model, adapter, tmp_path / "out"))
    assert status == 1
    assert "GB of the disk are free" in error
    assert not (tmp_path / "out").exists()


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def cut_shard(model: Path) -> None:
    shard = model / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])


def reshape(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = np.ascontiguousarray(tensors[name][:-8])
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def drop_tokenizer(model: Path) -> None:
    for name in ("tokenizer.json", "tokenizer.model"):
        (model / name).unlink(missing_ok=True)
    edit_json(model / "tokenizer_config.json", lambda value: value.update(tokenizer_class="LlamaTokenizer"))


def break_template(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_shard, r"model\.safetensors.*\n?.*ends at byte|ends at byte(.|\n)*model\.safetensors"),
        (reshape, r"mlp\.up_proj\.weight has the shape \(120, 64\), config\.json says \(128, 64\)"),
        (drop_tokenizer, r"tokenizer\.model"),
        (break_template, r"chat template is not valid(.|\n)*chat_template\.jinja"),
    ],
)
def test_a_damaged_model_is_refused_before_anything_is_written(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    damaged = Path(shutil.copytree(model, tmp_path / "model"))
    damage(damaged)
    status, _, error = call(capfd, *arguments(damaged, None, tmp_path / "out"))
    assert status == 1
    assert re.search(said, error), error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists() or files(tmp_path / "out") == []


def test_an_adapter_of_another_model_is_refused_with_both_shapes(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    other = write_adapter(tmp_path / "other", (96, 48))
    status, _, error = call(capfd, *arguments(model, other, tmp_path / "out"))
    assert status == 1
    assert re.search(r"another model(.|\n)*q_proj(.|\n)*\(64, 64\)(.|\n)*\(96, 48\)", error), error
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_is_not_finite_is_refused_by_name(
    capfd: pytest.CaptureFixture[str], model: Path, adapter: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    tensors = load_file(broken / "adapters.safetensors")
    tensors["model.layers.1.self_attn.q_proj.lora_b"][1, 2] = np.nan
    save_file(tensors, broken / "adapters.safetensors")
    status, _, error = call(capfd, *arguments(model, broken, tmp_path / "out"))
    assert status == 1
    assert re.search(r"model\.layers\.1\.self_attn\.q_proj\.lora_b", error), error
    assert not (tmp_path / "out").exists()


def test_what_contradicts_itself_is_a_usage_error(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    for options, said in (
        ([], "nothing to export is named"),
        ([f"--model={model}"], "nothing to export is named"),
        ([str(tmp_path / "run"), f"--model={model}"], "--model cannot stand beside a run"),
        ([*arguments(model, None, tmp_path / "out")[1:], "--ollama=no such name"], "no name for a model in Ollama"),
        (
            [*arguments(model, None, tmp_path / "out")[1:], "--ollama=a", "--adapter-only"],
            "an adapter alone is no model",
        ),
        ([*arguments(model, None, tmp_path / "out")[1:], "--adapter-only"], "there is no adapter to write alone"),
    ):
        status, _, error = call(capfd, "fuse", *options)
        assert (status, said in error) == (2, True), error
