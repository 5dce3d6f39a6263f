"""What the commands print: reports on standard output, progress and errors on standard error."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from chrysalis_mlx.cli import Settings
from chrysalis_mlx.progress import Bar
from chrysalis_mlx.report.words import visible

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """Add `--json` to a command, as its parameter `as_json`."""
    help = "Print one JSON object and nothing else."
    return click.option("--json", "as_json", is_flag=True, callback=_remember_json, help=help)(function)


def _remember_json(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    ctx.ensure_object(Settings).as_json = value
    return value


def print_json(value: object) -> None:
    """Print one JSON object on standard output.

    Paths become strings; infinities and NaN become null, because JSON has no word for them.
    """
    text = json.dumps(_finite(value), ensure_ascii=False, indent=2, allow_nan=False, default=os.fspath)
    # Bytes: the encoding of the terminal has no say in a report that a program reads.
    click.echo(text.encode("utf-8", "surrogateescape"))
    if ctx := click.get_current_context(silent=True):
        ctx.ensure_object(Settings).reported = True


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def console() -> Console:
    """The console on standard error, for people: progress, notes, errors."""
    return Console(stderr=True, highlight=False)


def out() -> Console:
    """The console on standard output, for reports; plain text when it is not a terminal."""
    return Console(highlight=False)


def printable(text: str, *, lines: bool = False) -> str:
    """Text of a stranger, such as a file's name, that a terminal shows and does not obey: escapes as in "\\x1b".

    Args:
        lines: keep line breaks.
    """
    return visible(text, "\n" if lines else "")


def say(*lines: str) -> None:
    """Print each line whole on standard output, as it is and never read as markup; what a terminal obeys is escaped."""
    for line in lines:
        out().print(Text(printable(line)), soft_wrap=True)


def table(*columns: str, rows: Sequence[Sequence[object]], title: str | None = None) -> Table:
    """A table whose number columns stand to the right.

    Args:
        columns: the headings; one that begins with ">" is aligned to the right.
        rows: the cells, top to bottom, never read as markup, `printable`; integers get thousands separators.
        title: a line above the table.
    """
    result = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="", pad_edge=False)
    for column in columns:
        # Folded, not cut: half a path is of no use to anyone.
        result.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    for row in rows:
        result.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else printable(str(cell))) for cell in row))
    return result


class _Silent:
    def update(self, advance: float = 1, **fields: object) -> None:
        """Show nothing."""


class _Amount(ProgressColumn):
    """How much of how much; in percent where the numbers would take half of the line."""

    def render(self, task: Task) -> Text:
        if task.total is not None and task.total >= 1e6:
            return Text(f"{task.percentage:.0f}%", style="progress.download")
        return Text(
            f"{task.completed:.12g}/{'?' if task.total is None else f'{task.total:.12g}'}", style="progress.download"
        )


class _Bar:
    def __init__(self, bar: Progress, description: str, total: float | None, completed: float, unit: str) -> None:
        self._bar, self._unit = bar, unit
        self._task = bar.add_task(description, total=total, rate="", shown="")
        bar.update(self._task, completed=completed)

    def update(self, advance: float = 1, **fields: object) -> None:
        task = self._bar.tasks[0]
        self._bar.update(
            self._task,
            advance=advance,
            shown=_show(fields) if fields else task.fields["shown"],
            rate=_rate(task.speed, self._unit) if task.speed else "",
        )


class _Lines:
    """One line at each tenth of the way: a log keeps the story and is not flooded."""

    def __init__(self, console: Console, description: str, total: float | None, completed: float, unit: str) -> None:
        self._console, self._description, self._total, self._unit = console, description, total, unit
        self._first = self._done = completed
        self._fields: dict[str, object] = {}
        self._start = self._printed = time.monotonic()

    def update(self, advance: float = 1, **fields: object) -> None:
        before, self._done = self._done, self._done + advance
        self._fields |= fields
        since = time.monotonic() - self._printed
        if self._total:
            finished = before < self._total <= self._done
            tenth = int(10 * before / self._total) < int(10 * self._done / self._total)
            if finished or (tenth and since >= 1):
                self._print()
        elif since >= 30:
            self._print()

    def _print(self) -> None:
        now = time.monotonic()
        self._printed = now
        rate = (self._done - self._first) / max(now - self._start, 1e-9)
        parts = [f"{self._description}: {self._done:.12g}"]
        if self._total:
            parts = [f"{parts[0]}/{self._total:.12g} ({self._done / self._total:.0%})"]
        parts.append(_rate(rate, self._unit))
        if self._total and rate > 0 and self._done < self._total:
            parts.append(f"{duration((self._total - self._done) / rate)} left")
        self._console.print("  ".join([*parts, _show(self._fields)]).rstrip(), markup=False, soft_wrap=True)


@contextmanager
def progress(
    description: str, total: float | None, *, completed: float = 0, unit: str = "", quiet: bool = False
) -> Iterator[Bar]:
    """Show how far long work has come, how fast it goes and how long it will take, on standard error.

    On a terminal this is a bar; elsewhere, and where TERM is "dumb", it is at most one line for each tenth of the work.

    Args:
        description: what is being done ("training").
        total: how much there is to do, in `unit`; None when nobody knows.
        completed: how much was done before (a resumed run); it counts for the bar and not for the rate.
        unit: what is counted ("step", "token"), shown in the rate.
        quiet: show nothing.
    """
    if quiet:
        yield _Silent()
    elif sys.stderr.isatty() and not console().is_dumb_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            _Amount(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}", markup=False),
        )
        with Progress(*columns, console=console()) as bar:
            yield _Bar(bar, description, total, completed, unit)
    else:
        yield _Lines(console(), description, total, completed, unit)


def _show(fields: dict[str, object]) -> str:
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {printable(str(value))}"
        for name, value in fields.items()
    )


def _rate(per_second: float, unit: str) -> str:
    number = f"{per_second:.3g}" if per_second < 1000 else f"{per_second:,.0f}"
    return f"{number} {unit}/s" if unit else f"{number}/s"


def duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
