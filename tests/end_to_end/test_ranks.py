"""Several processes train one run: what comes out is what one alone makes, and one of them alone writes and speaks."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from chrysalis_mlx import backends
from chrysalis_mlx.backends.base import World
from chrysalis_mlx.training.metrics import read_metrics
from tests.end_to_end.inputs import call, finals, origin, report

SCRIPT = """\
import sys
from chrysalis_mlx.cli import main
sys.exit(main(["train", sys.argv[1], "--json"]))
"""


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, inputs: Path, tiny_model: Path) -> Path:
    """A run before its training."""
    run = tmp_path_factory.mktemp("begun") / "run"
    command = [sys.executable, "-m", "chrysalis_mlx", "corpus", run, *origin(inputs, tiny_model)]
    subprocess.run(command, check=True, capture_output=True)
    return run


def figures(run: Path) -> dict[tuple[str, int], list[float]]:
    """Of every event what must not depend on the number of processes."""
    return {
        (event["kind"], event["step"]): [event[name] for name in ("loss", "grad_norm", "tokens") if name in event]
        for event in read_metrics(run / "training/metrics.jsonl")
    }


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def test_two_processes_of_mlx_make_what_one_makes(
    begun: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alone, together = (Path(shutil.copytree(begun, tmp_path / name)) for name in ("alone", "together"))
    report(capfd, "train", alone, "--backend", "mlx")
    script = tmp_path / "train.py"
    script.write_text(f"#!{sys.executable}\n{SCRIPT}")
    script.chmod(0o755)
    launch = [Path(sys.executable).with_name("mlx.launch"), "-n", "2", "--backend", "ring"]
    command = [*launch, "--starting-port", str(free_port()), "--python", sys.executable, script, together]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"]["steps"] == 6  # one object: the second process says nothing
    found, expected = figures(together), figures(alone)
    assert list(found) == list(expected)
    for event, values in expected.items():
        assert found[event] == pytest.approx(values, rel=1e-5)
    assert finals(together) == finals(alone)


def test_the_second_process_writes_nothing_and_says_nothing(
    begun: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(begun, tmp_path / "run"))
    before = {name: (run / name).read_bytes() for name in finals(run)}
    monkeypatch.setattr(backends.load("torch"), "world", classmethod(lambda _: World(1, 2)))
    assert call(capfd, "train", run, "--backend", "torch") == (0, "", "")
    assert {name: (run / name).read_bytes() for name in finals(run)} == before


def test_grow_is_for_one_process(
    begun: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(begun, tmp_path / "run"))
    monkeypatch.setattr(backends.load("torch"), "world", classmethod(lambda _: World(0, 2)))
    status, _, err = call(capfd, "grow", run, "--backend", "torch")
    assert status == 1
    assert "several processes share a training, not the other stages" in err
    assert "launch `chrysalis-mlx train` with all" in err
