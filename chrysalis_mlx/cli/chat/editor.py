"""Lines that are typed at a terminal: edited, completed and remembered by readline where Python has it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_REMEMBERED = 1000
_ESCAPE = re.compile(r"(\x1b\[[0-9;]*m)")


def _find_readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:
        return None
    return readline


class Editor:
    """Reads lines; a context manager that remembers them in a file which the user alone may read.

    Args:
        history: the file.
        words: what the tabulator completes.
    """

    def __init__(self, history: Path, words: Sequence[str]) -> None:
        self._history, self._words = history, words
        self._readline = _find_readline()
        self._is_libedit = "libedit" in (getattr(self._readline, "__doc__", None) or "")

    def __enter__(self) -> Editor:
        if self._readline is not None:
            self._readline.set_completer(self._complete)
            self._readline.set_completer_delims(" \n")
            self._readline.parse_and_bind("bind ^I rl_complete" if self._is_libedit else "tab: complete")
            self._readline.set_history_length(_REMEMBERED)
            with contextlib.suppress(OSError):  # none yet, or another library's
                self._readline.read_history_file(self._history)
        return self

    def __exit__(self, *_: object) -> None:
        if self._readline is not None:
            with contextlib.suppress(OSError):  # a full or read-only disk: the talk is over all the same
                self._history.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self._history, os.O_WRONLY | os.O_CREAT, 0o600))
                self._readline.write_history_file(self._history)
                self._history.chmod(0o600)
            self._readline.set_completer(None)

    def read(self, prompt: str) -> str:
        """One line, or several that were pasted together.

        Raises:
            EOFError, KeyboardInterrupt: Ctrl-D, Ctrl-C.
            UnicodeDecodeError: something else than UTF-8 was typed.
        """
        if self._is_libedit:
            prompt = _ESCAPE.sub("", prompt)
        elif self._readline is not None:
            prompt = _ESCAPE.sub("\x01\\1\x02", prompt)  # readline counts what lies between as nothing
        return input(prompt)

    def typed(self) -> str:
        """What stood in the line when Ctrl-C was pressed."""
        return "" if self._readline is None else str(self._readline.get_line_buffer())

    def _complete(self, text: str, state: int) -> str | None:
        found = [word for word in self._words if word.startswith(text)] if text.startswith("/") else []
        return found[state] if state < len(found) else None
