"""How a stage tells that it is moving, without knowing who watches.

The command line passes a progress bar; a library user passes nothing and hears nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """One piece of long work under way."""

    def update(self, advance: int = 1, **fields: object) -> None:
        """Move on by `advance` of the total; `fields` are shown beside the bar."""


class Progress(Protocol):
    """Opens a bar for `total` units of work, of which `completed` were done before."""

    def __call__(
        self, description: str, total: int, *, completed: int = 0, unit: str = ""
    ) -> AbstractContextManager[Bar]: ...


class _Silent:
    def update(self, advance: int = 1, **fields: object) -> None:
        pass


@contextmanager
def silent(description: str, total: int, *, completed: int = 0, unit: str = "") -> Iterator[Bar]:
    """A bar that shows nothing."""
    yield _Silent()
