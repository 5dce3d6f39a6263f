"""What a shell offers when a run, a model, a blueprint or a type is asked for."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator

_DEPTH = 3  # folders below what was typed
_ENTRIES_AT_MOST = 10_000  # somebody waits for it


def runs(typed: str) -> list[str]:
    """Directories with a run.json, near what was typed."""
    return _search(typed, lambda entry: _holds(entry, "run.json"))


def exported(typed: str) -> list[str]:
    """Runs and .gguf files, near what was typed."""
    return _search(typed, lambda entry: entry.name.endswith(".gguf") or _holds(entry, "run.json"))


def models(typed: str) -> list[str]:
    """Hugging Face directories and .gguf files, near what was typed."""
    return _search(typed, lambda entry: entry.name.endswith(".gguf") or _holds(entry, "config.json"))


def blueprints(typed: str) -> list[str]:
    """Shipped names and YAML files that begin with what was typed."""
    from chrysalis_mlx.blueprint.library import library

    names = [name for name in library() if name.startswith(typed)]
    return [*names, *_search(typed, lambda entry: entry.name.endswith((".yaml", ".yml")), depth=0)]


def types(typed: str) -> list[str]:
    """GGUF types that begin with what was typed, in capitals or not."""
    from chrysalis_mlx.gguf.quantize import TYPES

    return [name for name in TYPES if name.startswith(typed.upper())]


def _holds(entry: os.DirEntry[str], name: str) -> bool:
    return entry.is_dir() and os.path.isfile(os.path.join(entry.path, name))


def _search(typed: str, wanted: Callable[[os.DirEntry[str]], bool], depth: int = _DEPTH) -> list[str]:
    """Paths that are wanted and begin with what was typed, written as the user began them, in order.

    Nothing below a path that is wanted is looked at, no link is followed, and hidden names are found only where one was
    begun.
    """
    head, begun = os.path.split(typed)
    top = os.path.expanduser(head or os.curdir)
    found: list[str] = []
    level, left = [top], _ENTRIES_AT_MOST
    for _ in range(depth + 1):
        deeper: list[str] = []
        for entry in itertools.islice(_entries(level, begun), left):
            left -= 1
            if wanted(entry):
                found.append(os.path.join(head, os.path.relpath(entry.path, top)))
            elif entry.is_dir(follow_symlinks=False):
                deeper.append(entry.path)
        level, begun = deeper, ""
    return sorted(found)


def _entries(folders: Iterable[str], begun: str) -> Iterator[os.DirEntry[str]]:
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(begun) and (begun or not entry.name.startswith(".")):
                    yield entry
