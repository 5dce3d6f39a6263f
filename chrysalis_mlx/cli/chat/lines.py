"""A chat without a terminal: each line of standard input is a question, each answer goes to standard output."""

from __future__ import annotations

import sys

import click

from chrysalis_mlx.cli.chat.screen import show
from chrysalis_mlx.inference.chat import Chat


def answer_lines(chat: Chat) -> None:
    """Answer to the end of the input; blank lines are passed over. A line is a question even if it begins with "/".

    Raises:
        ChrysalisError: a question cannot be answered.
    """
    for line in sys.stdin.buffer:
        question = line.decode("utf-8", "replace").strip()
        if question:
            for piece in chat.ask(question):
                show(piece.text)
            click.echo()
