"""A whole session at a pseudo-terminal: `grow` with its bars, then `chat` with what it made; and `grow` into a log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from tests.end_to_end.inputs import finals, origin

PROGRAM = [sys.executable, "-m", "chrysalis_mlx"]
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_STAGES = ("corpus", "train", "eval", "fuse")


def environment(**own: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    return {**inherited, "TERM": "xterm-256color", **own}


def spawn(*arguments: object, columns: int = 100, **own: str) -> pexpect.spawn:
    """The program in a pseudo-terminal."""
    command = [*PROGRAM, *map(str, arguments)]
    child = pexpect.spawn(
        command[0],
        command[1:],
        dimensions=(30, columns),
        encoding="utf-8",
        timeout=120,
        env=environment(**own),
    )
    child.delaybeforesend = None
    return child


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, inputs: Path, tiny_model: Path) -> tuple[Path, str]:
    """A run that was grown at a terminal, and all that the terminal was sent."""
    run = tmp_path_factory.mktemp("terminal") / "run"
    child = spawn("grow", run, *origin(inputs, tiny_model))
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before
    return run, child.before


def test_grow_draws_bars_and_reports_each_stage(grown: tuple[Path, str]) -> None:
    run, sent = grown
    text = _ESCAPES.sub("", sent)
    assert finals(run) >= {"export/model-F16.gguf", "export/model-Q4_K_M.gguf", "evaluation.json"}
    assert "\x1b[?25l" in sent  # the cursor is hidden while a bar is drawn, and shown again
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")
    assert re.search(r"training.*6/6", text)
    places = [re.search(rf"^{stage}\b", text, re.MULTILINE) for stage in _STAGES]
    assert all(places), text
    assert "Traceback" not in text


def test_grow_into_a_log_writes_few_lines_and_nothing_that_a_terminal_obeys(
    tmp_path: Path, inputs: Path, tiny_model: Path
) -> None:
    log = tmp_path / "log"
    command = [*PROGRAM, "grow", str(tmp_path / "run"), *origin(inputs, tiny_model)]
    with log.open("wb") as stderr:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment(), check=True)
    written = log.read_bytes().decode()
    # Each bar writes at most one line for each tenth of the way; what is quicker than a second writes its last alone.
    bars = {line.split(":")[0] for line in written.splitlines()}
    assert 3 <= len(written.splitlines()) <= 10 * len(bars)
    assert any(line.startswith("training: 6/6 (100%)") for line in written.splitlines())
    for text in (written, done.stdout):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_the_grown_model_is_talked_to(grown: tuple[Path, str]) -> None:
    run = grown[0]
    child = spawn("chat", run, "--max-tokens", "8", columns=60)
    child.expect("you> ")
    for speaker in ("tuned", "base"):
        child.send("Who are you?\r")
        child.expect(f"{speaker}> ")
        child.expect(r"\d+ tokens?")
        child.expect("you> ")
        child.send("/base\r")
        child.expect("answers now")
        child.expect("you> ")
    child.send("Say it again\r")
    child.expect("tuned> ")
    child.expect("you> ")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_window_that_changes_its_size_does_no_harm(grown: tuple[Path, str]) -> None:
    child = spawn("chat", grown[0], "--max-tokens", "8", columns=120)
    child.expect("you> ")
    child.send("Who a")
    child.setwinsize(10, 24)
    child.send("re you in there?\r")
    child.expect(r"tokens?")
    child.expect("you> ")
    child.setwinsize(50, 200)
    child.send("/help\r")
    child.expect("/exit")
    child.expect("you> ")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
