"""Where a training stands: everything that the loop needs to go on as if it had never stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

WINDOW = 32  # accepted losses that the guard looks back on


@dataclass
class TrainingState:
    """The loop's memory between two steps.

    Attributes:
        step: optimizer steps done.
        events: lines of metrics.jsonl that were written by then.
        rate_factor: what the schedule's learning rate is multiplied with; halved by each rollback.
        rollbacks: how many there were.
        best_step, best_loss: the validation with the lowest loss, in nats per token; None before the first.
        stale: validations since then.
        recent: the last accepted training losses, at most `WINDOW`.
        refused: the steps that were refused, as text, and their losses; 0 once the rows were found to be the reason.
    """

    step: int = 0
    events: int = 0
    rate_factor: float = 1.0
    rollbacks: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    stale: int = 0
    recent: list[float] = field(default_factory=list)
    refused: dict[str, float] = field(default_factory=dict)

    @property
    def before(self) -> float | None:
        """The loss for which the step that comes next was refused; None when it was not."""
        return self.refused.get(str(self.step + 1))

    def forgive(self) -> None:
        """Take the rollback of the step that comes next back: it was no worse than its rows."""
        if self.before:
            self.rollbacks, self.rate_factor = self.rollbacks - 1, self.rate_factor * 2
            self.refused[str(self.step + 1)] = 0.0

    def accepted(self, loss: float) -> None:
        """One more step is done."""
        self.step += 1
        self.recent = [*self.recent, loss][-WINDOW:]

    def validated(self, loss: float) -> bool:
        """Whether this validation is the best so far; NaN never is."""
        if loss < (math.inf if self.best_loss is None else self.best_loss):
            self.best_step, self.best_loss, self.stale = self.step, loss, 0
            return True
        self.stale += 1
        return False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingState:
        """Of what `to_json` gave; other keys are passed over."""
        return cls(**{name: value[name] for name in cls.__dataclass_fields__})
