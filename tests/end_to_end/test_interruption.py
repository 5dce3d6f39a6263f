"""Killed or interrupted anywhere, a run goes on from its last recorded checkpoint and ends as if nothing had been."""

from __future__ import annotations

import functools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.training.metrics import read_metrics
from tests.end_to_end.inputs import call, finals, origin, report

BLUEPRINT = """\
name: interrupted
split: {valid: 0.1, test: 0.1}
adapter: {rank: 4, alpha: 8, dropout: 0.1}
training:
  row_length: 128
  batch_size: 1
  gradient_accumulation: 2
  steps: 8
  warmup_steps: 1
  learning_rate: 1e-2
  min_learning_rate: 1e-3
  validate_every: 3
  checkpoint_every: 2
  keep: 2
  max_valid_rows: 2
export: {quantize: [F16], verify_lines: 20, verify_positions: 4}
"""
LAST = "training/checkpoints/step-000008"
ADAPTERS = ("adapters/adapters.safetensors", "adapters/peft/adapter_model.safetensors")
CHANGING = ("seconds", "tokens_per_second", "peak_memory")

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

def stop(self, event):
    append(self, event)
    if event["step"] == 3 and event["kind"] == "train":
        wait()

Metrics.append = stop
"""
AT_TENSOR = """
from chrysalis_mlx.adapters.merge import MergedSource
rows, seen = MergedSource.rows, []

def stop(self, name, *span):
    seen.append(name)
    if len(seen) == {number}:
        wait()
    return rows(self, name, *span)

MergedSource.rows = stop
"""
# The program, made to kill itself before or after the nth call of a function, or when half of a file is written. Each
# start is a fork of one process that has imported everything and computed nothing: importing takes most of the time.
KILLS = """
import importlib, json, os, shutil, signal, sys
from chrysalis_mlx import backends, workspace
import chrysalis_mlx.pipeline.train
from chrysalis_mlx.cli import main, train
from chrysalis_mlx.training import checkpoint, stage
from chrysalis_mlx.training.metrics import Metrics

Engine = backends.load(sys.argv[1])
models = {"mlx": "mlx_lm.models.llama", "torch": "transformers.models.llama.modeling_llama"}
importlib.import_module(models[sys.argv[1]])

def kill(owner, name, number, when):
    function, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.append(name)
        here = len(calls) == number
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        value = function(*args, **kwargs)
        if here and when == "half":
            os.truncate(args[1], args[1].stat().st_size // 2)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    setattr(owner, name, counted)

for site in sys.stdin:
    process = os.fork()
    if not process:
        eval("kill(" + site + ")")
        os._exit(main(["train", sys.argv[2], "--backend", sys.argv[1]]))
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
# Where it is killed, one start after the other, and the steps that are recorded as saved then.
SITES = [
    ("os, 'replace', 1, 'before'", []),  # of the record that it runs
    ("Engine, 'step', 1, 'before'", [0]),
    ("Metrics, 'append', 2, 'after'", [0]),
    ("checkpoint, 'save_file', 1, 'half'", [0]),
    ("os, 'replace', 4, 'before'", [0]),  # the checkpoint is whole, but has not its name
    ("os, 'replace', 4, 'after'", [0]),  # it has its name, but is not recorded
    ("os, 'replace', 5, 'after'", [0, 2]),  # it is recorded
    ("shutil, 'rmtree', 1, 'before'", [2, 3]),  # while older ones are removed
    ("Engine, 'step', 3, 'after'", [3, 4]),
    ("stage, 'save_peft', 1, 'before'", [6, 8]),
]
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
def begun(tmp_path_factory: pytest.TempPathFactory, inputs: Path, tiny_model: Path) -> Path:
    """A run before its training."""
    directory = tmp_path_factory.mktemp("begun")
    (directory / "blueprint.yaml").write_text(BLUEPRINT)
    shutil.copy(inputs / "genome.txt", directory)
    command = [sys.executable, "-m", "chrysalis_mlx", "corpus", directory / "run", *origin(directory, tiny_model)]
    subprocess.run(command, check=True, capture_output=True)
    return directory / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, begun: Path) -> Callable[[str], Path]:
    """The same run after a training that was never interrupted, by the program itself."""

    @functools.cache
    def trained(backend: str) -> Path:
        run = Path(shutil.copytree(begun, tmp_path_factory.mktemp("whole") / backend))
        command = [sys.executable, "-m", "chrysalis_mlx", "train", run, "--backend", backend]
        subprocess.run(command, check=True, capture_output=True)
        return run

    return trained


def timeless(run: Path) -> list[dict[str, Any]]:
    events = read_metrics(run / "training/metrics.jsonl")
    return [{key: value for key, value in event.items() if key not in CHANGING} for event in events]


