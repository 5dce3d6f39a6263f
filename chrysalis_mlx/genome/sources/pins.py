"""Pinned repositories: the lock file, genome.lock.json.

A lock says everything that a genome's bytes depend on: each repository at one commit (a plain directory at the tree id
that git would give it), in curriculum order, and the rules for files. The same lock gives the same genome anywhere.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from chrysalis_mlx.config import from_plain, option, required, to_plain
from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.sources.schema import FileRules
from chrysalis_mlx.run import sha256_json, write_json

SCHEMA = 1
REF_NAME = re.compile(r"HEAD|refs/[^\x00-\x20:?*\[\\^~\x7f]+")
Kind = Literal["remote", "checkout", "directory"]
OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# Among the clones lies the workshop of `genome clone`; git would take the last two for the repository of that folder.
_TAKEN = ("", ".partial", ".git", "git~1")
# What ends a path or a line, obeys a terminal, or cannot be written in UTF-8.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Pin:
    """One repository of the genome at one state.

    A `remote` is cloned; a `checkout` and a `directory` are read where they are.
    """

    name: str = required("its name in the genome")
    kind: Kind = required("what it is")
    location: str = required("URL, or path; a relative one counts from the lock's folder")
    commit: str | None = option(None, "of a remote or a checkout, 40 or 64 hexadecimal digits")
    tree: str | None = option(None, "of a directory: the id that git would give to its tree")
    ref: str | None = option(None, "the full name of the ref that the commit was found at")
    folder: str = option("", "the folder that is taken; empty for all of it")


def name_problem(name: str) -> str | None:
    """Why a repository cannot be called so, or None: its name is a line of the genome and a folder among the clones."""
    # Printable: a Mac passes over invisible characters, and there ".g\u200cit" is .git.
    if name.casefold().rstrip(". ") in _TAKEN or not name.isprintable() or "/" in name or "\\" in name:
        return f"{name!r} is no name for a repository: it must be one that a folder can have"
    return None


def place_problem(place: str) -> str | None:
    """Why a URL or path cannot stand in a lock, or None."""
    return f"{place!r} holds a control character or is not UTF-8" if _UNFIT.search(place) else None


def _problems(pin: Pin) -> list[str]:
    """What a lock that a stranger wrote could do harm with."""
    found = [name_problem(pin.name)]
    if pin.kind == "directory":
        found.append(None if OID.fullmatch(pin.tree or "") else f"{pin.name}.tree: {pin.tree!r} is no object's name")
    elif not OID.fullmatch(pin.commit or ""):
        found.append(f"{pin.name}.commit: {pin.commit!r} is no object's name")
    if pin.ref is not None and not REF_NAME.fullmatch(pin.ref):
        found.append(f"{pin.name}.ref: {pin.ref!r} is no full name of a ref")
    if ".." in pin.folder.split("/"):
        found.append(f"{pin.name}.folder: {pin.folder!r} leads out of the repository")
    if pin.location.startswith("-"):
        found.append(f"{pin.name}.location: {pin.location!r} would be an option of git")
    found += [place_problem(pin.location), place_problem(pin.folder)]
    return [problem for problem in found if problem]


def clashes(names: Iterable[str]) -> list[list[str]]:
    """Names that are one folder on a Mac: the same, or differing in case alone."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name.casefold(), []).append(name)
    return [found for found in alike.values() if len(found) > 1]


@dataclass(frozen=True)
class Failure:
    """A repository that could not be had, kept on the record by --keep-going."""

    name: str = required("its name in the genome")
    location: str = required("its URL or path")
    reason: str = required("git's own words")


@dataclass(frozen=True)
class Lock:
    """A genome's sources, pinned.

    Attributes:
        base: the folder that relative locations count from; not part of the file.
    """

    schema: Literal[1] = option(SCHEMA, "of this file")
    config: str | None = option(None, "sha256 of the genome.yaml that was locked")
    history: bool = option(False, "whether clones hold the whole history")
    fsck_ignore: tuple[str, ...] = option((), "git fsck message ids that are let through")
    repositories: tuple[Pin, ...] = option((), "in curriculum order")
    failed: tuple[Failure, ...] = option((), "what could not be resolved")
    files: FileRules = field(default_factory=FileRules)
    base: Path = field(default=Path(), init=False, compare=False)

    def at(self, base: Path) -> Lock:
        """This lock, with relative locations counted from `base`."""
        lock = dataclasses.replace(self)
        object.__setattr__(lock, "base", base)
        return lock

    def root(self, pin: Pin, clones: Path) -> Path:
        """Where a repository lies: its clone, its checkout or its directory."""
        return clones / pin.name if pin.kind == "remote" else self.base / os.path.expanduser(pin.location)

    def as_dict(self) -> dict[str, object]:
        plain: dict[str, object] = to_plain(self)
        del plain["base"]
        return plain

    @property
    def sha256(self) -> str:
        """Of what the lock says, however the file is laid out."""
        return sha256_json(self.as_dict())

    def write(self, path: Path) -> None:
        write_json(path, self.as_dict())

    @classmethod
    def read(cls, path: Path) -> Lock:
        """Read a lock file.

        Raises:
            GenomeError: not there, or not a lock of this schema; with every problem.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise GenomeError(
                "there is no lock", where=path, fix="make one: chrysalis-mlx genome lock --sources genome.yaml"
            ) from error
        except (OSError, ValueError) as error:
            raise GenomeError(f"the lock cannot be read: {error}", where=path, fix="lock again") from error
        lock, problems = from_plain(cls, value)
        if lock is not None:
            problems = [problem for pin in lock.repositories for problem in _problems(pin)]
            doubles = clashes(pin.name for pin in lock.repositories)
            problems += [f"{len(names)} repositories are called {names[0].casefold()!r}" for names in doubles]
        if problems:
            raise GenomeError(
                f"this is no lock of schema {SCHEMA}: " + "; ".join(problems), where=path, fix="lock again"
            )
        return typing.cast(Lock, lock).at(path.absolute().parent)
