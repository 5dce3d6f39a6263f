"""How every command behaves: its help, its JSON, and what it writes where nobody looks at a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pexpect
import pytest

from chrysalis_mlx.cli import COMMANDS, group, load_command, main
from chrysalis_mlx.cli.output import json_option, print_json
from chrysalis_mlx.errors import BlueprintError, ChrysalisError, RunError, UsageError
from tests.end_to_end.inputs import call, origin, write_inputs

WIDTH = 110
WITHOUT_JSON = {
    "chat": "a conversation; `generate --json` answers one prompt",
    "serve": "it answers in JSON over HTTP",
    "completion": "a shell reads what it prints",
}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*[349][0-9](?:;[0-9]+)*m")


def everything() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Name, command and context of every command and group."""
    settings = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    root = click.Context(group, info_name="chrysalis-mlx", help_option_names=["-h", "--help"], **settings)  # type: ignore[arg-type]
    yield "", group, root
    waiting = [(name, load_command(name), root) for name in COMMANDS]
    for name, command, parent in waiting:
        context = click.Context(command, parent=parent, info_name=name.split()[-1], **settings)  # type: ignore[arg-type]
        yield name, command, context
        if isinstance(command, click.Group):
            waiting += [(f"{name} {child}", found, context) for child, found in command.commands.items()]


ALL = list(everything())


@pytest.mark.parametrize(("name", "command", "context"), ALL, ids=[name or "chrysalis-mlx" for name, _, _ in ALL])
def test_every_command_explains_itself(name: str, command: click.Command, context: click.Context) -> None:
    text = command.get_help(context)
    assert re.search(rf"\n  Examples?:\n    .*chrysalis-mlx {name}".rstrip(), text), "its help needs an example"
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    options = [param for param in command.params if isinstance(param, click.Option)]
    assert [option.name for option in options if not option.help] == []
    # A sentence, so that they read alike.
    assert [option.help for option in options if option.help and option.help[-1] not in ".;:"] == []


@pytest.mark.parametrize(
    ("name", "command"), [(name, command) for name, command, _ in ALL if not isinstance(command, click.Group)]
)
def test_every_command_reports_as_json(name: str, command: click.Command) -> None:
    has = any("--json" in param.opts for param in command.params)
    assert has is (name not in WITHOUT_JSON)


def test_the_exceptions_are_commands() -> None:
    assert set(WITHOUT_JSON) <= {name for name, _, _ in ALL}


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception, object], None]:
    """Makes `runs` a command that prints a report, if there is one, and then fails."""

    def replace(error: Exception, report: object = None) -> None:
        @click.command()
        @json_option
        def command(as_json: bool) -> None:
            if report is not None and as_json:
                print_json(report)
            raise error

        monkeypatch.setattr(sys.modules[__name__], "replaced", command, raising=False)
        monkeypatch.setitem(COMMANDS, "runs", (f"{__name__}:replaced", "fails"))

    return replace  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (
            RunError("no run", where=Path("x"), fix="name one"),
            1,
            {"kind": "RunError", "what": "no run", "where": "x", "fix": "name one"},
        ),
        (ChrysalisError("no"), 1, {"kind": "ChrysalisError", "what": "no", "where": None, "fix": None}),
        (UsageError("both"), 2, {"kind": "UsageError", "what": "both", "where": None, "fix": None}),
        (
            BlueprintError("two", ["a: 1", "b: 2"]),
            1,
            {"kind": "BlueprintError", "what": "two", "where": None, "fix": None, "problems": ["a: 1", "b: 2"]},
        ),
        (
            PermissionError(13, "Permission denied", "/x"),
            1,
            {"kind": "PermissionError", "what": "Permission denied", "where": "/x", "fix": None},
        ),
        (
            FileNotFoundError(2, "No such file or directory", b"/x"),
            1,
            {"kind": "FileNotFoundError", "what": "No such file or directory", "where": "/x", "fix": None},
        ),
        (OSError("odd"), 1, {"kind": "OSError", "what": "odd", "where": None, "fix": None}),
    ],
)
def test_an_error_with_json(
    fails: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
    told: dict[str, object],
) -> None:
    fails(error)
    assert call(capfd, "runs")[:2] == (status, "")
    found, out, err = call(capfd, "runs", "--json")
    assert (found, json.loads(out)) == (status, {"error": told})
    assert err.startswith("error: ")
    fails(error, {"it": "is reported"})
    found, out, _ = call(capfd, "runs", "--json")
    assert (found, json.loads(out)) == (status, {"it": "is reported"})


