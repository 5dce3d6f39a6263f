"""chrysalis-mlx doctor: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from chrysalis_mlx.cli.output import json_option, out, print_json, printable, say
from chrysalis_mlx.report.words import plural

if TYPE_CHECKING:
    from chrysalis_mlx.doctor.check import Check

_SIGNS = {"ok": ("✓", "+", "green"), "warning": ("!", "!", "yellow"), "problem": ("✗", "x", "red")}


@click.command(name="doctor")
@click.option("--offline", is_flag=True, help="Ask nothing of the network.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long one check may take.",
)
@json_option
@click.pass_context
def command(ctx: click.Context, offline: bool, timeout: float, as_json: bool) -> None:
    """Examine this machine: what works, what does not, and what to do about it.

    Python and packages, MLX and its compiler, torch, llama.cpp, memory, disks, git, Ollama and the Hugging Face Hub.
    Exit status 1 when there is a problem; a warning is none.

    \b
    Examples:
      chrysalis-mlx doctor
      chrysalis-mlx doctor --offline --json
    """
    from chrysalis_mlx.doctor.examine import CHECKS, examine

    width = max(map(len, CHECKS))
    checks = []
    for check in examine(offline=offline, limit=timeout):
        checks.append(check)
        if not as_json:
            _show(check, width)
    problems = [check for check in checks if check.status == "problem"]
    if as_json:
        print_json({"checks": [dataclasses.asdict(check) for check in checks], "ok": not problems})
    else:
        _show_fixes(checks)
    if problems:
        ctx.exit(1)


def _show(check: Check, width: int) -> None:
    from rich.text import Text

    console = out()
    sign, plain, colour = _SIGNS[check.status]
    mark = Text(f"{sign if console.encoding.startswith('utf') else plain} {check.status:7}", style=colour)
    console.print(Text.assemble(mark, f"  {check.name:{width}}  {printable(check.found)}"), soft_wrap=True)


def _show_fixes(checks: list[Check]) -> None:
    to_mend = [check for check in checks if check.fix]
    if to_mend:
        say("", "to do:", *(f"  {check.name}: {check.fix}" for check in to_mend))
    counts = {status: sum(check.status == status for check in checks) for status in _SIGNS}
    many = {"ok": "ok", "warning": "warnings", "problem": "problems"}
    say("", ", ".join(plural(count, status, many[status]) for status, count in counts.items() if count))
