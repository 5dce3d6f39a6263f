"""What a subject has answered so far, line by line in a file, so that a measurement that was stopped goes on.

The first line holds a key: the hash of everything that the answers depend on. Each later one is one piece of work.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import RunError


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep a folder of journals to this process: two that append to one file would mix up what they were answered.

    Raises:
        RunError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)  # closing it lets go; so does the death of this process
    try:
        with contextlib.suppress(OSError):  # a file system without locks is no reason not to measure
            _lock(lock, folder)
        yield
    finally:
        os.close(lock)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(
            "another process is evaluating this run", where=folder.parent, fix="let it finish, or stop it"
        ) from None


class Journal:
    """The answers of one subject.

    Args:
        file: where they are kept; what is not whole at its end is cut off, and a file with another key begun anew.
        key: hash of everything that they depend on.
    """

    def __init__(self, file: Path, key: str) -> None:
        self._file = file
        self._known, size = _read(file, key)
        if size:
            os.truncate(file, size)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_head(key) + b"\n")

    def __contains__(self, work: str) -> bool:
        return work in self._known

    def __getitem__(self, work: str) -> Any:
        return self._known[work]

    def get(self, work: str, answer: Callable[[], Any]) -> Any:
        """What was answered to a piece of work; what is answered now, and kept, where nothing was."""
        if work not in self._known:
            line = json.dumps({"work": work, "answer": answer()}) + "\n"
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
            self._known[work] = json.loads(line)["answer"]
        return self._known[work]


def _read(file: Path, key: str) -> tuple[dict[str, Any], int]:
    """The answers in a file with this key, and how many bytes of it are whole; none of any other file."""
    head, *lines = file.read_bytes().split(b"\n") if file.is_file() else [b""]
    if not lines or head != _head(key):
        return {}, 0
    known: dict[str, Any] = {}
    size = len(head) + 1
    for line in lines[:-1]:  # what follows the last line end is not whole
        try:
            value = json.loads(line)
            known[value["work"]] = value["answer"]
        except (ValueError, TypeError, KeyError):
            break
        size += len(line) + 1
    return known, size


def _head(key: str) -> bytes:
    return json.dumps({"key": key}).encode()
