"""chrysalis-mlx report."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from chrysalis_mlx.cli import main
from chrysalis_mlx.run import Run
from tests.cli.test_runs import begin, finish, train


@pytest.fixture
def begun(tmp_path: Path) -> Run:
    """A run that trains."""
    finish(run := begin(tmp_path / "one"), "corpus")
    run.record["stages"]["corpus"]["report"] = _corpus_report()
    train(run, "paused", 3.75, 3.5)
    return run


def _corpus_report() -> dict[str, object]:
    counts = {"train": 8, "valid": 1, "test": 1}
    return {
        "considered": 12, "expressed": 10, "left_out": {"copy": 2}, "documents": counts, "rows": counts,
        "tokens": counts, "supervised": counts, "framings": {}, "cut": 0, "contamination": {},
        "repositories": {"docs": {"files": 12, "expressed": 10, "tokens": 10}},
    }  # fmt: skip


def test_the_page_lies_in_the_run(begun: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(begun.directory)]) == 0
    page = begun.path("report.html")
    text = page.read_text(encoding="utf-8")
    assert capsys.readouterr().out == f"{page}: {page.stat().st_size / 1000:,.0f} kB\n"
    assert text.startswith("<!doctype html>")
    assert "The training is paused; 2 of 200 steps are trained." in text
    assert sorted(path.name for path in begun.directory.iterdir()) == ["report.html", "run.json", "training"]


def test_several_runs_are_compared(begun: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path / "two")
    assert main(["report", str(begun.directory), str(tmp_path / "two")]) == 0
    assert "Comparison of runs" in begun.path("comparison.html").read_text(encoding="utf-8")
    output = tmp_path / "deep" / "both.html"
    assert main(["report", str(begun.directory), str(tmp_path / "two"), "-o", str(output)]) == 0
    assert "Comparison of runs" in output.read_text(encoding="utf-8")
    assert capsys.readouterr().out.count(" kB\n") == 2
    assert main(["report", *[str(begun.directory)] * 7]) == 2
    assert "7 runs cannot be compared" in capsys.readouterr().err


def test_json_prints_the_facts(begun: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = begun.path("training/metrics.jsonl")
    metrics.write_text(metrics.read_text() + '{"step": 3, "kind": "train", "loss": Infinity}\n')
    assert main(["report", str(begun.directory), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    (facts,) = printed["runs"]
    assert printed["page"] is None
    assert not begun.path("report.html").exists()
    assert (facts["name"], facts["state"], facts["stage"], facts["model"]) == ("one", "paused", "train", "Tiny-1B")
    assert facts["training"]["curves"]["train"] == {"steps": [1, 2], "values": [3.75, 3.5]}
    assert facts["training"]["not_finite"] == [3]
    assert facts["material"]["left_out"] == [
        {"rule": "copy", "number": 2, "why": "equal to another file", "examples": []}
    ]
    output = tmp_path / "page.html"
    assert main(["report", str(begun.directory), "--json", "-o", str(output)]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(output)
    assert output.is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing argument"),
        (["RUN", "--watch", "-o", "x.html"], "--watch serves a page"),
        (["RUN", "--watch", "--json"], "--watch serves a page"),
        (["RUN", "--port", "8080"], "--port is of --watch"),
        (["RUN", "--watch", "--port", "70000"], "70000 is not in the range"),
    ],
)
def test_options_that_contradict_each_other(
    begun: Run, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *(str(begun.directory) if word == "RUN" else word for word in arguments)]) == 2
    assert told in capsys.readouterr().err


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--watch"], ["--json"]):
        assert main(["report", str(tmp_path), *more]) == 1
        assert "this is not a run directory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_browser_is_opened(begun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("click.launch", opened.append)
    assert main(["report", str(begun.directory), "--open"]) == 0
    assert opened == [str(begun.path("report.html").absolute())]


def test_watching_ends_with_ctrl_c_and_status_0(begun: Run) -> None:
    command = [sys.executable, "-m", "chrysalis_mlx", "report", str(begun.directory), "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.split()[0]
        assert line == f"{address} follows {begun.directory}; Ctrl-C ends it\n"
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert "2 of 200 steps are trained" in answer.read().decode()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "ended\n", "")
    assert not begun.path("report.html").exists()
