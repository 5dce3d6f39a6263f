"""What training changed: the base and the tuned model on the same held-out tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.backends.measure import measure
from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.progress import Progress, silent


def compare(
    open_base: Callable[[], Engine],
    open_tuned: Callable[[], Engine],
    batches: Sequence[Batch],
    *,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Perplexity of both on the same batches, one model in memory at a time.

    Returns:
        `base` and `tuned`, each with `perplexity`, `loss` (nats per token) and `targets`, and `perplexity_ratio`,
        tuned / base: below 1 the model has learned.
    """
    base = measure(open_base(), batches, progress=progress, description="base model")
    tuned = measure(open_tuned(), batches, progress=progress, description="tuned model")
    return {"base": asdict(base), "tuned": asdict(tuned), "perplexity_ratio": tuned.perplexity / base.perplexity}
