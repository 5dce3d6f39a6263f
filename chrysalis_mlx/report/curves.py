"""What metrics.jsonl tells of a training: curves, rollbacks, speed and memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chrysalis_mlx.run import Run
from chrysalis_mlx.training.metrics import read_metrics

POINTS = 600  # of a curve: more than a page has pixels for
_WINDOW = 50  # steps, at most, that the mean of the training loss is taken over

# Name of a curve -> kind of event and its figure.
_CURVES = {
    "train": ("train", "loss"),
    "valid": ("valid", "loss"),
    "learning_rate": ("train", "learning_rate"),
    "tokens_per_second": ("train", "tokens_per_second"),
    "peak_memory": ("train", "peak_memory"),
}


@dataclass(frozen=True)
class Curve:
    """A figure over the optimizer steps; every value is finite."""

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)


@dataclass(frozen=True)
class Rollback:
    """A step that was refused: `undone`; the training went on from `step` with `rate_factor` of the learning rate."""

    step: int
    undone: int
    reason: str
    rate_factor: float


@dataclass(frozen=True)
class Training:
    """A training as far as it has come. Losses are in nats per token, memory in bytes, speed in tokens per second.

    Attributes:
        planned: optimizer steps that there will be; None where nobody said.
        done: optimizer steps so far.
        curves: train, train_mean, valid, learning_rate, tokens_per_second, peak_memory, as far as they were recorded,
            thinned to about `POINTS` points that keep every extreme.
        mean_of: steps behind each point of train_mean.
        not_finite: steps whose training or validation loss was no finite number.
        tokens: that were learned from.
        seconds: of all steps, without validations and checkpoints.
        speed: tokens / seconds.
        peak_memory: the highest one.
        report: of the finished or paused stage: best_step, best_loss, device, dtype, adapter_parameters and more.
    """

    planned: int | None
    done: int
    curves: Mapping[str, Curve] = field(default_factory=dict)
    mean_of: int = 1
    rollbacks: tuple[Rollback, ...] = ()
    not_finite: tuple[int, ...] = ()
    tokens: int = 0
    seconds: float = 0.0
    speed: float | None = None
    peak_memory: float | None = None
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_unfinished(self) -> bool:
        """Whether there are steps to come."""
        return self.planned is not None and self.planned > self.done

    def curve(self, name: str) -> Curve:
        """A curve; empty where nothing of it was recorded."""
        return self.curves.get(name, Curve())

    def last(self, name: str) -> float | None:
        """The latest value of a curve."""
        curve = self.curve(name)
        return curve.values[-1] if curve else None


def read_training(run: Run) -> Training | None:
    """The training of a run; None when it never began."""
    stage, file = run.stage("train"), run.path("training", "metrics.jsonl")
    if not stage:
        return None
    events = read_metrics(file) if file.is_file() else []
    # The report of a stage that is under way again is that of its last call.
    report = stage.get("report", {}) if stage.get("status") in ("done", "paused") else {}
    return training_of(events, planned=stage.get("steps"), report=report)


def training_of(events: Iterable[Mapping[str, Any]], *, planned: int | None, report: Mapping[str, Any]) -> Training:
    """What these events of metrics.jsonl tell."""
    events = list(events)
    steps = [event for event in events if event["kind"] == "train"]
    points = {name: _points(events, kind, key) for name, (kind, key) in _CURVES.items()}
    finite = {name: [point for point in found if math.isfinite(point[1])] for name, found in points.items()}
    refused = {step for name in ("train", "valid") for step, value in points[name] if not math.isfinite(value)}
    window = max(1, min(_WINDOW, len(finite["train"]) // 10))
    finite["train_mean"] = _means(finite["train"], window)
    timed = [event for event in steps if "tokens" in event and event.get("seconds")]
    seconds = float(sum(event["seconds"] for event in timed))
    return Training(
        planned=planned,
        done=max((event["step"] for event in steps), default=0),
        curves={name: thinned(found) for name, found in finite.items() if found},
        mean_of=window,
        rollbacks=tuple(
            Rollback(event["step"], event["undone"], event["reason"], event["rate_factor"])
            for event in events
            if event["kind"] == "rollback"
        ),
        not_finite=tuple(sorted(refused)),
        tokens=sum(event.get("tokens", 0) for event in steps),
        seconds=seconds,
        speed=sum(event["tokens"] for event in timed) / seconds if seconds else None,
        peak_memory=max((value for _, value in finite["peak_memory"]), default=None),
        report=report,
    )


def thinned(points: Sequence[tuple[int, float]], most: int = POINTS) -> Curve:
    """A curve of about so many points: of each stretch of steps the lowest and the highest, and both ends."""
    kept = list(points)
    if len(points) > most:
        stretch = math.ceil(2 * len(points) / most)
        chosen = {0, len(points) - 1}
        for start in range(0, len(points), stretch):
            part = range(start, min(start + stretch, len(points)))
            chosen |= {min(part, key=lambda i: points[i][1]), max(part, key=lambda i: points[i][1])}
        kept = [points[i] for i in sorted(chosen)]
    return Curve(tuple(step for step, _ in kept), tuple(value for _, value in kept))


def _points(events: Iterable[Mapping[str, Any]], kind: str, key: str) -> list[tuple[int, float]]:
    return [(event["step"], float(event[key])) for event in events if event["kind"] == kind and key in event]


def _means(points: Sequence[tuple[int, float]], window: int) -> list[tuple[int, float]]:
    """Mean of each value and those before it, `window` of them; of what is less there is none."""
    if len(points) < window:
        return []
    means = np.lib.stride_tricks.sliding_window_view(np.array([value for _, value in points]), window).mean(axis=1)
    return [(step, float(mean)) for (step, _), mean in zip(points[window - 1 :], means, strict=True)]
