"""The loop and its checkpoints, on an engine that a test can foresee."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chrysalis_mlx.batches.order import PackedRows
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.blueprint.schema import TrainingSection
from chrysalis_mlx.errors import TrainingError
from chrysalis_mlx.training.loop import TrainingResult, run_training
from chrysalis_mlx.training.metrics import read_metrics
from chrysalis_mlx.training.schedule import learning_rate
from tests.training.engines import CountingEngine

SECTION = TrainingSection(
    row_length=16,
    batch_size=2,
    gradient_accumulation=2,
    steps=7,
    warmup_steps=2,
    learning_rate=1e-3,
    validate_every=3,
    checkpoint_every=2,
)
ROWS = PackedRows([Segment(np.full(12, n, np.int32), np.arange(12) > 0) for n in range(1, 10)], 16, "ab" * 32, 0)


def train(
    directory: Path, engine: CountingEngine, checkpoint: dict[str, Any] | None = None, stop_at: int | None = None
) -> tuple[TrainingResult, list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []

    def keep(record: dict[str, Any]) -> None:
        records.append(record)
        if record["step"] == stop_at:
            raise KeyboardInterrupt

    result = run_training(
        engine, ROWS, ROWS.in_order(2, 3), SECTION, directory, checkpoint=checkpoint, on_checkpoint=keep
    )
    return result, records


def test_steps_validations_and_checkpoints_come_when_the_blueprint_says(tmp_path: Path) -> None:
    engine = CountingEngine()
    result, records = train(tmp_path, engine)
    assert engine.rates == [learning_rate(step, SECTION) for step in range(7)]
    assert [record["step"] for record in records] == [2, 4, 6, 7]
    events = read_metrics(tmp_path / "metrics.jsonl")
    assert [event["step"] for event in events if event["kind"] == "train"] == [1, 2, 3, 4, 5, 6, 7]
    assert [event["step"] for event in events if event["kind"] == "valid"] == [0, 3, 6, 7]
    last = next(event for event in events if event["step"] == 7 and event["kind"] == "train")
    assert last.keys() >= {"loss", "learning_rate", "grad_norm", "tokens", "seconds", "tokens_per_second"}
    assert (last["tokens"], last["peak_memory"]) == (4 * 11, 7)
    assert (result.steps, result.resumed_at, result.targets) == (7, 0, 7 * 4 * 11)
    assert result.train_loss == last["loss"]
    assert result.valid_loss == pytest.approx(10 - engine.x)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000007"]


@pytest.mark.parametrize("stop_at", [2, 4, 7])
def test_a_resumed_training_ends_like_one_that_never_stopped(tmp_path: Path, stop_at: int) -> None:
    whole = CountingEngine()
    expected, _ = train(tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", CountingEngine(), stop_at=stop_at)
    record = json.loads((tmp_path / "cut/checkpoints" / f"step-{stop_at:06d}" / "state.json").read_text())
    assert record == {"step": stop_at}
    _, records = train(tmp_path / "again", CountingEngine())
    checkpoint = next(item for item in records if item["step"] == stop_at)
    engine = CountingEngine()
    result, _ = train(tmp_path / "cut", engine, checkpoint)
    assert (result.resumed_at, result.targets) == (stop_at, (7 - stop_at) * 4 * 11)
    assert (engine.x, engine.steps) == (whole.x, 7)
    assert (result.train_loss, result.valid_loss) == (expected.train_loss, expected.valid_loss)
    first, second = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut"))
    timeless = [[{**event, "seconds": 0, "tokens_per_second": 0} for event in events] for events in (first, second)]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_checkpoint_is_an_error_and_never_a_silent_restart(tmp_path: Path, damage: str) -> None:
    _, records = train(tmp_path, CountingEngine())
    file = tmp_path / "checkpoints/step-000007/optimizer.safetensors"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(TrainingError, match=r"checkpoint is missing or damaged(.|\n)*optimizer(.|\n)*train again"):
        train(tmp_path, CountingEngine(), records[-1])


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    engine = CountingEngine()
    engine.fails_at = 4
    with pytest.raises(TrainingError, match=r"the loss at step 5 is nan(.|\n)*lower training.learning_rate"):
        train(tmp_path, engine)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000004"]
    assert [event["step"] for event in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1, 2, 3, 3, 4]
