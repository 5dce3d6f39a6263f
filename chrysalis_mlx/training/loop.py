"""The training loop: one for every backend."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chrysalis_mlx.backends.base import Engine, StepResult
from chrysalis_mlx.backends.measure import measure
from chrysalis_mlx.batches.order import PackedRows
from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.blueprint.schema import TrainingSection
from chrysalis_mlx.errors import TrainingError
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.training.checkpoint import load_checkpoint, prune_checkpoints, save_checkpoint
from chrysalis_mlx.training.metrics import Metrics
from chrysalis_mlx.training.schedule import learning_rate


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended. Losses are the last ones, nats per token; seconds and targets are this call's alone."""

    steps: int
    resumed_at: int
    train_loss: float
    valid_loss: float
    targets: int
    seconds: float


def run_training(
    engine: Engine,
    train: PackedRows,
    valid: Sequence[Batch],
    section: TrainingSection,
    directory: Path,
    *,
    checkpoint: dict[str, Any] | None = None,
    on_checkpoint: Callable[[dict[str, Any]], None],
    progress: Progress = silent,
) -> TrainingResult:
    """Train the engine's adapter for `section.steps` optimizer steps.

    Args:
        valid: the fixed validation set.
        directory: for metrics.jsonl and checkpoints/.
        checkpoint: the recorded checkpoint to go on from.
        on_checkpoint: called with the record of each finished checkpoint; only a recorded one is ever read.

    Raises:
        TrainingError: the loss is not finite, or the checkpoint is damaged.
    """
    checkpoints = directory / "checkpoints"
    start = load_checkpoint(checkpoints, checkpoint, engine) if checkpoint else 0
    metrics = Metrics(directory / "metrics.jsonl", start)
    began, targets = time.perf_counter(), 0
    if start == 0:
        loss = measure(engine, valid, progress=progress, description="validating").loss
        metrics.append(step=0, kind="valid", loss=loss)
    with progress("training", section.steps, completed=start, unit="step") as bar:
        for step in range(start, section.steps):
            step_began = time.perf_counter()
            rate = learning_rate(step, section)
            result = engine.step(train.micro_batches(step, section.batch_size, section.gradient_accumulation), rate)
            _require_finite(result, step)
            seconds = time.perf_counter() - step_began
            targets, done = targets + result.targets, step + 1
            metrics.append(step=done, kind="train", **_figures(engine, result, rate, seconds))
            if done % section.validate_every == 0 or done == section.steps:
                metrics.append(step=done, kind="valid", loss=measure(engine, valid).loss)
            if done % section.checkpoint_every == 0 or done == section.steps:
                record = save_checkpoint(checkpoints, engine, done)
                on_checkpoint(record)
                prune_checkpoints(checkpoints, record["name"])
            bar.update(
                loss=result.loss,
                valid=metrics.last_loss("valid"),
                speed=f"{result.targets / seconds:.0f} token/s",
                memory=f"{engine.peak_memory() / 2**30:.1f} GiB",
            )
    losses = metrics.last_loss("train"), metrics.last_loss("valid")
    return TrainingResult(section.steps, start, *losses, targets, time.perf_counter() - began)


def _figures(engine: Engine, result: StepResult, rate: float, seconds: float) -> dict[str, float]:
    return {
        "loss": result.loss,
        "learning_rate": rate,
        "grad_norm": result.grad_norm,
        "tokens": result.targets,
        "seconds": round(seconds, 4),
        "tokens_per_second": round(result.targets / seconds, 2),
        "peak_memory": engine.peak_memory(),
    }


def _require_finite(result: StepResult, step: int) -> None:
    if not (math.isfinite(result.loss) and math.isfinite(result.grad_norm)):
        raise TrainingError(
            f"the loss at step {step + 1} is {result.loss}, its gradient's norm {result.grad_norm}",
            fix="lower training.learning_rate in a new run; the last checkpoint of this one is whole",
        )
