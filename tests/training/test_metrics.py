"""metrics.jsonl: whole lines, each step once."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.training.metrics import Metrics, read_metrics


def train(step: int, loss: float = 1.0) -> dict[str, Any]:
    return {"step": step, "kind": "train", "loss": loss}


def test_events_come_back_in_their_order(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "m.jsonl")
    assert math.isnan(metrics.last_loss("train"))
    events = [{"step": 0, "kind": "valid", "loss": 3.5}, {"step": 1, "kind": "train", "loss": 3.25, "tokens": 12}]
    for event in events:
        metrics.append(event)
    assert read_metrics(tmp_path / "m.jsonl") == events
    assert (metrics.last_loss("train"), metrics.last_loss("valid"), metrics.count) == (3.25, 3.5, 2)


@pytest.mark.parametrize("torn", ["", '{"step": 5, "ki', "\x00\x00\x00"])
def test_resuming_drops_what_is_later_or_torn(tmp_path: Path, torn: str) -> None:
    file = tmp_path / "m.jsonl"
    metrics = Metrics(file)
    for step in range(1, 5):
        metrics.append(train(step, float(step)))
    metrics.sync()
    file.write_text(file.read_text() + torn)
    resumed = Metrics(file, 2)
    assert (resumed.last_loss("train"), resumed.count) == (2.0, 2)
    resumed.append(train(3, 9.0))
    assert [(event["step"], event["loss"]) for event in read_metrics(file)] == [(1, 1.0), (2, 2.0), (3, 9.0)]


def test_a_rollback_takes_out_what_it_undoes_but_no_other_rollback(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    metrics = Metrics(file)
    first, second = ({"step": 1, "kind": "rollback", "undone": undone} for undone in (4, 3))
    for event in (train(1), train(2), train(3)):
        metrics.append(event)
    metrics.undo(1)
    metrics.append(first)
    metrics.append(train(2, 5.0))
    metrics.undo(1)
    assert (metrics.last_loss("train"), metrics.count) == (1.0, 2)
    metrics.append(second)
    assert read_metrics(file) == [train(1), first, second]
    assert Metrics(file, 1).count == 1  # killed now: both come again
    assert read_metrics(file) == [train(1)]


def test_starting_anew_drops_everything(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    Metrics(file).append(train(1))
    assert (Metrics(file).count, read_metrics(file)) == (0, [])


def test_a_process_that_does_not_write_still_knows_its_losses(tmp_path: Path) -> None:
    metrics = Metrics(None)
    metrics.append(train(1, 2.5))
    metrics.sync()
    assert (metrics.last_loss("train"), metrics.count, list(tmp_path.iterdir())) == (2.5, 1, [])
    metrics.undo(0)
    assert metrics.count == 0


def test_half_a_line_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics(tmp_path / "m.jsonl")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:5]))
    with pytest.raises(OSError, match="No space left") as caught:
        metrics.append(train(1))
    assert caught.value.errno == errno.ENOSPC
