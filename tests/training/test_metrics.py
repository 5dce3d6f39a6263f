"""metrics.jsonl: whole lines, each step once."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from chrysalis_mlx.training.metrics import Metrics, read_metrics


def test_events_come_back_in_their_order(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "m.jsonl", 0)
    assert math.isnan(metrics.last_loss("train"))
    metrics.append(step=0, kind="valid", loss=3.5)
    metrics.append(step=1, kind="train", loss=3.25, tokens=12)
    assert read_metrics(tmp_path / "m.jsonl") == [
        {"step": 0, "kind": "valid", "loss": 3.5},
        {"step": 1, "kind": "train", "loss": 3.25, "tokens": 12},
    ]
    assert (metrics.last_loss("train"), metrics.last_loss("valid")) == (3.25, 3.5)


@pytest.mark.parametrize("torn", ["", '{"step": 5, "ki', "\x00\x00\x00"])
def test_resuming_drops_what_is_later_or_torn(tmp_path: Path, torn: str) -> None:
    file = tmp_path / "m.jsonl"
    metrics = Metrics(file, 0)
    for step in range(1, 5):
        metrics.append(step=step, kind="train", loss=float(step))
    file.write_text(file.read_text() + torn)
    resumed = Metrics(file, 2)
    assert resumed.last_loss("train") == 2.0
    resumed.append(step=3, kind="train", loss=9.0)
    assert [(event["step"], event["loss"]) for event in read_metrics(file)] == [(1, 1.0), (2, 2.0), (3, 9.0)]


def test_starting_anew_drops_everything(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    metrics = Metrics(file, 0)
    metrics.append(step=0, kind="valid", loss=2.0)  # the new start validates too: step 0 may not stand there twice
    metrics.append(step=1, kind="train", loss=1.0)
    Metrics(file, 0)
    assert read_metrics(file) == []
