"""The learning rate of a step."""

from __future__ import annotations

import math
from collections.abc import Callable

from chrysalis_mlx.blueprint.schema import TrainingSection


def learning_rate(step: int, section: TrainingSection) -> float:
    """Linear warm-up, then the section's schedule down to the minimum.

    `cosine` is half a cosine (arXiv 1608.03983, without restarts), `linear` a line, `constant` stays at the peak, and
    `wsd` stays there until the last `decay_share` of the steps, which are a line (arXiv 2404.06395).

    Args:
        step: 0 for the first optimizer step; the last one, steps - 1, gets exactly the minimum, except of `constant`.
    """
    last = section.steps - 1
    if section.schedule != "constant" and step >= last > 0:
        return section.min_learning_rate
    if step < section.warmup_steps:
        return section.learning_rate * (step + 1) / section.warmup_steps
    first = section.warmup_steps
    if section.schedule == "wsd":
        first = max(first, last - round(section.decay_share * section.steps))
    done = min(max((step - first) / max(last - first, 1), 0.0), 1.0)
    height = section.learning_rate - section.min_learning_rate
    return section.min_learning_rate + height * _SHAPES[section.schedule](done)


_SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "linear": lambda done: 1.0 - done,
    "constant": lambda done: 1.0,
    "wsd": lambda done: 1.0 - done,
}
"""What is left of the way from the peak to the minimum, by the share of the decay that is done."""
