"""The run directory: whole files or none, and a record that is true."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from chrysalis_mlx import __version__
from chrysalis_mlx.errors import RunError
from chrysalis_mlx.run import Run, atomic_path, sha256_file, sha256_json, write_json, write_text

ORIGIN = {"genome": {"path": "g", "sha256": "0"}, "seed": 3}


def contents(directory: Path) -> dict[str, str]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_text(encoding="utf-8") for path in files}


@pytest.mark.parametrize("before", [{}, {"f": "old"}])
def test_a_file_gets_its_name_when_it_is_whole(tmp_path: Path, before: dict[str, str]) -> None:
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    with atomic_path(tmp_path / "f") as partial:
        partial.write_text("half")
        assert contents(tmp_path) == {**before, "f.partial": "half"}
        partial.write_text("whole")
    assert contents(tmp_path) == {"f": "whole"}


@pytest.mark.parametrize("before", [{}, {"d/old": "old", "d/deep/old": "old"}])
def test_a_directory_gets_its_name_when_it_is_whole(tmp_path: Path, before: dict[str, str]) -> None:
    for name, text in before.items():
        write_text(tmp_path / name, text)
    with atomic_path(tmp_path / "d") as partial:
        (partial / "deep").mkdir(parents=True)
        (partial / "deep/new").write_text("new")
        assert contents(tmp_path) == {**before, "d.partial/deep/new": "new"}
    assert contents(tmp_path) == {"d/deep/new": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_an_error_leaves_what_was_there_and_no_partial(tmp_path: Path, kind: str, error: type[BaseException]) -> None:
    name = "x" if kind == "file" else "x/inside"
    write_text(tmp_path / name, "old")

    def write() -> None:
        with atomic_path(tmp_path / "x") as partial:
            target = partial if kind == "file" else partial / "inside"
            target.parent.mkdir(exist_ok=True)
            target.write_text("new")
            raise error

    with pytest.raises(error):
        write()
    assert contents(tmp_path) == {name: "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_a_killed_writer_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "f.partial").mkdir()
    write_text(tmp_path / "f.partial/junk", "junk")
    write_text(tmp_path / "deeper/f", "made with its directories")
    write_text(tmp_path / "f", "text")
    assert contents(tmp_path) == {"f": "text", "deeper/f": "made with its directories"}


def test_text_and_json_are_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "t", "ä\r\nb\n")
    assert (tmp_path / "t").read_bytes() == b"\xc3\xa4\r\nb\n"
    write_json(tmp_path / "j", {"ä": [1]})
    assert (tmp_path / "j").read_bytes() == '{\n  "ä": [\n    1\n  ]\n}\n'.encode()


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_file(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_json({"b": 1, "a": [2]}) == sha256_json({"a": [2], "b": 1})
    assert sha256_json({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", ORIGIN)


def finish(run: Run, name: str = "corpus", inputs: dict[str, str] | None = None, text: str = "text") -> None:
    with run.recording(name, inputs or {"a": "1"}) as record:
        write_text(run.path("out", f"{name}.txt"), text)
        record["report"] = {"rows": 7}
        record["outputs"] = [run.path("out", f"{name}.txt")]


def test_a_new_run_says_what_made_it(run: Run) -> None:
    record = json.loads(run.path("run.json").read_text())
    assert record == run.record == Run.open(run.directory).record
    assert (record["schema"], record["chrysalis_mlx"], record["stages"]) == (1, __version__, {})
    assert record["genome"] == ORIGIN["genome"]
    assert record["packages"].keys() >= {"mlx", "numpy", "gguf"}
    assert Run.exists(run.directory)
    assert not Run.exists(run.directory.parent)


def test_a_finished_stage_is_recorded_with_sizes_and_hashes(run: Run) -> None:
    assert (run.stage("corpus"), run.is_done("corpus", {"a": "1"})) == ({}, False)
    finish(run)
    stage = Run.open(run.directory).stage("corpus")
    assert (stage["status"], stage["inputs"], stage["report"]) == ("done", {"a": "1"}, {"rows": 7})
    digest = hashlib.sha256(b"text").hexdigest()
    assert stage["outputs"] == {"out/corpus.txt": {"sha256": digest, "bytes": 4}}
    assert stage["seconds"] >= 0
    assert run.is_done("corpus", {"a": "1"})
    assert run.output_hashes("corpus") == {"out/corpus.txt": digest}


@pytest.mark.parametrize("inputs", [{"a": "2"}, {}, {"a": "1", "b": "1"}])
def test_other_inputs_are_not_done(run: Run, inputs: dict[str, str]) -> None:
    finish(run)
    assert not run.is_done("corpus", inputs)


def test_a_missing_or_changed_output_is_not_done_and_feeds_no_stage(run: Run) -> None:
    finish(run)
    run.path("out/corpus.txt").write_text("longer text")
    assert not run.is_done("corpus", {"a": "1"})
    with pytest.raises(RunError, match=r"missing or was changed: out/corpus.txt(.|\n)*chrysalis-mlx corpus "):
        run.output_hashes("corpus")
    run.path("out/corpus.txt").unlink()
    assert not run.is_done("corpus", {"a": "1"})
    with pytest.raises(RunError, match="missing or was changed"):
        run.output_hashes("corpus")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("the reason"), "failed", "the reason"),
        (ValueError(), "failed", "ValueError"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
    ],
)
def test_a_stage_that_ends_badly_is_recorded_with_its_reason(
    run: Run, error: BaseException, status: str, reason: str
) -> None:
    def work() -> None:
        with run.recording("train", {"a": "1"}) as record:
            assert Run.open(run.directory).stage("train")["status"] == "running"
            record["checkpoint"] = {"step": 4}
            record["outputs"] = [run.path("never")]
            raise error

    with pytest.raises(type(error)):
        work()
    stage = Run.open(run.directory).stage("train")
    assert (stage["status"], stage["reason"], stage["outputs"]) == (status, reason, {})
    assert not run.is_done("train", {"a": "1"})
    with pytest.raises(RunError, match=rf"'train' has not finished \(status: {status}\)"):
        run.require("train")


def test_a_stage_goes_on_with_what_it_knew_only_from_the_same_inputs(run: Run) -> None:
    def attempt(inputs: dict[str, str]) -> None:
        with run.recording("train", inputs) as record:
            known.append(record.get("checkpoint"))
            assert "reason" not in record
            record["checkpoint"] = {"step": 4}
            raise KeyboardInterrupt

    known: list[object] = []
    for value in "112":
        with pytest.raises(KeyboardInterrupt):
            attempt({"a": value})
    assert known == [None, {"step": 4}, None]


def test_a_stage_that_stops_before_its_end_is_paused_and_goes_on(run: Run) -> None:
    with run.recording("train", {"a": "1"}) as record:
        record["checkpoints"] = [{"step": 4}]
        record["status"] = "paused"
    stage = Run.open(run.directory).stage("train")
    assert (stage["status"], stage["outputs"], stage["checkpoints"]) == ("paused", {}, [{"step": 4}])
    assert not run.is_done("train", {"a": "1"})
    with pytest.raises(RunError, match=r"'train' has not finished \(status: paused\)"):
        run.require("train")
    with run.recording("train", {"a": "1"}) as record:
        assert record["checkpoints"] == [{"step": 4}]
        record["outputs"] = []
    assert run.is_done("train", {"a": "1"})


def test_a_process_that_only_reads_leaves_the_run_as_it_is(run: Run) -> None:
    finish(run)
    before = contents(run.directory)
    other = Run.open(run.directory)
    other.read_only = True
    with other.recording("train", {"a": "1"}) as record:
        record["report"] = {"steps": 7}
        record["outputs"] = [other.path("of another process")]
    assert (other.stage("train")["status"], other.stage("train")["report"]) == ("done", {"steps": 7})
    with pytest.raises(ValueError, match="lost"), other.recording("eval", {}):
        raise ValueError("lost")
    assert contents(run.directory) == before


def test_what_a_gone_process_of_this_machine_was_running_was_interrupted(run: Run) -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    gone = {"host": platform.node(), "pid": process.pid}
    with run.recording("train", {}) as record:
        assert (run.status("train"), record["process"]) == ("running", {**gone, "pid": os.getpid()})
        record["process"] = gone
        assert run.status("train") == "interrupted"
        record["process"] = {"host": "another machine", "pid": process.pid}
        assert run.status("train") == "running"
        record["outputs"] = []
    assert (run.status("train"), run.status("eval")) == ("done", "")
    assert "process" not in run.stage("train")


def test_a_failure_that_cannot_be_recorded_is_still_told(run: Run) -> None:
    def lose_the_disk() -> None:
        shutil.rmtree(run.directory)
        run.directory.write_text("")  # no file can be made here
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"), run.recording("train", {}):
        lose_the_disk()
    assert run.directory.is_file()


def test_a_stage_that_never_ran_says_what_to_do(run: Run) -> None:
    with pytest.raises(RunError, match=rf"never ran(.|\n)*run: chrysalis-mlx train {run.directory}"):
        run.require("train")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '"x"', "\xff"])
def test_a_damaged_record_is_an_error(run: Run, text: str) -> None:
    run.path("run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"run.json is damaged(.|\n)*where: (.|\n)*to do: "):
        Run.open(run.directory)


def test_a_record_of_a_newer_version_and_no_run_at_all(run: Run, tmp_path: Path) -> None:
    run.path("run.json").write_text('{"schema": 2}')
    with pytest.raises(RunError, match=r"run\.json has schema 2, this version reads 1"):
        Run.open(run.directory)
    with pytest.raises(RunError, match=r"not a run directory(.|\n)*chrysalis-mlx grow RUN"):
        Run.open(tmp_path)
