"""The README's reference of commands is what the commands say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chrysalis_mlx.cli import COMMANDS
from scripts import command_reference

ROOT = Path(__file__).parents[2]


def test_the_readme_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "scripts/command_reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), f"run scripts/command_reference --write\n{done.stdout}"


def test_every_command_is_told_in_order() -> None:
    made = command_reference.reference()
    names = [line.split("<code>")[1].split("</code>")[0] for line in made.splitlines() if "<code>" in line]
    assert list(dict.fromkeys(name.split()[0] for name in names)) == list(COMMANDS)
    assert [name for name in names if name.startswith("genome ")] == [
        "genome lock [SOURCE]...",
        "genome clone",
        "genome audit",
        "genome build [SOURCE]...",
        "genome verify FILE",
        "genome show FILE",
        "genome diff BEFORE AFTER",
    ]
    assert "<details><summary><code>doctor</code> Examine this machine" in made
    assert "\nUsage: chrysalis-mlx train [OPTIONS] RUN\n" in made
    assert "\n  -h, --help " in made
    assert max(map(len, made.splitlines())) <= 130


def test_check_and_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    monkeypatch.setattr(command_reference, "README", readme)
    begin, end = command_reference.BEGIN, command_reference.END
    readme.write_text(f"# Ä\n{begin}\nold\n{end}\nafter\n{end}\n", encoding="utf-8")
    assert command_reference.main(["--check"]) == 1
    captured = capsys.readouterr()
    assert "\n-old\n" in captured.out
    assert "scripts/command_reference --write" in captured.err
    assert command_reference.main(["--write"]) == 0
    assert readme.read_text() == f"# Ä\n{begin}\n{command_reference.reference()}{end}\nafter\n{end}\n"
    assert command_reference.main(["--check"]) == 0
    assert capsys.readouterr().out == ""
    assert command_reference.main([]) == 0
    assert capsys.readouterr().out == command_reference.reference()
    assert command_reference.main(["--help"]) == 2


@pytest.mark.parametrize("text", ["nothing\n", f"{command_reference.BEGIN}\nno end\n"])
def test_a_readme_without_the_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(command_reference, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(SystemExit, match="has no lines"):
        command_reference.main(["--write"])
    assert (tmp_path / "README.md").read_text() == text
