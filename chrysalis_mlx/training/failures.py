"""What a machine that has no more room says, in words that help."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from chrysalis_mlx.errors import TrainingError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# safetensors has an exception of its own, with the system's in its text.
_NO_ROOM_TEXTS = tuple(f"(os error {code})" for code in _NO_ROOM)
_NO_MEMORY_TEXTS = (
    "[metal::malloc]",
    "out of memory",
    "unable to allocate",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
)


@contextlib.contextmanager
def explained(directory: Path, needed: Callable[[], int]) -> Iterator[None]:
    """Turn a full disk and a full memory into errors that say what to do.

    Args:
        directory: where the training writes.
        needed: bytes of one checkpoint.

    Raises:
        TrainingError: there is no room for a file, or no memory.
    """
    try:
        with memory_explained():
            yield
    except Exception as error:
        if not _is_no_room(error):
            raise
        free = shutil.disk_usage(directory).free if directory.exists() else 0
        raise TrainingError(
            f"there is no room for what the training writes: a checkpoint needs {needed():,} bytes, "
            f"{free:,} are free on the disk ({error})",
            where=directory,
            fix="free some space, or move the run directory to another disk, and run the same command again; "
            "the last checkpoint is whole",
        ) from error


@contextlib.contextmanager
def memory_explained() -> Iterator[None]:
    """Turn what Python and the frameworks raise when memory is full into an error that says what to lower.

    Raises:
        TrainingError: there is not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).lower()
        if not isinstance(error, MemoryError) and not any(known in text for known in _NO_MEMORY_TEXTS):
            raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TrainingError(
            f"the memory is full: {first}",
            fix="in a new run lower training.batch_size (and raise gradient_accumulation), lower training.row_length, "
            "or set training.gradient_checkpointing; `chrysalis-mlx plan` tells what fits. The last checkpoint is "
            "whole: with more memory free, run the same command again",
        ) from error


def _is_no_room(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    return type(error).__name__ == "SafetensorError" and any(text in str(error) for text in _NO_ROOM_TEXTS)
