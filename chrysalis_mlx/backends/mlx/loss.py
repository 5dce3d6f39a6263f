"""The training loss in MLX (definition: backends/reference.py)."""

from __future__ import annotations

import mlx.core as mx


def loss_sum(logits: mx.array, targets: mx.array, mask: mx.array) -> mx.array:
    """Sum of −log p over the targets that count, in nats, float32.

    The logits are taken to float32 first: on the CPU, MLX reduces in the dtype it is given.

    Args:
        logits: (B, T, V).
        targets: (B, T) integer.
        mask: (B, T) bool.
    """
    logits = logits.astype(mx.float32)
    chosen = mx.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]  # (B, T)
    return ((mx.logsumexp(logits, axis=-1) - chosen) * mask).sum()
