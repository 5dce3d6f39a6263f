"""Disks, git, the encoding and the terminal."""

from __future__ import annotations

import locale
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from chrysalis_mlx.doctor.check import Check, ok, problem, warning
from chrysalis_mlx.doctor.processes import run

LITTLE, TOO_LITTLE = 10 * 10**9, 10**9  # bytes free
GIT = (2, 30)
_COLUMNS = 80  # for which tables are made


def disk() -> Check:
    """The place where the program was called: runs are written there."""
    return space("disk", Path.cwd(), "this directory", "call chrysalis-mlx in another directory")


def cache() -> Check:
    """Where imported models and the bridge to OpenBLAS are kept."""
    from chrysalis_mlx.models.source import cache_directory

    return space("cache", cache_directory(), "the cache", "set CHRYSALIS_CACHE to another directory")


def hub_cache() -> Check:
    """Where the Hub's client keeps what it downloads."""
    from huggingface_hub import constants

    directory = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    return space("hub cache", directory, "the Hub's cache", "set HF_HOME to another directory")


def space(name: str, directory: Path, what: str, other: str) -> Check:
    """Whether one can write to a directory, and how much fits there.

    Args:
        directory: what is not there yet counts as the nearest directory above it that is.
        what: how people call it.
        other: how another one is taken.
    """
    place = next(path for path in (directory, *directory.parents) if path.exists())
    found = f"{directory}: "
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"\0")
    except OSError as error:
        at = "" if place == directory else f" ({place})"
        return problem(name, f"{found}{what} cannot be written{at}: {error.strerror}", f"make it writable, or {other}")
    free = shutil.disk_usage(place).free
    found += f"{free / 1e9:,.1f} GB free"
    if free < TOO_LITTLE:
        return problem(name, f"{found}: too little", f"make room, or {other}")
    if free < LITTLE:
        return warning(name, f"{found}: little for models and their exports", f"make room, or {other}")
    return ok(name, found)


def git(limit: float) -> Check:
    """Whether there is a git; without it there is no genome of repositories.

    Args:
        limit: seconds.
    """
    needs = "genome lock, clone, audit and build need it"
    program = shutil.which("git")
    install = "install git (macOS: xcode-select --install)"
    if program is None:
        return warning("git", f"there is no git: {needs}", install)
    ended = run([program, "--version"], limit)
    version = re.search(r"\d+(?:\.\d+)+", ended.out)
    if ended.status != 0 or version is None:  # macOS has a git that only says how to install one
        return warning("git", f"{program} does not work: {ended.reason}; {needs}", install)
    found = f"{version[0]}, {program}"
    if tuple(map(int, version[0].split(".")[:2])) < GIT:
        return warning("git", f"{found}; {needs} in version 2.30 or newer", "update git")
    return ok("git", found)


def encoding() -> Check:
    """Whether names of files and what is printed are UTF-8."""
    used = {
        "names of files": sys.getfilesystemencoding(),
        "the locale": locale.getencoding(),
        "standard output": getattr(sys.stdout, "encoding", None) or "utf-8",
    }
    others = {what: name for what, name in used.items() if name.lower().replace("-", "").replace("_", "") != "utf8"}
    if not others:
        return ok("encoding", "UTF-8")
    found = ", ".join(f"{what} {'are' if what.startswith('names') else 'is'} {name}" for what, name in others.items())
    return warning("encoding", f"{found}, not UTF-8", "export LC_ALL=C.UTF-8 (or en_US.UTF-8), unset PYTHONIOENCODING")


def terminal() -> Check:
    """What becomes of colours and bars."""
    if not sys.stdout.isatty():
        return ok("terminal", "standard output is not one: plain text")
    columns = shutil.get_terminal_size().columns
    kind = os.environ.get("TERM", "")
    colour = "no colours (NO_COLOR)" if os.environ.get("NO_COLOR") else "colours"
    if kind in ("dumb", "unknown"):
        colour = "plain text"
    found = f"{kind or 'TERM is not set'}, {columns} columns, {colour}"
    if columns < _COLUMNS:
        return warning("terminal", f"{found}: narrow for tables", f"make it {_COLUMNS} columns wide")
    return ok("terminal", found)
