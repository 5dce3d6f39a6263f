"""The training loop: one for every backend, and one that never loses a step.

A step is accepted before it is applied (guard.py); a refused one sends the run back to the last checkpoint with half
the learning rate. What ends the loop early, Ctrl-C, the minutes or a full disk, leaves a checkpoint to go on from.
"""

from __future__ import annotations

import logging
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
from chrysalis_mlx.progress import Bar, Progress, silent
from chrysalis_mlx.training.checkpoint import Checkpoints, Record
from chrysalis_mlx.training.failures import explained
from chrysalis_mlx.training.guard import ROLLBACKS, objection
from chrysalis_mlx.training.metrics import Metrics
from chrysalis_mlx.training.power import BatteryWatch, awake
from chrysalis_mlx.training.ranks import Ranks
from chrysalis_mlx.training.report import Tracker
from chrysalis_mlx.training.schedule import learning_rate
from chrysalis_mlx.training.state import TrainingState
from chrysalis_mlx.training.stops import Stops

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended. Losses are in nats per token; seconds and targets are this call's alone.

    Attributes:
        steps: optimizer steps done.
        resumed_at: the step that this call went on from.
        train_loss, valid_loss: the last ones.
        best_step: the step whose adapter the engine holds now.
        best_loss: its validation loss.
        rollbacks: how often the guard sent the run back.
        stopped_early: whether the validations ended it.
        paused: whether the minutes ended it; the engine holds the last step's adapter then.
    """

    steps: int
    resumed_at: int
    train_loss: float
    valid_loss: float
    best_step: int
    best_loss: float | None
    rollbacks: int
    stopped_early: bool
    paused: bool
    targets: int
    seconds: float


def run_training(
    engine: Engine,
    train: PackedRows,
    valid: Sequence[Batch],
    section: TrainingSection,
    directory: Path,
    *,
    checkpoints: Sequence[Record] = (),
    on_checkpoint: Callable[[list[Record]], None],
    max_minutes: float | None = None,
    battery: BatteryWatch | None = None,
    trackers: Sequence[Tracker] = (),
    warn: Callable[[str], None] = _log.warning,
    progress: Progress = silent,
) -> TrainingResult:
    """Train the engine's adapter for `section.steps` optimizer steps, and leave the best one in the engine.

    Several processes call this alike; the first of them writes, the others read what it wrote.

    Args:
        valid: the fixed validation set.
        directory: for metrics.jsonl and checkpoints/.
        checkpoints: the recorded checkpoints to go on from.
        on_checkpoint: gets the records of the checkpoints that stand, when they change; only recorded ones are read.
        max_minutes: pause at a checkpoint after so long.
        battery: what to wait for; None watches this machine's.
        trackers: get every event of metrics.jsonl.
        warn: gets what the user should know and nothing stops for.

    Raises:
        TrainingError: the loss does not stay finite, no checkpoint is whole, or there is no room or memory left.
        KeyboardInterrupt: Ctrl-C; after the first one the step under way is finished and saved.
    """
    saved = Checkpoints(directory / "checkpoints", checkpoints, section.keep, on_change=on_checkpoint, warn=warn)
    watch = BatteryWatch(section.min_battery) if battery is None else battery
    with explained(directory, lambda: saved.size), awake(), Stops(max_minutes) as stops:
        loop = _Loop(engine, train, valid, section, directory / "metrics.jsonl", saved, trackers)
        loop.begin(progress)
        with progress("training", section.steps, completed=loop.state.step, unit="step") as bar:
            paused = loop.run(bar, stops, watch)
        return loop.result(paused)


class _Loop:
    """One call of `run_training`: what it works on, and `state`, where it stands."""

    def __init__(
        self,
        engine: Engine,
        train: PackedRows,
        valid: Sequence[Batch],
        section: TrainingSection,
        metrics_file: Path,
        checkpoints: Checkpoints,
        trackers: Sequence[Tracker],
    ) -> None:
        self.engine, self.train, self.valid, self.section = engine, train, valid, section
        self.checkpoints, self.trackers = checkpoints, trackers
        self.ranks = Ranks(engine)
        self.metrics_file = metrics_file if self.ranks.leads else None
        self.state = TrainingState()
        self.start = self.targets = 0
        self.began = time.perf_counter()

    @property
    def finished(self) -> bool:
        return self.state.step >= self.section.steps or self._stale

    @property
    def _stale(self) -> bool:
        return self.section.patience is not None and self.state.stale >= self.section.patience

    def begin(self, progress: Progress) -> None:
        """Go on from the last checkpoint, or measure the model as it is and write the first one."""
        if self.ranks.of_the_lead(len(self.checkpoints.records)):
            self.state = self._last_good()
            self.metrics = Metrics(self.metrics_file, self.state.events)
        else:
            self.metrics = Metrics(self.metrics_file)
            loss = measure(self.engine, self.valid, progress=progress, description="validating").loss
            self._record(step=0, kind="valid", loss=loss)
            self._save()
        self.start = self.state.step

    def run(self, bar: Bar, stops: Stops, battery: BatteryWatch) -> bool:
        """Step until it is finished or has to stop; whether it was paused.

        Raises:
            KeyboardInterrupt: Ctrl-C, when the step under way is saved.
        """
        while not self.finished:
            if self._must_pause(bar, stops, battery):
                self._save()
                return True
            before = self.state.step
            fields = self._step()
            bar.update(self.state.step - before, **fields)
        self._heed(self.ranks.any(stops.interrupted)[0])
        return False

    def result(self, paused: bool) -> TrainingResult:
        """How it ended; the engine is given the best adapter, except for a pause."""
        best, state = self.state.step, self.state
        if not paused and self.ranks.leads:
            best = self.checkpoints.restore_best(self.engine, state)
        valid = self.metrics.last_loss("valid")
        return TrainingResult(
            steps=state.step,
            resumed_at=self.start,
            train_loss=self.metrics.last_loss("train"),
            valid_loss=valid,
            best_step=best,
            best_loss=state.best_loss if best == state.best_step else valid,
            rollbacks=state.rollbacks,
            stopped_early=not paused and state.step < self.section.steps,
            paused=paused,
            targets=self.targets,
            seconds=time.perf_counter() - self.began,
        )

    def _must_pause(self, bar: Bar, stops: Stops, battery: BatteryWatch) -> bool:
        """Whether the minutes are up, for all processes alike; waits here while a battery is low.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        while True:
            interrupted, late, low = self.ranks.any(stops.interrupted, stops.out_of_time, battery.is_low())
            self._heed(interrupted)
            # One step at least: a run that is called again and again must come to an end.
            if late and (low or self.state.step > self.start):
                return True
            if not low:
                return False
            level = f"{battery.battery.percent} %" if battery.battery else "low"
            bar.update(0, battery=f"{level}, waiting for power")
            battery.wait(lambda: stops.interrupted or stops.out_of_time)

    def _heed(self, interrupted: bool) -> None:
        if interrupted:
            self._save()
            raise KeyboardInterrupt(f"Ctrl-C; saved at step {self.state.step}")

    def _step(self) -> dict[str, object]:
        """One optimizer step and what is due after it, or a rollback.

        Returns:
            what to show beside the bar.
        """
        state, section, began = self.state, self.section, time.perf_counter()
        rate = learning_rate(state.step, section) * state.rate_factor
        batches = self.train.micro_batches(
            state.step, section.batch_size, section.gradient_accumulation, self.ranks.rank, self.ranks.size
        )
        recent, spike, before = state.recent, section.spike, state.before
        result = self.engine.step(batches, rate, lambda found: not objection(found, recent, spike, before))
        if not result.applied:
            return self._roll_back(objection(result, recent, spike, before), result.loss)
        if before is not None and objection(result, recent, spike):
            state.forgive()
        seconds = time.perf_counter() - began
        state.accepted(result.loss)
        self.targets += result.targets
        self._record(step=state.step, kind="train", **self._figures(result, rate, seconds))
        improved = False
        if state.step % section.validate_every == 0 or state.step == section.steps:
            loss = measure(self.engine, self.valid).loss
            self._record(step=state.step, kind="valid", loss=loss)
            improved = state.validated(loss)
        if improved or self.finished or state.step % section.checkpoint_every == 0:
            self._save()
        return {
            "loss": result.loss,
            "valid": self.metrics.last_loss("valid"),
            "speed": f"{result.targets / seconds:.0f} token/s",
            "memory": f"{self.engine.peak_memory() / 2**30:.1f} GiB",
        }

    def _roll_back(self, reason: str, loss: float) -> dict[str, object]:
        refused, rollbacks, factor = self.state.step + 1, self.state.rollbacks + 1, self.state.rate_factor / 2
        if rollbacks > ROLLBACKS:
            raise TrainingError(
                f"step {refused}: {reason}; after {ROLLBACKS} rollbacks the training is given up",
                where=self.checkpoints.directory.parent,
                fix="lower training.learning_rate in a new run; the last checkpoint of this one is whole",
            )
        known = {**self.state.refused, str(refused): loss}
        self.state = self._last_good()
        self.state.rollbacks, self.state.rate_factor, self.state.refused = rollbacks, factor, known
        self.metrics.undo(self.state.events)
        self._record(step=self.state.step, kind="rollback", reason=reason, undone=refused, rate_factor=factor)
        return {"rollback": f"to step {self.state.step}: {reason}"}

    def _last_good(self) -> TrainingState:
        """Put every process back to the newest whole checkpoint of the one that leads.

        Raises:
            TrainingError: none is whole, or a process does not find the one that the others stand at.
        """
        state: TrainingState | None = None
        problem: TrainingError | None = None
        if self.ranks.leads:
            try:
                state = self.checkpoints.restore(self.engine)
            except TrainingError as error:
                problem = error
        step = self.ranks.of_the_lead(-1 if state is None else state.step)
        if step >= 0 and state is None:
            try:
                state = self.checkpoints.restore_step(self.engine, step)
            except TrainingError as error:
                problem = error
        if not self.ranks.any(state is None)[0] and state is not None:
            return state
        if step < 0 and problem is not None:
            raise problem
        raise TrainingError(
            f"the processes are not all at the same step: one of them cannot read the checkpoint of step {step}",
            where=self.checkpoints.directory,
            fix="let all machines share the run directory, or copy the first one's to the others, and start again",
        ) from problem

    def _save(self) -> None:
        """Write a checkpoint, unless the newest one is of this very step."""
        records = self.checkpoints.records
        if self.ranks.leads and not (records and records[-1]["step"] == self.state.step):
            self.metrics.sync()
            self.state.events = self.metrics.count
            self.checkpoints.save(self.engine, self.state)

    def _record(self, **event: Any) -> None:
        self.metrics.append(event)
        for tracker in self.trackers:
            tracker.log(event)

    def _figures(self, result: StepResult, rate: float, seconds: float) -> dict[str, float]:
        return {
            "loss": result.loss,
            "learning_rate": rate,
            "grad_norm": result.grad_norm,
            "tokens": result.targets,
            "seconds": round(seconds, 4),
            "tokens_per_second": round(result.targets / seconds, 2),
            "peak_memory": self.engine.peak_memory(),
        }
