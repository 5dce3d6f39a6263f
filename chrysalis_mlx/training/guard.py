"""What a step may not do: turn into NaN, or throw the model away.

A loss far above those before it is a sign of either a model that has been thrown off its path, or rows unlike the
others. Sent back, with half the learning rate, a model comes to the same step in better shape; rows do not.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from chrysalis_mlx.backends.base import StepResult

ENOUGH = 8  # losses before which nothing can be called a spike
ROLLBACKS = 3  # after so many, the next objection ends the training
_SAME = 0.8  # a loss that is still so much of the one before the rollback is the rows' own


def objection(result: StepResult, recent: Sequence[float], spike: float | None, before: float | None = None) -> str:
    """Why a step is refused; empty when it is not.

    Args:
        recent: the losses of the steps before it.
        spike: a loss above so many times their median is one; None: none is.
        before: the loss for which this very step was refused before a rollback.
    """
    for name, value in (("loss", result.loss), ("norm of the gradient", result.grad_norm)):
        if not math.isfinite(value):
            return f"the {name} is {value}"
    if spike is not None and len(recent) >= ENOUGH:
        median = statistics.median(recent)
        if result.loss > spike * median and not (before is not None and result.loss > _SAME * before):
            return f"the loss is {result.loss:.4g}, {result.loss / median:.2g} times the median before it"
    return ""
