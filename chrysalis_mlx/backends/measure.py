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
    """Perplexity over all targets of all batches, weighted by tokens.

    Of several processes each measures its share of the batches, and all get the figures of the whole.
    """
    world = engine.world()
    share = batches[world.rank :: world.size]
    total, targets = 0.0, 0
    with progress(description, len(share), unit="batch") as bar:
        for batch in share:
            loss, count = engine.loss(batch)
            total, targets = total + loss, targets + count
            bar.update(perplexity=_exp(total / targets))
    if world.size > 1:
        total, all_targets = engine.total([total, targets])
        targets = round(all_targets)
    return Perplexity(_exp(total / targets), total / targets, targets)


def _exp(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
