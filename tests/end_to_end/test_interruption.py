"""Killed or interrupted anywhere, a run goes on from its last recorded checkpoint and ends as if nothing had been."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chrysalis_mlx.training.metrics import read_metrics
from tests.end_to_end.inputs import finals, origin, report

# The program, made to say "here" and wait at the moment that the test is about: no clock decides when it is hit.
PRELUDE = """
import sys

def wait():
    print("here", flush=True)
    sys.stdin.readline()
"""
AT_STEP_3 = """
from chrysalis_mlx.training.metrics import Metrics
append = Metrics.append

def stop(self, **event):
    append(self, **event)
    if event["step"] == 3:
        wait()

Metrics.append = stop
"""
AT_TENSOR = """
from chrysalis_mlx.adapters.merge import MergedSource
read, seen = MergedSource.read, []

def stop(self, name):
    seen.append(name)
    if len(seen) == {number}:
        wait()
    return read(self, name)

MergedSource.read = stop
"""
MAIN = """
from chrysalis_mlx.cli import main
sys.exit(main(sys.argv[1:]))
"""
TENSORS = 20


def stopped(patch: str, how: signal.Signals, *arguments: object) -> tuple[int, str]:
    """Run the command line until it waits, send it the signal, and give its exit status and error text."""
    command = [sys.executable, "-c", PRELUDE + patch + MAIN, *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        process.send_signal(how)
        _, errors = process.communicate()
    assert first == "here\n", errors
    return process.returncode, errors


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, inputs: Path, tiny_model: Path) -> tuple[Path, Path]:
    """A run before its training, and the same run after one that was never interrupted, both by the program itself."""
    before, after = (tmp_path_factory.mktemp("runs") / name for name in ("before", "after"))
    program = [sys.executable, "-m", "chrysalis_mlx"]
    subprocess.run([*program, "corpus", before, *origin(inputs, tiny_model), "--json"], check=True, capture_output=True)
    shutil.copytree(before, after)
    subprocess.run([*program, "train", after, "--json"], check=True, capture_output=True)
    return before, after


@pytest.mark.parametrize(
    ("how", "status", "recorded"),
    [(signal.SIGKILL, -signal.SIGKILL, "running"), (signal.SIGINT, 130, "interrupted")],
    ids=["kill -9", "Ctrl-C"],
)
def test_a_training_goes_on_from_its_checkpoint_and_ends_byte_for_byte_the_same(
    trained: tuple[Path, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    how: signal.Signals,
    status: int,
    recorded: str,
) -> None:
    run = Path(shutil.copytree(trained[0], tmp_path / "run"))
    found, errors = stopped(AT_STEP_3, how, "train", run)
    assert found == status
    assert "Traceback" not in errors
    assert ("interrupted; run the same command again to go on" in errors) == (how == signal.SIGINT)
    record = json.loads((run / "run.json").read_text())["stages"]["train"]
    assert (record["status"], record["checkpoint"]["step"]) == (recorded, 2)
    assert not (run / "adapters").exists()
    assert [event["step"] for event in read_metrics(run / "training/metrics.jsonl")] == [0, 1, 2, 3]

    assert report(capfd, "train", run)["report"]["resumed_at"] == 2
    for file in ("adapters/adapters.safetensors", "adapters/peft/adapter_model.safetensors"):
        assert (run / file).read_bytes() == (trained[1] / file).read_bytes()
    events, expected = (read_metrics(directory / "training/metrics.jsonl") for directory in (run, trained[1]))
    assert [event["step"] for event in events if event["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [(event["step"], event["kind"], event["loss"]) for event in events] == [
        (event["step"], event["kind"], event["loss"]) for event in expected
    ]


@pytest.mark.parametrize(
    ("number", "present"),
    [(5, set()), (TENSORS + 5, {"fused/model.safetensors"})],
    ids=["while fused/ is written", "while a GGUF is written"],
)
def test_a_killed_fuse_leaves_no_half_file_under_a_final_name_and_finishes_when_run_again(
    trained: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], number: int, present: set[str]
) -> None:
    run = Path(shutil.copytree(trained[1], tmp_path / "run"))
    status, _ = stopped(AT_TENSOR.format(number=number), signal.SIGKILL, "fuse", run, "--quantize", "F16")
    assert status == -signal.SIGKILL
    new = finals(run) - finals(trained[1])
    whole = {name for name in new if ".partial" not in name}
    assert {name for name in whole if name.endswith((".safetensors", ".gguf"))} == present
    assert any(".partial" in name for name in new)
    if present:
        fused = (run / "fused/model.safetensors").read_bytes()

    value = report(capfd, "fuse", run, "--quantize", "F16")
    assert value["report"]["gguf"]["F16"]["verified"]
    assert finals(run) >= {"export/model-F16.gguf", "fused/model.safetensors"}
    assert not [name for name in finals(run) if ".partial" in name or "unverified" in name]
    if present:
        assert (run / "fused/model.safetensors").read_bytes() == fused
