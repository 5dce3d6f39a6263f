"""A chat at a terminal: questions are typed, answers stream, Ctrl-C stops an answer and not the program."""

from __future__ import annotations

import time
from contextlib import closing

import click

from chrysalis_mlx.cli.chat.commands import NAMES, Commands
from chrysalis_mlx.cli.chat.editor import Editor
from chrysalis_mlx.cli.chat.screen import complain, note, show, styled
from chrysalis_mlx.cli.output import console
from chrysalis_mlx.errors import ChrysalisError
from chrysalis_mlx.inference.chat import Chat
from chrysalis_mlx.llamacpp.server import Piece
from chrysalis_mlx.models.source import cache_directory

_ENDS = {"limit": "cut at --max-tokens", "context": "cut: the context is full"}


def converse(chat: Chat) -> None:
    """Talk until the user leaves.

    Raises:
        ChrysalisError: the model cannot be loaded.
    """
    with console().status("loading the model"):
        chat.load()
    note(f"{chat.speaker.what}\n/help lists the commands, Ctrl-D leaves")
    commands = Commands(chat)
    with Editor(cache_directory() / "chat_history", NAMES) as editor:
        while (line := _read(editor)) is not None:
            if not line.strip():
                continue
            try:
                if line.split()[0] == "/exit" and not line[0].isspace():
                    return
                question = commands.obey(line) if line.startswith("/") else line.strip()
                if question is not None:
                    _answer(chat, question)
            except (ChrysalisError, OSError) as error:
                complain(error)
            except KeyboardInterrupt:  # of a command that takes time
                note("stopped")


def _read(editor: Editor) -> str | None:
    """What the user types; None: to leave. Ctrl-C clears the line, and leaves when there is none, twice in a row."""
    lines: list[str] = []
    asked_to_leave = False
    while True:
        try:
            line = editor.read(styled("...> " if lines else "you> ", "you"))
        except EOFError:
            click.echo()
            return None
        except KeyboardInterrupt:
            click.echo()
            if lines or editor.typed():
                lines, asked_to_leave = [], False
                continue
            if asked_to_leave:
                return None
            asked_to_leave = True
            note("Ctrl-C again leaves, as Ctrl-D does")
            continue
        except UnicodeDecodeError:
            note("that was no UTF-8; nothing was sent")
            continue
        if not line.endswith("\\"):
            # What a terminal sends that is no text, such as half a character, would be refused.
            return "\n".join([*lines, line]).encode("utf-8", "replace").decode()
        lines.append(line[:-1])


def _answer(chat: Chat, question: str) -> None:
    """Show an answer as it comes, and how fast it came."""
    click.echo(styled(f"{chat.speaker.name}> ", chat.speaker.name), nl=False)
    last, begun, said = None, 0.0, ""
    try:
        with closing(chat.ask(question)) as pieces:  # closed by Ctrl-C too, which stops the model
            for piece in pieces:
                begun = begun or time.perf_counter()
                last, said = piece, said + piece.text
                show(piece.text)
    except KeyboardInterrupt:
        click.echo()
        note("stopped" if said else "stopped; nothing was said, and the question is forgotten")
        return
    except (ChrysalisError, OSError):
        click.echo()
        raise
    if not said.endswith("\n"):
        click.echo()
    if last is not None:
        note(_told(last, time.perf_counter() - begun))


def _told(last: Piece, seconds: float) -> str:
    """How much was said and how fast, without the time before the first token."""
    parts = [f"{last.tokens} token{'' if last.tokens == 1 else 's'}"]
    if last.tokens > 1 and seconds > 0:
        rate = (last.tokens - 1) / seconds
        parts.append(f"{rate:.0f} tokens/s" if rate >= 10 else f"{rate:.1f} tokens/s")
    if last.finish in _ENDS:
        parts.append(_ENDS[last.finish])
    return ", ".join(parts)
