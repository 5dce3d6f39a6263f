"""What became of the runs below a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.cli import main
from chrysalis_mlx.run import Run
from chrysalis_mlx.training.metrics import Metrics

STAGES = ("corpus", "train", "eval", "fuse")


def begin(directory: Path) -> Run:
    return Run.create(directory, {"model": {"source": "owner/Tiny-1B"}, "blueprint": {"name": "tiny"}})


def finish(run: Run, *stages: str) -> None:
    for name in stages:
        with run.recording(name, {}) as record:
            record["outputs"] = []


def train(run: Run, status: str, *losses: float) -> None:
    metrics = Metrics(run.path("training", "metrics.jsonl"))
    metrics.append({"step": 0, "kind": "valid", "loss": 4.0})
    for step, loss in enumerate(losses, start=1):
        metrics.append({"step": step, "kind": "train", "loss": loss})
    with run.recording("train", {}) as record:
        record |= {"steps": 200, "status": status, "outputs": []}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    finish(done := begin(tmp_path / "deep/done"), "corpus")
    train(done, "running", 3.5, 3.25)
    finish(done, "eval", "fuse")
    finish(paused := begin(tmp_path / "paused"), "corpus")
    train(paused, "paused", 3.75)
    finish(failed := begin(tmp_path / "failed"), "corpus")
    with pytest.raises(ValueError, match="nan"), failed.recording("train", {}):
        raise ValueError("step 5: the loss is nan\n  to do: lower it")
    finish(stopped := begin(tmp_path / "stopped"), "corpus")
    with pytest.raises(KeyboardInterrupt), stopped.recording("train", {}):
        raise KeyboardInterrupt
    begin(tmp_path / "begun")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/run.json").write_text("{")
    begin(tmp_path / "paused/training/inside a run")
    (tmp_path / "no run").mkdir()
    return tmp_path


def listed(directory: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert main(["runs", str(directory), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["directory"] == str(directory)
    return {run["name"]: run for run in found["runs"]}


def test_every_run_is_listed_with_its_state(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = listed(archive, capsys)
    assert {name: (run["state"], run["reason"], run["stages"]) for name, run in runs.items()} == {
        "begun": ("begun", None, []),
        "damaged": ("damaged", "run.json is damaged", []),
        "deep/done": ("done", None, list(STAGES)),
        "failed": ("failed", "train: step 5: the loss is nan\n  to do: lower it", ["corpus"]),
        "paused": ("paused", None, ["corpus"]),
        "stopped": ("interrupted", "train: KeyboardInterrupt", ["corpus"]),
    }
    assert runs["deep/done"] == {
        "name": "deep/done",
        "path": str(archive / "deep/done"),
        "model": "owner/Tiny-1B",
        "blueprint": "tiny",
        "stages": list(STAGES),
        "state": "done",
        "reason": None,
        "step": 2,
        "steps": 200,
        "train_loss": 3.25,
        "valid_loss": 4.0,
    }
    assert (runs["paused"]["step"], runs["begun"]["step"], runs["damaged"]["model"]) == (1, None, None)


def test_people_get_a_table_and_the_causes(
    archive: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["runs", str(archive)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["deep/done", "Tiny-1B", "tiny", "fuse", "done", "2/200", "3.250", "4.000"] in lines
    assert ["paused", "Tiny-1B", "tiny", "corpus", "paused", "1/200", "3.750", "4.000"] in lines
    tail = lines[lines.index(["the", "archive", "of", "failed", "chrysalides:"]) + 1 :]
    assert tail == [
        ["damaged:", "run.json", "is", "damaged"],
        ["failed:", "train:", "step", "5:", "the", "loss", "is", "nan"],
        ["failed:", "to", "do:", "lower", "it"],
    ]


def test_the_table_fits_into_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run whose names are of the usual length, and whose training takes hundreds of steps."""
    monkeypatch.setenv("COLUMNS", "80")
    origin = {"model": {"source": "Qwen/Qwen3-0.6B"}, "blueprint": {"name": "qwen3-0.6b"}}
    finish(run := Run.create(tmp_path / "qwen3", origin), "corpus")
    train(run, "paused", *[3.25] * 200)
    assert main(["runs", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["run", "model", "blueprint", "done", "state", "steps", "train", "valid"] in lines
    row = next(line for line in lines if line[:1] == ["qwen3"])
    assert row == ["qwen3", "Qwen3-0.6B", "qwen3-0.6b", "corpus", "paused", "200/200", "3.250", "4.000"]


def test_a_run_that_was_killed_was_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begin(tmp_path / "killed")
    with run.recording("corpus", {}) as record:
        assert listed(tmp_path, capsys)["killed"]["state"] == "running"
        record["process"] |= {"pid": 2**22 + 1}  # beyond the largest
        run.save()
        found = listed(tmp_path, capsys)["killed"]
        assert (found["state"], found["reason"]) == ("interrupted", "corpus: its process is gone")
        record["outputs"] = []


def test_the_directory_is_runs_unless_another_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 2
    assert "'runs' does not exist" in capsys.readouterr().err
    (tmp_path / "runs").mkdir()
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "there is no run below runs\n"
    begin(tmp_path / "runs/one")
    assert list(listed(Path("runs"), capsys)) == ["one"]
    assert list(listed(tmp_path / "runs/one", capsys)) == ["one"]
