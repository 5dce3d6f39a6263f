"""Tokens kept from one run to the next: what a corpus file was for a tokenizer, found by the hash of both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from chrysalis_mlx import __version__
from chrysalis_mlx.models.source import cache_directory
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.run import atomic_path, sha256_file, sha256_json

_FORMAT = 1  # raise it with every change to the tokens that a row becomes, or to which of them are learned
_KEPT = 64  # files

# Of one row: token ids, (n,), and which of them are learned, (n,).
Pair = tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]


def cached(corpus: Path, tokenizer: Tokenizer, make: Callable[[], list[Pair]]) -> list[Pair]:
    """The tokens of each row of a corpus file and which of them are learned: kept ones, else those that are made now.

    A tokenizer that comes from no files has nothing to be known by, and what it makes is not kept.
    """
    if not tokenizer.fingerprint:
        return make()
    key = sha256_json([_FORMAT, __version__, sha256_file(corpus), tokenizer.fingerprint])
    file = cache_directory() / "tokens" / f"{key}.npz"
    pairs = _read(file)
    if pairs is None:
        pairs = make()
        with contextlib.suppress(OSError):  # no room, or no right to write: they are made anew each time
            _write(file, pairs)
    return pairs


def _read(file: Path) -> list[Pair] | None:
    """What `_write` wrote; None when it is not there, or not whole: every part has a checksum."""
    try:
        with file.open("rb") as stream, np.load(stream) as parts:
            tokens, supervised, lengths = parts["tokens"], parts["supervised"], parts["lengths"]
    except Exception:  # a damaged archive raises nearly anything
        return None
    with contextlib.suppress(OSError):
        file.touch()
    ends = np.cumsum(lengths)[:-1]
    return list(zip(np.split(tokens, ends), np.split(supervised, ends), strict=True))


def _write(file: Path, pairs: Sequence[Pair]) -> None:
    """Write a file, and remove those that were not used for the longest time."""
    tokens, supervised = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    lengths = np.array([len(ids) for ids, _ in pairs])
    with atomic_path(file) as partial, partial.open("wb") as stream:
        np.savez(stream, tokens=tokens, supervised=supervised, lengths=lengths)
    kept = sorted(file.parent.glob("*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in kept[_KEPT:]:
        old.unlink(missing_ok=True)
