"""Where the figures go besides metrics.jsonl: TensorBoard, Weights & Biases, Trackio."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import TrainingError

PROJECT = "chrysalis-mlx"


@dataclass(frozen=True)
class Subject:
    """The run that is reported on.

    Attributes:
        name: as people call it.
        identity: the same whenever the run goes on, and no other run's; letters and digits.
        directory: where files may be left.
        config: its settings.
    """

    name: str
    identity: str
    directory: Path
    config: Mapping[str, Any]


class Tracker:
    """Sends figures to one place. What goes wrong there is told once and never stops the training."""

    def __init__(self, name: str, module: Any, subject: Subject, warn: Callable[[str], None]) -> None:
        self._name, self._warn = name, warn
        self._send: Callable[[dict[str, float], int], object] | None = None
        self._end: Callable[[], object] | None = None
        with self._forgiving():
            self._send, self._end = _OPENERS[name](module, subject)

    def log(self, event: Mapping[str, Any]) -> None:
        """Send the numbers of one event of metrics.jsonl, as `KIND/NAME`."""
        kind, step = event["kind"], event["step"]
        numbers = {
            f"{kind}/{name}": float(value)
            for name, value in event.items()
            if name != "step" and isinstance(value, (int, float))
        }
        if self._send is not None:
            with self._forgiving():
                self._send(numbers, step)

    def close(self) -> None:
        """See that everything has been sent."""
        if self._end is not None:
            with self._forgiving():
                self._end()

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            # They like to talk, and standard output is for reports.
            with contextlib.redirect_stdout(sys.stderr):
                yield
        except Exception as error:
            self._send = self._end = None
            self._warn(f"{self._name} is left out from here on: {error or type(error).__name__}")


@contextlib.contextmanager
def trackers(names: Iterable[str], subject: Subject, warn: Callable[[str], None]) -> Iterator[list[Tracker]]:
    """Open the named trackers, and close them at the end of the block.

    Raises:
        TrainingError: there is none of that name, or its package is missing.
    """
    found = [(name, _import(name)) for name in dict.fromkeys(names)]
    opened = [Tracker(name, module, subject, warn) for name, module in found]
    try:
        yield opened
    finally:
        for tracker in opened:
            tracker.close()


def _import(name: str) -> Any:
    if name not in _PACKAGES:
        raise TrainingError(
            f"there is nothing called '{name}' to report to",
            where="training.report_to",
            fix=f"use some of: {', '.join(_PACKAGES)}",
        )
    try:
        return importlib.import_module(_PACKAGES[name])
    except ImportError as error:
        raise TrainingError(
            f"{name} cannot be reported to: {error}",
            where="training.report_to",
            fix=f'run: pip install "chrysalis-mlx[{name}]"',
        ) from error


_Opened = tuple[Callable[[dict[str, float], int], object], Callable[[], object]]


def _tensorboard(module: Any, subject: Subject) -> _Opened:
    writer = module.SummaryWriter(str(subject.directory / "tensorboard"))

    def send(numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    return send, writer.close


def _wandb(module: Any, subject: Subject) -> _Opened:
    run = module.init(
        project=PROJECT,
        name=subject.name,
        id=subject.identity,
        resume="allow",
        dir=str(subject.directory),
        config=dict(subject.config),
    )
    # Its own count of steps cannot go back, as a rollback does.
    run.define_metric("*", step_metric="step")
    return lambda numbers, step: run.log(numbers | {"step": step}), run.finish


def _trackio(module: Any, subject: Subject) -> _Opened:
    name = f"{subject.name}-{subject.identity}"
    module.init(project=PROJECT, name=name, resume="allow", config=dict(subject.config))
    return lambda numbers, step: module.log(numbers, step=step), module.finish


# tensorboardX writes TensorBoard's files without TensorBoard, which only the one who looks needs.
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
_OPENERS: dict[str, Callable[[Any, Subject], _Opened]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}
