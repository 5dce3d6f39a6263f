"""metrics.jsonl: one line per event of a training run."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from chrysalis_mlx.run import write_text


class Metrics:
    """Appends events; each line is whole or absent, also after a crash.

    Events have `step` (optimizer steps done), `kind` (train or valid) and their figures: `loss` in nats per token,
    `learning_rate`, `grad_norm`, `tokens` (targets), `seconds`, `tokens_per_second`, `peak_memory` in bytes.
    """

    def __init__(self, path: Path, resume_at: int) -> None:
        """Open the file and drop what is later than `resume_at` steps, or half written; 0 begins anew."""
        kept = read_metrics(path) if resume_at and path.is_file() else []
        events = [event for event in kept if event["step"] <= resume_at]
        write_text(path, "".join(json.dumps(event) + "\n" for event in events))
        self._path = path
        self._losses: dict[str, float] = {event["kind"]: event["loss"] for event in events}

    def last_loss(self, kind: str) -> float:
        """Loss of the latest event of a kind, also of an earlier call's; NaN when there is none."""
        return self._losses.get(kind, math.nan)

    def append(self, **event: Any) -> None:
        self._losses[event["kind"]] = event["loss"]
        line = (json.dumps(event) + "\n").encode()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole events of a metrics file."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            break  # the line that a crash cut
    return events