def assert_same_training(run: Path, expected: Path) -> None:
    """Byte for byte the same adapter, last checkpoint and figures."""
    for file in (*ADAPTERS, *(f"{LAST}/{name}" for name in ("adapters.safetensors", "optimizer.safetensors"))):
        assert (run / file).read_bytes() == (expected / file).read_bytes()
    assert (run / LAST / "state.json").read_text() == (expected / LAST / "state.json").read_text()
    assert timeless(run) == timeless(expected)
    assert [event["step"] for event in timeless(run) if event["kind"] == "train"] == list(range(1, 9))


@pytest.mark.parametrize("backend", ["mlx", "torch"])
def test_killed_ten_times_a_training_ends_byte_for_byte_like_one_that_never_stopped(
    begun: Path, whole: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], backend: str
) -> None:
    run = Path(shutil.copytree(begun, tmp_path / "run"))
    command = [sys.executable, "-c", KILLS, backend, str(run)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, bufsize=1) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        for site, saved in SITES:
            program.stdin.write(f"{site}\n")
            assert (site, program.stdout.readline()) == (site, f"{-signal.SIGKILL}\n")
            stages = json.loads((run / "run.json").read_text())["stages"]
            assert [record["step"] for record in stages.get("train", {}).get("checkpoints", [])] == saved, site
            assert not (run / "adapters").exists()
        program.stdin.close()
    value = report(capfd, "train", run, "--backend", backend)["report"]
    assert (value["resumed_at"], value["steps"], value["targets"]) == (8, 8, 0)
    assert_same_training(run, whole(backend))
    assert not [name for name in finals(run) if ".partial" in name or ".replaced" in name]


def test_ctrl_c_finishes_the_step_saves_it_and_the_training_goes_on_from_there(
    begun: Path, whole: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(begun, tmp_path / "run"))
    status, errors = stopped(AT_STEP_3, signal.SIGINT, "train", run)
    assert status == 130
    assert "Traceback" not in errors
    assert "this step is finished and saved first; Ctrl-C again stops at once" in errors
    assert "interrupted; run the same command again to go on" in errors
    record = json.loads((run / "run.json").read_text())["stages"]["train"]
    assert (record["status"], record["reason"]) == ("interrupted", "Ctrl-C; saved at step 3")
    assert record["checkpoints"][-1]["step"] == 3
    assert not (run / "adapters").exists()
    assert [event["step"] for event in timeless(run)] == [0, 1, 2, 3, 3]
    assert report(capfd, "train", run)["report"]["resumed_at"] == 3
    assert_same_training(run, whole("mlx"))


def test_the_minutes_pause_a_training_and_grow_goes_no_further(
    begun: Path, whole: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(begun, tmp_path / "run"))
    stages = report(capfd, "grow", run, "--max-minutes", "1e-9")["stages"]
    assert [(name, stage["status"]) for name, stage in stages.items()] == [("corpus", "done"), ("train", "paused")]
    status, out, _ = call(capfd, "train", run, "--max-minutes", "1e-9")
    assert status == 0
    assert "run the same command again to go on" in out
    assert "2 of 8 steps, resumed at step 1" in out
    assert not (run / "adapters").exists()
    status, out, _ = call(capfd, "runs", run.parent)
    assert "paused" in out
    assert "2/8" in out
    assert report(capfd, "train", run)["report"]["resumed_at"] == 2
    assert_same_training(run, whole("mlx"))


def test_a_damaged_checkpoint_is_told_and_recorded_and_the_one_before_is_used(
    begun: Path, whole: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(begun, tmp_path / "run"))
    for _ in range(3):
        report(capfd, "train", run, "--max-minutes", "1e-9")
    file = run / "training/checkpoints/step-000003/optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    status, out, _ = call(capfd, "train", run)
    note = "missing or damaged: step-000003/optimizer.safetensors; the training goes on from step 2"
    assert status == 0
    assert f"note: {note}\n" in out
    assert json.loads((run / "run.json").read_text())["stages"]["train"]["notes"] == [note]
    assert_same_training(run, whole("mlx"))


@pytest.mark.parametrize(
    ("number", "present"),
    [(5, set()), (TENSORS + 5, {"fused/model.safetensors"})],
    ids=["while fused/ is written", "while a GGUF is written"],
)
def test_a_killed_fuse_leaves_no_half_file_under_a_final_name_and_finishes_when_run_again(
    whole: Callable[[str], Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    number: int,
    present: set[str],
) -> None:
    trained = whole("mlx")
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    status, _ = stopped(AT_TENSOR.format(number=number), signal.SIGKILL, "fuse", run, "--quantize", "F16")
    assert status == -signal.SIGKILL
    new = finals(run) - finals(trained)
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
