"""The learning rate of a step."""

from __future__ import annotations

import math

from chrysalis_mlx.blueprint.schema import TrainingSection


def learning_rate(step: int, section: TrainingSection) -> float:
    """Linear warm-up, then half a cosine down to the minimum (arXiv 1608.03983, without restarts).

    Args:
        step: 0 for the first optimizer step; the last one, steps - 1, gets exactly the minimum.
    """
    if step < section.warmup_steps:
        return section.learning_rate * (step + 1) / section.warmup_steps
    span = max(section.steps - 1 - section.warmup_steps, 1)
    progress = min((step - section.warmup_steps) / span, 1.0)
    height = section.learning_rate - section.min_learning_rate
    return section.min_learning_rate + height * 0.5 * (1.0 + math.cos(math.pi * progress))
