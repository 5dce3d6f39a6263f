"""The frame of the command line: what --help imports, the exit statuses, how output looks."""

import json
import os
import resource
import subprocess
import sys

import click
import pytest

from chrysalis_mlx import __version__
from chrysalis_mlx.cli import COMMANDS, load_command, main
from chrysalis_mlx.cli.output import json_option, out, print_json, progress, table
from chrysalis_mlx.errors import ChrysalisError, RunError, UsageError
from chrysalis_mlx.progress import Progress

HEAVY = ("mlx", "mlx_lm", "torch", "numpy", "transformers", "peft", "gguf", "tokenizers", "huggingface_hub", "yaml")


def interpreter(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | int]:
    """Makes `grow` a command that raises, or returns, what a test puts here."""
    what: list[BaseException | int] = []

    @click.command()
    @click.argument("run", default="")
    def command(run: str) -> int:
        if isinstance(what[0], int):
            click.get_current_context().exit(what[0])
        raise what[0]

    monkeypatch.setattr(sys.modules[__name__], "grow", command, raising=False)
    monkeypatch.setitem(COMMANDS, "grow", (f"{__name__}:grow", COMMANDS["grow"][1]))
    return what


def test_help_imports_no_command_and_no_framework() -> None:
    code = "import sys; from chrysalis_mlx.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = interpreter(code)
    modules = set(done.stderr.split())
    assert modules.isdisjoint(HEAVY)
    assert {name for name in modules if name.startswith("chrysalis_mlx")} == {
        "chrysalis_mlx",
        "chrysalis_mlx.cli",
        "chrysalis_mlx.errors",
    }
    for name, (_, help_line) in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert help_line in done.stdout


def test_help_takes_less_than_three_tenths_of_a_second() -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "chrysalis_mlx", "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Processor time and the best of three: what else the computer does is not measured.
    assert min(seconds() for _ in range(3)) < 0.3


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there_and_shows_its_help(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert isinstance(load_command(name), click.Command)
    assert main([name, "--help"]) == 0
    assert f"Usage: chrysalis-mlx {name}" in capfd.readouterr().out


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"chrysalis-mlx, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["genom"], "No such command 'genom'"),
        (["--nonsense"], "No such option"),
        (["genome", "diff"], "Missing argument"),
    ],
)
def test_usage_is_status_2(arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capfd.readouterr()
    assert words in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "status"),
    [(ChrysalisError("x"), 1), (RunError("x"), 1), (UsageError("x"), 2), (KeyboardInterrupt(), 130), (3, 3), (0, 0)],
)
def test_exit_statuses(calls: list[BaseException | int], error: BaseException | int, status: int) -> None:
    calls.append(error)
    assert main(["grow"]) == status


def test_error_is_shown_whole_and_without_traceback(
    calls: list[BaseException | int], capfd: pytest.CaptureFixture[str]
) -> None:
    path = "/a/[bold]/" + "long/" * 40
    calls.append(RunError("it is [red]wrong[/red]", where=path, fix="try [again]"))
    main(["grow"])
    captured = capfd.readouterr()
    assert captured.err == f"error: it is [red]wrong[/red]\n  where: {path}\n  to do: try [again]\n"
    assert captured.out == ""


@pytest.mark.parametrize("arguments", [["-v", "grow"], ["grow", "-v"]])
def test_verbose_shows_the_traceback_too(
    calls: list[BaseException | int], arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    calls.append(RunError("wrong"))
    assert main(arguments) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "error: wrong"


def test_interrupt_says_how_to_go_on(calls: list[BaseException | int], capfd: pytest.CaptureFixture[str]) -> None:
    calls.append(KeyboardInterrupt())
    main(["grow"])
    assert capfd.readouterr().err.strip() == "interrupted; run the same command again to go on"


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), EOFError("a file ended")])
def test_a_bug_keeps_its_traceback(calls: list[BaseException | int], error: BaseException) -> None:
    calls.append(error)
    with pytest.raises(type(error), match=str(error)):
        main(["grow"])


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from chrysalis_mlx.cli import main; sys.exit(main(['--help']))"
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.stderr == b""
    assert done.returncode == 1


def test_json_is_one_object_in_utf8(capfd: pytest.CaptureFixture[str]) -> None:
    @click.command()
    @json_option
    def command(as_json: bool) -> None:
        assert as_json
        print_json({"text": "ä [red]", "infinite": [float("inf"), 1.5], "nan": {"x": float("nan")}})

    command.main(["--json"], standalone_mode=False)
    printed = capfd.readouterr().out
    assert json.loads(printed) == {"text": "ä [red]", "infinite": [None, 1.5], "nan": {"x": None}}
    assert "ä" in printed


def test_table_shows_cells_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    out().print(table("name", ">bytes", rows=[("[red]x", 1234567)]))
    lines = capfd.readouterr().out.splitlines()
    assert lines[-2].split() == ["[red]x", "1,234,567"]
    assert "\x1b" not in "".join(lines)


def test_progress_in_a_log_is_a_few_lines(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    clock = iter(range(100_000))
    monkeypatch.setattr("chrysalis_mlx.cli.output.time.monotonic", lambda: float(next(clock)))
    show: Progress = progress
    with show("training", 1000) as bar:
        for step in range(1000):
            bar.update(loss=step / 7)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("training: 100/1000 (10%)")
    assert lines[0].endswith("left  loss 14.14")
    assert lines[-1].startswith("training: 1000/1000 (100%)")
    assert lines[-1].endswith("loss 142.7")


def test_resumed_progress_counts_its_rate_from_where_it_resumed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("chrysalis_mlx.cli.output.time.monotonic", iter([0.0, 10.0, 10.0]).__next__)
    with progress("training", 100, completed=80, unit="step") as bar:
        bar.update(advance=20)
    assert capfd.readouterr().err == "training: 100/100 (100%)  2 step/s\n"


def test_quiet_progress_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("training", 1, quiet=True) as bar:
        bar.update()
    assert capfd.readouterr().err == ""
