"""`plan`, and what `train` and `grow` do where it says no."""

from __future__ import annotations

from pathlib import Path

import pytest

from chrysalis_mlx.machine import memory_bytes
from chrysalis_mlx.pipeline import train
from chrysalis_mlx.run import Run
from tests.end_to_end.inputs import call, origin, report, write_inputs
from tests.models.published import write_published


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    return write_published(tmp_path / "Qwen3-0.6B", "Qwen/Qwen3-0.6B")


@pytest.fixture
def blueprint(tmp_path: Path) -> Path:
    return write_inputs(tmp_path / "inputs")[1]


def test_a_model_without_its_weights(qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = report(capfd, "plan", "--model", qwen, "--device", "gpu", "--memory", "12GB", "--backend", "mlx")
    assert (found["blueprint"], found["backend"], found["device"]) == ("qwen3-0.6b", "mlx", "gpu")
    assert (found["memory_bytes"], found["usable_bytes"]) == (12 * 10**9, 8 * 10**9)
    parts = found["memory"]
    assert parts["weights"] == 2 * 596_049_920
    backward = parts["activations"] + max(parts["head"], parts["layer"])
    assert parts["peak"] == parts["weights"] + parts["adapter"] + parts["optimizer"] + backward
    assert found["fits"] is (parts["peak"] <= 8 * 10**9) is True
    assert set(found["largest"]) == {"row_length", "batch_size", "rank", "checkpointing"}
    assert found["time"] is None


def test_for_people(qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ("plan", "--model", qwen, "--blueprint", "qwen3-0.6b", "--device", "gpu", "--backend", "mlx")
    status, out, err = call(capfd, *arguments, "--memory", "16GB")
    assert status == 0, err
    words = " ".join(out.split())
    assert "dora of rank 16, 300 steps of 4 x 1 rows of 1,024 tokens" in words
    assert "memory, MLX on gpu size of in the peak" in words
    assert "weights 1.19 GB the base model yes" in words
    assert "layer 0.15 GB a layer's own arrays no" in words
    assert "it fits (a training may use 67% of 16.00 GB)" in words
    assert "training.row_length 1,024" in words
    assert words.endswith("time: not known: the model's weights are not here")
    status, out, _ = call(capfd, *arguments, "--memory", "4GB")
    assert status == 0
    words = " ".join(out.split())
    assert "it does not fit: in a new run set training.row_length to at most 256 (a" in words
    status, out, _ = call(capfd, *arguments, "--memory", "1GB")
    assert "gradient_checkpointing alone would not make it fit" in " ".join(out.split())


def test_time_is_measured_where_the_weights_are(
    tiny_model: Path, blueprint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("plan", "--model", tiny_model, "--blueprint", blueprint, "--backend", "mlx")
    found = report(capfd, *arguments)
    assert found["memory_bytes"] == memory_bytes()
    assert found["time"]["seconds"] == 6 * 2 * 128 / found["time"]["tokens_per_second"]
    assert report(capfd, *arguments, "--no-measure")["time"] is None
    status, out, _ = call(capfd, *arguments, "--no-measure")
    assert (status, out.splitlines()[-1]) == (0, "time: not measured")


def test_torch_has_a_time_and_no_memory(tiny_model: Path, blueprint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = report(capfd, "plan", "--model", tiny_model, "--blueprint", blueprint, "--backend", "torch")
    assert (found["backend"], found["memory"], found["fits"], found["largest"]) == ("torch", None, None, None)
    assert found["time"]["tokens_per_second"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "name a --model, a --blueprint that names one, or both"), (("--blueprint", "tiny"), "names no model")],
)
def test_usage(arguments: tuple[str, ...], words: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capfd, "plan", *arguments)
    assert (status, words in " ".join(err.split())) == (2, True)


def test_train_and_grow_refuse_what_does_not_fit_unless_forced(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path)
    run = tmp_path / "run"
    monkeypatch.setattr(train, "memory_bytes", lambda: 10**6)
    status, _, err = call(capfd, "grow", run, *origin(tmp_path, tiny_model), "--backend", "mlx")
    assert status == 1
    assert "the training would take 0.0" in err
    assert "take a smaller or a quantized model" in err
    stages = Run.open(run).record["stages"]
    assert (stages["corpus"]["status"], stages["train"]["status"]) == ("done", "failed")
    assert "--force" in stages["train"]["reason"]
    status, _, err = call(capfd, "train", run)
    assert (status, "with --force it begins all the same" in err) == (1, True)
    assert report(capfd, "train", run, "--force")["status"] == "done"
