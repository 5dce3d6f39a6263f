"""What a shell completes, in click's own terms and in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from click.shell_completion import ShellComplete, get_completion_class

from chrysalis_mlx.blueprint.library import library
from chrysalis_mlx.cli import COMMANDS, group
from chrysalis_mlx.gguf.quantize import TYPES
from tests.end_to_end.inputs import call

VARIABLE = "_CHRYSALIS_MLX_COMPLETE"


def completed(*words: str) -> list[tuple[str, str]]:
    """Type and value of what is offered for the last of the words."""
    shell = ShellComplete(group, {}, "chrysalis-mlx", VARIABLE)
    return [(item.type, item.value) for item in shell.get_completions(list(words[:-1]), words[-1])]


def plain(*words: str) -> list[str]:
    return [value for kind, value in completed(*words) if kind == "plain"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs, models and blueprints, and what is none."""
    files = (
        "runs/first/run.json",
        "runs/first/below/run.json",
        "runs/other/second/run.json",
        "runs/empty/notes.txt",
        "rest/run.json",
        "a/b/c/deep/run.json",
        "a/b/c/d/too-deep/run.json",
        ".hidden/run.json",
        "models/tiny/config.json",
        "models/file.gguf",
        "own.yaml",
        "quick.yml",
        "folder/below.yaml",
    )
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_and_options() -> None:
    assert plain("") == list(COMMANDS)
    assert plain("gen") == ["genome", "generate"]
    assert set(plain("genome", "")) == {"lock", "clone", "audit", "build", "verify", "show", "diff"}
    assert "--max-minutes" in plain("train", "runs/first", "--")
    assert plain("train", "runs/first", "--backend", "") == ["auto", "mlx", "torch"]
    assert plain("corpus", "show", "x", "--side", "t") == ["train", "test"]
    assert plain("completion", "") == ["bash", "zsh", "fish"]


def test_runs(place: Path) -> None:
    assert completed("train", "") == [
        ("dir", ""),
        ("plain", "a/b/c/deep"),
        ("plain", "rest"),
        ("plain", "runs/first"),
        ("plain", "runs/other/second"),
    ]
    assert completed("train", "ru") == [("dir", "ru"), ("plain", "runs/first"), ("plain", "runs/other/second")]
    assert plain("train", "runs/f") == ["runs/first"]
    assert plain("train", "./re") == ["./rest"]
    assert plain("train", ".h") == [".hidden"]
    assert plain("train", f"{place}/runs/o") == [f"{place}/runs/other/second"]
    assert completed("train", "runs/empty/") == [("dir", "runs/empty/")]
    assert completed("train", "nowhere/x") == [("dir", "nowhere/x")]
    for words in (["eval"], ["fuse"], ["grow"], ["report"], ["corpus", "show"], ["lineage", "f.gguf", "--run"]):
        assert plain(*words, "runs/f") == ["runs/first"], words


def test_runs_below_the_home(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place))
    assert plain("train", "~/runs/f") == ["~/runs/first"]


def test_models(place: Path) -> None:
    assert plain("grow", "x", "--model", "mo") == ["models/file.gguf", "models/tiny"]
    for words in (["plan"], ["fuse"], ["genome", "show", "g.txt"], ["blueprint", "match"]):
        assert plain(*words, "--model", "models/t") == ["models/tiny"]


def test_runs_and_exported_files(place: Path) -> None:
    for words in (["chat"], ["serve"], ["lineage"]):
        assert completed(*words, "mo") == [("file", "mo"), ("plain", "models/file.gguf")]
        assert plain(*words, "runs/f") == ["runs/first"]


def test_blueprints(place: Path) -> None:
    assert plain("grow", "x", "--blueprint", "q") == [*(name for name in library() if name[0] == "q"), "quick.yml"]
    assert set(plain("plan", "--blueprint", "")) == {*library(), "own.yaml", "quick.yml"}
    assert completed("blueprint", "check", "folder/") == [("file", "folder/"), ("plain", "folder/below.yaml")]
    assert plain("blueprint", "new", "--from", "o") == ["own.yaml"]


def test_types() -> None:
    assert plain("fuse", "run", "--quantize", "q4_k") == ["Q4_K_M", "Q4_K_S"]
    for words in (["fuse", "run"], ["chat", "run"], ["generate", "run"], ["serve", "run"]):
        assert plain(*words, "--quantize", "") == list(TYPES)


def test_a_large_folder_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chrysalis_mlx.cli import candidates

    for number in range(9):
        (tmp_path / f"{number}" / "x").mkdir(parents=True)
        (tmp_path / f"{number}" / "x" / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert len(candidates.runs("")) == 9
    monkeypatch.setattr(candidates, "_ENTRIES_AT_MOST", 12)
    assert len(candidates.runs("")) == 3


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_clicks_own(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capfd, "completion", shell)
    assert (status, err) == (0, "")
    kind = get_completion_class(shell)
    assert kind is not None
    own = kind(group, {}, "chrysalis-mlx", VARIABLE)
    script = own.source_template % own.source_vars()
    lines = out.splitlines()
    assert [line for line in lines if line not in script.splitlines()] == [
        line for line in lines if line.startswith(("# Completion of", "#     ", "# or"))
    ]
    assert set(script.splitlines()) <= set(lines)
    assert any("chrysalis-mlx completion" in line or "eval" in line for line in lines[:4])
    assert (lines[0] == "#compdef chrysalis-mlx") is (shell == "zsh")
    checker = shutil.which(shell)
    if checker:
        assert subprocess.run([checker, "-n"], input=out, text=True, check=False).returncode == 0


def test_a_shell_that_there_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capfd, "completion", "csh")
    assert (status, out, "'csh' is not one of" in err) == (2, "", True)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the program, as pip makes it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "chrysalis-mlx"
    code = "import sys; from chrysalis_mlx.cli import main; sys.exit(main())"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    program.chmod(0o755)
    return folder


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash(place: Path, programs: Path) -> None:
    version = subprocess.run(["bash", "-c", "echo ${BASH_VERSINFO[0]}"], capture_output=True, text=True, check=True)
    if int(version.stdout) < 5:
        pytest.skip("click's script is for newer ones")
    root = str(Path(__file__).parents[2])
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": root, "TERM": "dumb", "PS1": "$ "}
    bash = pexpect.spawn("bash", ["--norc", "--noprofile", "-i"], env=environment, encoding="utf-8", timeout=60)  # type: ignore[arg-type]
    bash.sendline("bind 'set bell-style none'; bind 'set enable-bracketed-paste off'")
    bash.sendline('eval "$(chrysalis-mlx completion bash)"; echo re""ady')
    bash.expect_exact("\nready")
    for typed, whole in (
        ("doc", "doctor "),
        ("train runs/f", "runs/first "),
        ("train --forc", "--force "),
        ("grow x --blueprint qwen3-4", "qwen3-4b-qlora "),
    ):
        bash.send(f"chrysalis-mlx {typed}\t")
        bash.expect_exact(whole)
        bash.send("\x15")  # forget the line
    bash.sendline("exit")
    bash.expect(pexpect.EOF)
    bash.close()
