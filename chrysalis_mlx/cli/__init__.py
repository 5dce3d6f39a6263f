"""The command line: parse, call a stage, print. No maths and no format knowledge live here.

This module holds the frame: the table of commands, which are imported only when they are called, and the exit statuses.

    0    fine
    1    failed: a ChrysalisError or an OSError, printed without its traceback unless -v is given
    2    usage: unknown option, missing argument, options that contradict each other
    130  interrupted with Ctrl-C; what was finished is kept

With --json a command that fails prints {"error": {"kind", "what", "where", "fix"}} on standard output, unless it has
printed its report already; wrong usage that click finds, and Ctrl-C, print nothing there.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click

from chrysalis_mlx import __version__
from chrysalis_mlx.errors import BlueprintError, ChrysalisError

COMMANDS: dict[str, tuple[str, str]] = {
    "grow": ("chrysalis_mlx.cli.grow:command", "Run every stage in order; run again, skip what is done."),
    "genome": ("chrysalis_mlx.cli.genome:command", "Build a genome from repositories, or show one."),
    "blueprint": (
        "chrysalis_mlx.cli.blueprint:command",
        "List, match, copy, show or check blueprints.",
    ),
    "import": ("chrysalis_mlx.cli.import_:command", "Turn a GGUF file into a Hugging Face model directory."),
    "corpus": ("chrysalis_mlx.cli.corpus:command", "Make the training texts of a run, or look at them."),
    "plan": ("chrysalis_mlx.cli.plan:command", "Tell what a training will take, before it is begun."),
    "train": ("chrysalis_mlx.cli.train:command", "Train the adapter on the corpus."),
    "eval": ("chrysalis_mlx.cli.eval:command", "Measure the base and the tuned model on the test texts."),
    "fuse": ("chrysalis_mlx.cli.fuse:command", "Merge an adapter and write GGUF files, verified in llama.cpp."),
    "lineage": ("chrysalis_mlx.cli.lineage:command", "Tell what a GGUF or a run was made from, and prove it."),
    "chat": ("chrysalis_mlx.cli.chat:command", "Talk to the exported model, or to any GGUF."),
    "generate": ("chrysalis_mlx.cli.generate:command", "Answer a prompt with the exported model."),
    "serve": ("chrysalis_mlx.cli.serve:command", "Serve the exported model over OpenAI's API, here."),
    "report": ("chrysalis_mlx.cli.report:command", "Show a run, or compare runs, as one HTML page."),
    "push": ("chrysalis_mlx.cli.push:command", "Send a run's files to the Hugging Face Hub."),
    "runs": ("chrysalis_mlx.cli.runs:command", "List runs: how far they are, and why some failed."),
    "doctor": ("chrysalis_mlx.cli.doctor:command", "Examine this machine, and say what to mend."),
    "completion": ("chrysalis_mlx.cli.completion:command", "Print what lets a shell complete the commands."),
}
"""Name -> ("module:attribute", one line of help), in the order of the pipeline. Reading it imports nothing."""


@dataclass
class Settings:
    """What holds for a call of any command (`click.pass_obj`).

    Attributes:
        verbose: `-v` was given.
        as_json: `--json` was given.
        reported: the one JSON object is printed.
    """

    verbose: bool = False
    as_json: bool = False
    reported: bool = False


class LazyGroup(click.Group):
    """A group whose commands are known by name and help line, and imported only when one is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, known, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name and known else None, rest


def load_command(name: str) -> click.Command:
    """Import the command called `name` in `COMMANDS`; it takes `-v` wherever the user writes it."""
    module, attribute = COMMANDS[name][0].split(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    _accept_verbose(command)
    return command


def _set_verbose(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).verbose = True
        logging.basicConfig(format="%(name)s: %(message)s")
        # Our own talk only: the libraries' INFO lines (every HTTP request, for one) would bury it.
        logging.getLogger("chrysalis_mlx").setLevel(logging.INFO)


def _verbose_option(hidden: bool) -> click.Option:
    return click.Option(
        ["-v", "--verbose"],
        is_flag=True,
        hidden=hidden,
        expose_value=False,
        is_eager=True,
        callback=_set_verbose,
        help="Say more, and show the traceback of an error.",
    )


def _accept_verbose(command: click.Command) -> None:
    if not any("-v" in parameter.opts for parameter in command.params):
        command.params.append(_verbose_option(hidden=True))
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _accept_verbose(child)


@click.group(
    "chrysalis-mlx",
    cls=LazyGroup,
    commands={name: click.Command(name, help=help_line) for name, (_, help_line) in COMMANDS.items()},
    params=[_verbose_option(hidden=False)],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="chrysalis-mlx")
def group() -> None:
    """From a set of repositories to a small language model that runs in Ollama or llama.cpp.

    "grow" does everything; the other commands are its stages, one by one, and what looks at them.

    \b
    Examples:
      chrysalis-mlx doctor
      chrysalis-mlx grow runs/first --genome g.txt.xz --model Qwen/Qwen3-0.6B
      chrysalis-mlx chat runs/first
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status (see the module).

    Args:
        argv: the arguments after the program's name; None takes them from `sys.argv`.
    """
    settings = Settings()
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has not all characters is no reason to fail
    try:
        status = group.main(
            args=None if argv is None else list(argv), prog_name="chrysalis-mlx", standalone_mode=False, obj=settings
        )
        # Here, so that a reader who went away is met below and not while the interpreter closes.
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__, EOFError):
            # click takes an EOFError for Ctrl-D at a prompt. There are no prompts here: a file ended too early.
            raise error.__cause__ from None
        click.echo("interrupted; run the same command again to go on", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ChrysalisError as error:
        _print_error(error, settings)
        return error.exit_status
    except BrokenPipeError:
        _close_output()
        return 1
    except OSError as error:  # a full disk, no permission, a file where a directory should be: the machine, not a bug
        _print_error(error, settings)
        return 1


def _open_what_is_closed() -> None:
    """Whoever started the program may have closed its input or output (`>&-`): then Python has None there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def _print_error(error: ChrysalisError | OSError, settings: Settings) -> None:
    from rich.text import Text

    from chrysalis_mlx.cli.output import console, print_json, printable

    if settings.verbose:
        import traceback

        traceback.print_exception(error)
    # Text, not markup: a path or a value may hold square brackets. soft_wrap keeps a path in one piece.
    console().print(Text.assemble(("error: ", "red"), printable(str(error), lines=True)), soft_wrap=True)
    if settings.as_json and not settings.reported:
        try:
            print_json({"error": _described(error)})
        except BrokenPipeError:
            _close_output()


def _close_output() -> None:
    """The reader (`| head`) has what it wanted. Python would complain again at its last flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _described(error: ChrysalisError | OSError) -> dict[str, object]:
    kind = type(error).__name__
    if isinstance(error, OSError):
        where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else None
        return {"kind": kind, "what": error.strerror or str(error), "where": where, "fix": None}
    told: dict[str, object] = {"kind": kind, "what": error.what, "where": error.where, "fix": error.fix}
    return told | {"problems": list(error.problems)} if isinstance(error, BlueprintError) else told
