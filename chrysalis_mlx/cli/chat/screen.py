"""What a chat shows: labels and notes in colour where the terminal has some, and a model's text as it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial

import click

from chrysalis_mlx.cli.output import printable
from chrysalis_mlx.report.words import visible

_LOOKS: dict[str, Callable[[str], str]] = {
    "you": partial(click.style, bold=True),
    "tuned": partial(click.style, bold=True, fg="green"),
    "base": partial(click.style, bold=True, fg="yellow"),
    "model": partial(click.style, bold=True, fg="green"),
    "note": partial(click.style, dim=True),
    "error": partial(click.style, fg="red"),
}


def styled(text: str, look: str) -> str:
    """A text in one of the looks; plain where NO_COLOR is set or the terminal knows no colours."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "dumb") == "dumb"
    return text if plain else _LOOKS[look](text)


def show(text: str) -> None:
    """A piece of a model's text on standard output, at once; what a terminal would obey is escaped."""
    if sys.stdout.isatty():
        text = visible(text)  # with its tabs: they move the cursor and no more, and code without them is another code
    # Bytes: of a text, click takes away what looks like a colour where it writes to a file.
    click.echo(text.encode("utf-8", "replace"), nl=False)


def note(text: str) -> None:
    """A sentence for the user on standard error."""
    click.echo(styled(printable(text, lines=True), "note"), err=True)


def complain(error: Exception) -> None:
    """An error on standard error, after which the chat goes on."""
    click.echo(styled("error: ", "error") + printable(str(error), lines=True), err=True)
