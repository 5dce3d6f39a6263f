"""What one check says of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """What was examined, what was found there, and what to do about it.

    Attributes:
        name: what was examined.
        status: "problem" keeps the program from its work; "warning" takes something away from it, or slows it down.
        found: one line.
        fix: what to do; None where nothing is to be done.
    """

    name: str
    status: Status
    found: str
    fix: str | None = None


def ok(name: str, found: str) -> Check:
    """All is well with it."""
    return Check(name, "ok", found)


def warning(name: str, found: str, fix: str) -> Check:
    """The program works without it, but not in all things or not as fast."""
    return Check(name, "warning", found, fix)


def problem(name: str, found: str, fix: str) -> Check:
    """The program cannot do its work."""
    return Check(name, "problem", found, fix)
