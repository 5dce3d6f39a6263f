"""What the README shows can be pasted: its commands are understood, and its Python runs."""

from __future__ import annotations

import lzma
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from chrysalis_mlx.cli import main

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("chrysalis-mlx ")]


def test_the_readme_shows_commands() -> None:
    assert len(commands()) > 30
    shown = {shlex.split(line, comments=True)[1] for line in commands()}
    assert shown >= {"grow", "genome", "blueprint", "corpus", "plan", "fuse", "eval", "report", "chat", "serve", "push"}


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_readme_is_understood(
    line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every word of it is an option, an argument or a value of the command; it is not run here."""
    monkeypatch.setattr(click.Command, "invoke", lambda self, ctx: None)
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))
    assert main(shlex.split(line, comments=True)[1:]) == 0, capfd.readouterr().err


def test_a_command_that_is_misspelt_is_not_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Command, "invoke", lambda self, ctx: None)
    assert main(["fuse", "runs/qwen3", "--quantise", "Q4_K_M"]) == 2


def test_the_python_of_the_readme_runs(
    tmp_path: Path, inputs: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Word for word; under the names that it mentions lie small files, and a tiny model where a Hub id stands."""
    (code,) = blocks("python")
    (tmp_path / "ecosystem.txt.xz").write_bytes(lzma.compress((inputs / "genome.txt").read_bytes()))
    shutil.copy(inputs / "blueprint.yaml", tmp_path / "my-notes.yaml")
    shutil.copytree(tiny_model, tmp_path / "Qwen" / "Qwen3-0.6B")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    printed = capfd.readouterr().out
    found = re.search(r"^test perplexity: (\d\.\d\d) times the base's, (?:None|\d\S* to \d\S*)$", printed, re.MULTILINE)
    assert found
    assert 0 < float(found[1]) < 1
    assert re.search(r"^memorized: \d+% of the continuations$", printed, re.MULTILINE)
    assert re.search(r"^F16: \d\d\.\d\d bits per weight, KL \d\.\de-\d\d, verified: True$", printed, re.MULTILINE)
    assert (tmp_path / "runs/notes/report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
