"""How well an engine predicts a set of batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.progress import Progress, silent


@dataclass(frozen=True)
class Perplexity:
    """Perplexity = exp(loss); loss is the mean −log p per target, in nats, over `targets` tokens."""

    perplexity: float
    loss: float
    targets: int


def measure(
    engine: Engine, batches: Sequence[Batch], *, progress: Progress = silent, description: str = "measuring"
) -> Perplexity:
    """Perplexity over all targets of all batches, weighted by tokens."""
    total, targets = 0.0, 0
    with progress(description, len(batches), unit="batch") as bar:
        for batch in batches:
            loss, count = engine.loss(batch)
            total, targets = total + loss, targets + count
            bar.update(perplexity=math.exp(total / targets))
    return Perplexity(math.exp(total / targets), total / targets, targets)
