"""The training loss in MLX (definition: backends/reference.py)."""

from __future__ import annotations

import mlx.core as mx

_WIDTH = 512


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
    return ((logsumexp(logits) - chosen) * mask).sum()


def logsumexp(logits: mx.array) -> mx.array:
    """log Σ exp over the last axis, in two stages.

    On the CPU, MLX adds up a row one term after the other. Over 49,152 float32 terms that loses the small ones: 7e-5
    too little on average, always to the same side. Sums of at most 512 terms, summed again, are 400 times closer.

    Args:
        logits: (..., V) float32.
    """
    vocabulary = logits.shape[-1]
    width = max(divisor for divisor in range(1, _WIDTH + 1) if vocabulary % divisor == 0)
    if width == 1:
        return mx.logsumexp(logits, axis=-1)
    parts = logits.reshape(*logits.shape[:-1], vocabulary // width, width)
    return mx.logsumexp(mx.logsumexp(parts, axis=-1), axis=-1)
