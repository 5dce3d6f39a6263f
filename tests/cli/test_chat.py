"""`chrysalis-mlx chat` at a real terminal, with a tiny model that never ends an answer by itself."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from chrysalis_mlx.cli.output import printable
from chrysalis_mlx.models.source import cache_directory
from tests.inference.runs import talking_run

PROGRAM = [sys.executable, "-m", "chrysalis_mlx", "chat"]
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
STATS = r"(\d+) tokens?(, [\d.]+ tokens/s)?[^\r\n]*\r\n"


@pytest.fixture(scope="module")
def larva(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run; nobody writes to it."""
    return talking_run(tmp_path_factory.mktemp("talking"))


class Terminal:
    """The program in a pseudo-terminal.

    Attributes:
        child: pexpect's.
        shown: everything that the program wrote.
    """

    def __init__(self, *arguments: object, columns: int = 80, **environment: str) -> None:
        own = {"TERM": "xterm-256color", **environment}
        self.child = pexpect.spawn(
            PROGRAM[0],
            [*PROGRAM[1:], *map(str, arguments)],
            dimensions=(24, columns),
            encoding="utf-8",
            timeout=60,
            env=_environment(own),
        )
        self.child.delaybeforesend = None
        self.parts: list[str] = []

    def until(self, pattern: str) -> str:
        """What is shown until a pattern has come, and with it; without escapes."""
        self.child.expect(pattern)
        found = str(self.child.before + self.child.after)
        self.parts.append(found)
        return _ESCAPES.sub("", found)

    def prompt(self) -> str:
        return self.until(r"you> (\x1b\[[0-9;]*m)?")

    def say(self, line: str) -> None:
        self.child.send(line + "\r")

    def leave(self, *keys: str) -> int:
        """The exit status after these keys, Ctrl-D where none is named."""
        self.child.send("".join(keys) or "\x04")
        return self.ended()

    def ended(self) -> int:
        """The exit status, once the program has ended by itself."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        return int(self.child.exitstatus)


def _environment(own: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    return {**inherited, **own}


Start = Callable[..., Terminal]


@pytest.fixture
def start(larva: Path) -> Iterator[Start]:
    terminals: list[Terminal] = []

    def start(*arguments: object, columns: int = 80, **environment: str) -> Terminal:
        terminals.append(Terminal(*(arguments or (larva,)), columns=columns, **environment))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.child.close(force=True)


def test_an_answer_streams_and_ctrl_d_leaves(start: Start, larva: Path) -> None:
    terminal = start(larva, "--max-tokens", "30", "--temperature", "0", "--context", "512")
    greeting = terminal.prompt()
    assert str(larva / "export/model-Q8_0.gguf") in greeting.replace("\r\n", "")
    assert "/help lists the commands" in greeting
    terminal.say("Who are you?")
    answer = terminal.until(STATS)
    assert "tuned> " in answer
    assert re.search(r"30 tokens, \d+(\.\d)? tokens/s, cut at --max-tokens", answer)
    terminal.prompt()
    assert terminal.leave() == 0


def test_ctrl_c_stops_an_answer_and_the_next_question_is_answered(start: Start, larva: Path, tmp_path: Path) -> None:
    terminal = start(larva, "--context", "65536")
    terminal.prompt()
    terminal.say("Never end.")
    terminal.until(r"tuned> ")
    terminal.until(r"[^\x1b]{300}")  # it streams
    terminal.child.sendintr()
    terminal.until("stopped\r\n|stopped\x1b")
    terminal.prompt()
    terminal.say(f"/save {tmp_path / 'said.json'}")
    terminal.until("saved: ")
    said = json.loads((tmp_path / "said.json").read_text())["messages"]
    assert [turn["role"] for turn in said] == ["system", "user", "assistant", "user", "assistant"]
    assert said[0]["content"] == "You are a larva."
    assert (said[3]["content"], said[4]["stopped"], said[4]["speaker"]) == ("Never end.", True, "tuned")
    assert len(said[4]["content"]) >= 100
    terminal.prompt()
    terminal.say("And now?")
    terminal.until(r"tuned> ")
    terminal.until(r"[^\x1b]{100}")
    terminal.child.sendintr()
    terminal.until("stopped")
    terminal.prompt()
    assert terminal.leave() == 0


def test_the_base_answers_and_back(start: Start, larva: Path) -> None:
    terminal = start(larva, "--max-tokens", "12", "--temperature", "0")
    terminal.prompt()
    terminal.say("Who?")
    first = terminal.until(STATS)
    terminal.prompt()
    terminal.say("/base")
    assert "base answers now: " in terminal.until(r"answers now: [^\r]*\r\n")
    terminal.prompt()
    terminal.say("/retry")
    second = terminal.until(STATS)
    assert "base> " in second
    terminal.prompt()
    terminal.say("/base")
    terminal.until("tuned answers now")
    terminal.prompt()
    terminal.say("/retry")
    third = terminal.until(STATS)
    said = [re.search(r"(?:tuned|base)> (.*?)\r\n12 tokens", text, re.DOTALL) for text in (first, second, third)]
    assert all(said)
    texts = [match[1] for match in said if match]
    assert texts[0] == texts[2] != texts[1]
    assert len(list((cache_directory() / "base").glob("model-Q8_0-*.gguf"))) == 1


def test_commands_that_cannot_be_obeyed_are_told_and_the_chat_goes_on(
    start: Start, larva: Path, tmp_path: Path
) -> None:
    file = tmp_path / "alone.gguf"
    file.write_bytes((larva / "export/model-F32.gguf").read_bytes())
    terminal = start(file, "--max-tokens", "5")
    terminal.prompt()
    for line, told in (
        ("/base", "chrysalis-mlx chat RUN"),
        ("/retry", "nothing was asked yet"),
        ("/nonsense", "there is no command /nonsense"),
        ("/save", "no file is named"),
        (f"/save {file}", "there is such a file already"),
        ("/save /dev/null/x", "error: "),
        ("/system Be brief.", "system prompt: Be brief."),
        ("/system", "system prompt: Be brief."),
        ("/system -", "none but what the chat template adds"),
        ("/clear", "the conversation is forgotten"),
        ("/help", "/exit"),
    ):
        terminal.say(line)
        assert told in terminal.prompt().replace("\r\n", "\n"), line
    terminal.say("Hi")
    assert "model> " in terminal.until(STATS)
    terminal.prompt()
    assert terminal.leave("/exit\r") == 0


def test_several_lines_are_one_question(start: Start, larva: Path, tmp_path: Path) -> None:
    terminal = start(larva, "--max-tokens", "3")
    terminal.prompt()
    terminal.say("one\\")
    terminal.until(r"\.\.\.> ")
    terminal.say("two")
    terminal.until(STATS)
    terminal.prompt()
    terminal.say("\x1b[200~three\nfour\x1b[201~")
    terminal.until(STATS)
    terminal.prompt()
    terminal.say(" /help me")
    terminal.until(STATS)
    terminal.prompt()
    file = tmp_path / "said.json"
    terminal.say(f"/save {file}")
    terminal.until("saved: ")
    asked = [turn["content"] for turn in json.loads(file.read_text())["messages"] if turn["role"] == "user"]
    assert asked == ["Hi", "one\ntwo", "three\nfour", "/help me"]


def test_ctrl_c_clears_the_line_and_twice_at_an_empty_one_leaves(start: Start) -> None:
    terminal = start()
    terminal.prompt()
    terminal.child.send("half a quest")
    terminal.until("quest")
    terminal.child.sendintr()
    assert "leaves" not in terminal.prompt()
    terminal.child.sendintr()
    assert "Ctrl-C again leaves" in terminal.prompt()
    terminal.child.send("x")
    terminal.until("x")
    terminal.child.sendintr()
    terminal.prompt()
    terminal.child.sendintr()
    terminal.prompt()
    assert terminal.leave("\x03") == 0


def test_a_full_context_is_told_and_the_chat_goes_on(start: Start, larva: Path) -> None:
    terminal = start(larva, "--context", "256", "--max-tokens", "40")
    shown = terminal.prompt()
    for _ in range(6):
        terminal.say("What does the caterpillar say of wings and colours? " * 3)
        shown += terminal.prompt()
    assert "the context of 256 tokens is full: the 2 oldest turns are left out from now" in shown.replace("\r\n", "")
    assert shown.count("40 tokens") == 6
    terminal.say("wings " * 300)
    assert "error: the question has" in terminal.prompt()
    terminal.say("Still there?")
    assert "tuned> " in terminal.until(STATS)


@pytest.mark.parametrize("columns", [20, 200])
def test_without_colours_and_in_any_width_nothing_is_lost(columns: int, start: Start, larva: Path) -> None:
    arguments = (larva, "--max-tokens", "20", "--seed", "4", "--temperature", "0")
    terminal = start(*arguments, columns=columns, NO_COLOR="1")
    terminal.prompt()
    terminal.say("Who?")
    answer = terminal.until(STATS)
    terminal.prompt()
    assert not _COLOURS.search("".join(terminal.parts))
    done = subprocess.run([*PROGRAM, *map(str, arguments)], input="Who?\n", capture_output=True, text=True, check=True)
    said = re.search(r"tuned> (.*?)\r\n20 tokens", answer, re.DOTALL)
    assert said is not None
    assert said[1] == _shown(done.stdout.removesuffix("\n"))


def _shown(text: str) -> str:
    return "\t".join(printable(part, lines=True) for part in text.split("\t")).replace("\n", "\r\n")


def test_colours_tell_who_speaks(start: Start) -> None:
    terminal = start(*())
    terminal.prompt()
    terminal.say("Who?")
    terminal.until("tuned> ")
    assert "\x1b[32m\x1b[1mtuned> " in terminal.parts[-1]


def test_lines_are_remembered_for_the_user_alone(
    start: Start, larva: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = tmp_path / "cache/chat_history"
    for number in range(2):
        terminal = start(larva, "--max-tokens", "2", CHRYSALIS_CACHE=str(tmp_path / "cache"))
        terminal.prompt()
        if number:
            terminal.child.send("\x1b[A\x1b[A")  # the arrow up, twice
            terminal.until("first question")
            terminal.child.send("!\r")
            terminal.until(STATS)
            terminal.prompt()  # a Ctrl-D that comes before it is lost
        else:
            for line in ("first question", "/help"):
                terminal.say(line)
                terminal.prompt()
        assert terminal.leave() == 0
    assert history.read_text().splitlines() == ["first question", "/help", "first question!"]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_without_a_terminal_each_line_is_a_question_and_answers_alone_are_printed(larva: Path) -> None:
    command = [*PROGRAM, str(larva), "--max-tokens", "6", "--seed", "1", "--context", "256"]
    lines = "One?\n\n/help\nTh\xefrd\n".encode("latin-1")
    done = subprocess.run(command, input=lines, capture_output=True, check=True)
    again = subprocess.run(command, input=lines, capture_output=True, check=True)
    assert done.stdout == again.stdout
    assert done.stderr == b""
    assert len(done.stdout) > 12
    for mark in (b"\x1b", b"you>", b"tuned>", b"tokens/s"):
        assert mark not in done.stdout


def test_what_cannot_be_chatted_with_is_told_without_a_traceback(tmp_path: Path, larva: Path) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    for arguments, status, told in (
        ((tmp_path / "none.gguf",), 1, "there is no such GGUF file"),
        ((tmp_path,), 1, "this is not a run directory"),
        ((tmp_path / "text.gguf",), 1, "the file is not a GGUF"),
        ((larva, "--quantize", "Q2_K"), 2, "the run has no Q2_K file"),
        ((larva, "--backend", "tpu"), 2, "'tpu' is not one of"),
    ):
        done = subprocess.run([*PROGRAM, *map(str, arguments)], input="", capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (status, "")
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def test_the_adapter_in_mlx_says_what_the_gguf_says(larva: Path) -> None:
    options = ("--max-tokens", "12", "--temperature", "0")
    said = [
        subprocess.run(
            [*PROGRAM, str(larva), *options, *backend], input="Who?\n", capture_output=True, text=True
        ).stdout
        for backend in (("--quantize", "F32"), ("--backend", "mlx"))
    ]
    assert said[0] == said[1]
    assert len(said[0]) > 5


def test_what_a_model_says_is_shown_and_never_obeyed_by_the_terminal() -> None:
    """A random model does not say such things; the piece is shown as `chat` shows each."""
    script = r"from chrysalis_mlx.cli.chat.screen import show; show('a\x1b[31m\x07b\u202ec\td\n' + 'e\rf')"
    child = pexpect.spawn(sys.executable, ["-c", script], encoding="utf-8", timeout=60, env=_environment({}))
    child.expect(pexpect.EOF)
    child.close()
    assert child.before == "a\\x1b[31m\\x07b\\u202ec\td\r\ne\\rf"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == "a\x1b[31m\x07b\u202ec\td\ne\rf".encode()
