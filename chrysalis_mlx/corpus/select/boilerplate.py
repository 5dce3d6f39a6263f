"""Boilerplate: lines that many repositories have."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from chrysalis_mlx.corpus.document import Document

# Shorter lines (`else:`, `import os`, `## Usage`) are common to all who write, not copied.
LEAST_LENGTH = 20


class BoilerplateIndex:
    """Which lines stand in at least so many repositories.

    Lines are known by 8 bytes of BLAKE2b; each costs 8 bytes a document while the index is made. Backups are no
    repositories of their own, for they repeat others. Equal documents count once, in the first repository: one
    manifest in ten repositories is a matter of copies, of which one is kept. So are ten licences that differ by their
    year, where near copies are left out before; boilerplate are documents that add something of their own.
    """

    def __init__(self, documents: Iterable[Document], repositories: int) -> None:
        lines: dict[str, list[NDArray[np.uint64]]] = {}
        seen: set[str] = set()
        for document in documents:
            if document.backup or document.digest in seen:
                continue
            seen.add(document.digest)
            keys = b"".join({_key(line): None for line in _long_lines(document.text)})
            lines.setdefault(document.repository, []).append(np.frombuffer(keys, dtype=np.uint64))
        once = [np.unique(np.concatenate(found)) for found in lines.values()]
        keys_of_all, counts = np.unique(np.concatenate(once or [np.zeros(0, np.uint64)]), return_counts=True)
        self._common = frozenset(key.tobytes() for key in keys_of_all[counts >= repositories])

    def share(self, text: str) -> float:
        """Characters in common lines of 20 characters or more / characters in all lines; 0 for a blank text."""
        common = sum(len(line) for line in _long_lines(text) if _key(line) in self._common)
        return common / sum(len(line.strip()) for line in text.split("\n")) if common else 0.0


def _long_lines(text: str) -> list[str]:
    return [line for line in map(str.strip, text.split("\n")) if len(line) >= LEAST_LENGTH]


def _key(line: str) -> bytes:
    return hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest()