def test_wrong_usage_and_ctrl_c_print_nothing_on_standard_output(
    fails: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(capfd, "runs", "--json", "--nonsense")[:2] == (2, "")
    fails(click.UsageError("not so"))
    assert call(capfd, "runs", "--json")[:2] == (2, "")
    fails(click.Abort())
    assert call(capfd, "runs", "--json")[:2] == (130, "")


def test_an_error_that_nobody_reads(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "chrysalis_mlx", "train", str(tmp_path), "--json"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr.startswith("error: this is not a run directory\n")
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_one_call_does_not_remember_another(fails: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    fails(RunError("no"))
    assert call(capfd, "runs", "--json")[1] != ""
    assert call(capfd, "runs")[1] == ""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A genome, a blueprint, and a run with a corpus."""
    folder = tmp_path_factory.mktemp("manners")
    write_inputs(folder)
    assert main(["corpus", str(folder / "run"), *origin(folder, tiny_model), "--json"]) == 0
    return folder


def environment(**own: str) -> dict[str, str]:
    """This process's own, on a terminal with colours and without wishes."""
    dropped = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "PYTHONIOENCODING")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **own}


def redirected(place: Path, *arguments: str, **own: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chrysalis_mlx", *arguments],
        cwd=place,
        env=environment(PYTHONPATH=str(Path(__file__).parents[2]), **own),
        capture_output=True,
        text=True,
        check=False,
    )


def on_a_terminal(place: Path, *arguments: str, **own: str) -> str:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "chrysalis_mlx", *arguments],
        cwd=str(place),
        env=environment(PYTHONPATH=str(Path(__file__).parents[2]), **own),  # type: ignore[arg-type]
        dimensions=(50, 120),
        encoding="utf-8",
        timeout=120,
    )
    child.expect(pexpect.EOF)
    child.close()
    assert child.before is not None
    assert child.exitstatus == 0, child.before
    return child.before


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("blueprint", "list"),
        ("blueprint", "show", "tiny"),
        ("corpus", "show", "run"),
        ("genome", "show", "genome.txt"),
        ("runs", "."),
        ("completion", "bash"),
    ],
    ids=" ".join,
)
def test_redirected_output_is_plain(place: Path, arguments: tuple[str, ...]) -> None:
    done = redirected(place, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert not CONTROL.search(done.stdout)


def test_a_redirected_error_is_plain(place: Path) -> None:
    done = redirected(place, "train", "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert not CONTROL.search(done.stderr)


def test_progress_of_a_training_is_a_few_plain_lines(place: Path) -> None:
    done = redirected(place, "train", "run", "--backend", "mlx")
    assert done.returncode == 0, done.stderr
    assert not CONTROL.search(done.stdout + done.stderr)
    lines = done.stderr.splitlines()
    assert 0 < len(lines) < 20
    assert any(re.match(r"training: 6/6 \(100%\)  ", line) for line in lines)


@pytest.mark.parametrize(
    ("own", "colours", "escapes"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, False, True),  # bold is no colour
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_colours_on_a_terminal(place: Path, own: dict[str, str], colours: bool, escapes: bool) -> None:
    written = on_a_terminal(place, "corpus", "show", "run", "--rows", "1", **own)
    assert "⟦" in written
    assert bool(COLOUR.search(written)) is colours
    assert ("\x1b" in written) is escapes


def test_a_dumb_terminal_gets_lines_and_no_bar() -> None:
    code = (
        "import sys; from chrysalis_mlx.cli.output import progress\n"
        "with progress('counting', 10, unit='x') as bar:\n    [bar.update() for _ in range(10)]\n"
    )
    for kind, moves in (("dumb", False), ("xterm", True)):
        child = pexpect.spawn(sys.executable, ["-c", code], env=environment(TERM=kind), encoding="utf-8", timeout=60)  # type: ignore[arg-type]
        child.expect(pexpect.EOF)
        child.close()
        assert child.before is not None
        assert "counting" in child.before
        assert ("counting: 10/10 (100%)" in child.before) is not moves
        assert ("\x1b" in child.before) is moves


def test_colours_by_force_leave_json_alone(place: Path) -> None:
    assert COLOUR.search(redirected(place, "corpus", "show", "run", "--rows", "1", FORCE_COLOR="1").stdout)
    done = redirected(place, "corpus", "show", "run", "--rows", "1", "--json", FORCE_COLOR="1")
    assert json.loads(done.stdout)["side"] == "train"
    assert not CONTROL.search(done.stdout)


def test_a_terminal_that_has_not_all_characters(place: Path) -> None:
    done = redirected(place, "corpus", "show", "run", "--rows", "1", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u27e6" in done.stdout
    report = redirected(place, "corpus", "show", "run", "--rows", "1", "--json", PYTHONIOENCODING="ascii")
    assert json.loads(report.stdout)["samples"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_input_and_output_are_no_bug(closed: str, tmp_path: Path) -> None:
    program = f"{sys.executable} -m chrysalis_mlx"
    for arguments, status in (("blueprint list", 0), (f"chat {tmp_path}", 1), (f"runs {tmp_path}", 0)):
        done = subprocess.run(["bash", "-c", f"{program} {arguments} {closed}"], capture_output=True, text=True)
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
