"""metrics.jsonl: one line per event of a training run."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

from chrysalis_mlx.run import write_text


class Metrics:
    """Appends events; each line is whole or absent, also after a crash.

    Events have `step` (optimizer steps done), `kind` and their figures:

        train     loss in nats per token, learning_rate, grad_norm, tokens (targets), seconds, tokens_per_second,
                  peak_memory in bytes
        valid     loss
        rollback  reason, rate_factor from here on, undone (the step that was refused); `step` is where it goes on

    A rollback takes the lines of the steps that it undoes out of the file, and leaves a line of its own. A training
    that was killed and goes on from a checkpoint takes out every line after that checkpoint, and writes them again.

    Args:
        path: None for a process that does not write.
        events: lines to keep of what is there; 0 begins anew.
    """

    def __init__(self, path: Path | None, events: int = 0) -> None:
        self._path = path
        self.count = 0
        self._losses: dict[str, float] = {}
        self._write(self._read()[:events] if events else [])

    def last_loss(self, kind: str) -> float:
        """Loss of the latest event of a kind, also of an earlier call's; NaN when there is none."""
        return self._losses.get(kind, math.nan)

    def append(self, event: dict[str, Any]) -> None:
        """Write one line.

        Raises:
            OSError: there is no room for it.
        """
        self._saw(event)
        if self._path is None:
            return
        line = (json.dumps(event) + "\n").encode()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        finally:
            os.close(descriptor)

    def undo(self, events: int) -> None:
        """Take out all lines after the first `events`, but for those of rollbacks."""
        kept = self._read()
        self._write(kept[:events] + [event for event in kept[events:] if event["kind"] == "rollback"])

    def sync(self) -> None:
        """See that what was appended is on the disk, before a checkpoint counts on it."""
        if self._path is not None:
            descriptor = os.open(self._path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _read(self) -> list[dict[str, Any]]:
        return read_metrics(self._path) if self._path is not None and self._path.is_file() else []

    def _write(self, events: list[dict[str, Any]]) -> None:
        if self._path is not None:
            write_text(self._path, "".join(json.dumps(event) + "\n" for event in events))
        self.count, self._losses = 0, {}
        for event in events:
            self._saw(event)

    def _saw(self, event: dict[str, Any]) -> None:
        self.count += 1
        if "loss" in event:
            self._losses[event["kind"]] = event["loss"]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole events of a metrics file."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            break  # the line that a crash cut
    return events
