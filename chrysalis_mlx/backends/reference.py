"""The definitions, in float64 numpy: the oracle that both backends are proved against.

Each function gives its result and, as its last value, a `pull` that turns the gradient of the result into the gradients
of what went in. Slow and plain on purpose; nothing here runs in production.

Notation: x (..., in), W (out, in), b (out,) or None, A (r, in), B (out, r), m (out,), s = alpha / r.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Pull = Callable[[Array], tuple[Array, ...]]


def lora(x: Array, W: Array, b: Array | None, A: Array, B: Array, s: float) -> tuple[Array, Pull]:
    """y = x Wᵀ + b + s · (x Aᵀ) Bᵀ (arXiv 2106.09685).

    Returns:
        y (..., out), and pull: dy -> (dx, dA, dB).
    """
    low = x @ A.T
    y = x @ W.T + s * low @ B.T + (0.0 if b is None else b)

    def pull(dy: Array) -> tuple[Array, ...]:
        dlow = s * dy @ B
        dx = dy @ W + dlow @ A
        return dx, _outer(dlow, x), s * _outer(dy, low)

    return y, pull


def dora(x: Array, W: Array, b: Array | None, A: Array, B: Array, m: Array, s: float) -> tuple[Array, Pull]:
    """y = (m / n) ⊙ (x Wᵀ + s · (x Aᵀ) Bᵀ) + b with n = ‖W + s·B·A‖ per output row (arXiv 2402.09353).

    n is a constant in the gradient (section 4.3 of the paper), and the bias is not scaled.

    Returns:
        y (..., out), and pull: dy -> (dx, dA, dB, dm).
    """
    n = adapted_norm(W, A, B, s)
    inner, pull_inner = lora(x, W, None, A, B, s)
    y = (m / n) * inner + (0.0 if b is None else b)

    def pull(dy: Array) -> tuple[Array, ...]:
        dm = (dy * inner / n).reshape(-1, len(m)).sum(axis=0)
        return (*pull_inner(dy * (m / n)), dm)

    return y, pull


def adapted_norm(W: Array, A: Array, B: Array, s: float) -> Array:
    """‖W + s·B·A‖ of every output row, (out,), without building the (out, in) matrix.

    n² = ‖W‖² + 2s·Σ(W Aᵀ ⊙ B) + s²·Σ((B (A Aᵀ)) ⊙ B), row by row: O(out · in · r) time, O(out · r) memory.
    """
    squared = (W * W).sum(axis=1) + 2 * s * ((W @ A.T) * B).sum(axis=1) + s * s * ((B @ (A @ A.T)) * B).sum(axis=1)
    norm: Array = np.sqrt(squared)
    return norm


def loss_sum(
    logits: Array, targets: npt.NDArray[np.int32], mask: npt.NDArray[np.bool_]
) -> tuple[float, int, Callable[[float], Array]]:
    """Sum of −log p over the targets that count, in nats.

    The loss of an optimizer step is this sum over all its micro-batches divided by the number of their targets:
    weighted by tokens, never a mean of means.

    Args:
        logits: (B, T, V).
        targets: (B, T).
        mask: (B, T).

    Returns:
        the sum, the number of targets, and pull: d(sum) -> dlogits.
    """
    log_p = _log_softmax(logits)

    def pull(dsum: float) -> Array:
        dlogits: Array = np.exp(log_p)
        np.put_along_axis(dlogits, targets[..., None], np.take_along_axis(dlogits, targets[..., None], -1) - 1.0, -1)
        dlogits *= mask[..., None] * dsum
        return dlogits

    return float(-target_logprobs(logits, targets, mask).sum()), int(mask.sum()), pull


def target_logprobs(logits: Array, targets: npt.NDArray[np.int32], mask: npt.NDArray[np.bool_]) -> Array:
    """log p of every target, in nats, (B, T); 0 where the mask is off. The arguments are those of `loss_sum`."""
    chosen: Array = np.take_along_axis(_log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return np.where(mask, chosen, 0.0)


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_p


def _outer(left: Array, right: Array) -> Array:
    """Σ leftᵀ right over all positions: (..., p), (..., q) -> (p, q)."""
    product: Array = left.reshape(-1, left.shape[-1]).T @ right.reshape(-1, right.shape[-1])
    return product
