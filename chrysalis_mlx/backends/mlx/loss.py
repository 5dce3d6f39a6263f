"""The training loss in MLX, fused with the output head (definition: backends/reference.py).

Only positions that have a target reach the head, a chunk of them at a time: logits of all positions, the largest thing
that training a small model would hold, never exist. A chunk gives its loss and, in the same pass, the gradient of its
hidden states, so that the backward pass of the head is one multiplication (as in Liger-Kernel, arXiv 2410.10989).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from chrysalis_mlx.backends.mlx.exponential import exp, on_cpu

Head = Callable[[mx.array], mx.array]

_CPU_ELEMENTS, _GPU_ELEMENTS = 4 << 20, 64 << 20  # logits in a chunk: 17 MB in float32; 268 MB
_FEWEST = 64  # below this a product with the head is not worth its reading
_WIDTH = 512


def chunk_size(vocabulary: int) -> int:
    """Positions that pass through the head at once."""
    return max(_FEWEST, (_CPU_ELEMENTS if on_cpu() else _GPU_ELEMENTS) // vocabulary // 16 * 16)


def fused_loss_sum(
    head: Head,
    hidden: mx.array,
    targets: mx.array,
    size: int,
    *,
    weights: mx.array | None = None,
    learn: bool = True,
) -> mx.array:
    """Sum of −log p of the targets, each times its weight, in nats, float32; differentiable in `hidden` alone.

    Args:
        head: (n, H) hidden states to (n, V) logits, soft-caps and scales included; its weights are frozen.
        hidden: (N, H), only positions that have a target.
        targets: (N,) integer.
        size: positions in a chunk.
        weights: (N,) float32; None for 1.
        learn: compute the gradient as well.
    """
    weights = mx.ones(targets.shape) if weights is None else weights

    def chunk_loss(hidden: mx.array, targets: mx.array, weights: mx.array) -> mx.array:
        return (nll(head(hidden), targets) * weights).sum()

    if not learn:
        chunks = _in_chunks(lambda *parts: (chunk_loss(*parts),), size, hidden, targets, weights)
        return mx.stack([loss for (loss,) in chunks]).sum()

    def fused_rule(hidden: mx.array) -> tuple[mx.array, ...]:
        chunks = _in_chunks(mx.value_and_grad(chunk_loss), size, hidden, targets, weights)
        total = mx.stack([loss for loss, _ in chunks]).sum()
        return total, mx.concatenate([gradient for _, gradient in chunks], axis=0)

    fused: Any = mx.custom_function(fused_rule)

    def pull(_: mx.array, cotangents: list[mx.array], outputs: list[mx.array]) -> mx.array:
        return outputs[1] * cotangents[0].astype(outputs[1].dtype)

    fused.vjp(pull)
    total: mx.array = fused(hidden)[0]
    return total


def target_logprobs(head: Head, hidden: mx.array, targets: mx.array, size: int) -> mx.array:
    """log p of each target, (N,) float32, in nats; the arguments are those of `fused_loss_sum`."""
    if not targets.size:
        return mx.zeros((0,))
    chunks = _in_chunks(lambda hidden, targets: (-nll(head(hidden), targets),), size, hidden, targets)
    return mx.concatenate([log_p for (log_p,) in chunks])


def nll(logits: mx.array, targets: mx.array) -> mx.array:
    """−log p of each target, in nats, float32.

    Args:
        logits: (N, V), any float dtype: they are taken to float32 first, because on the CPU MLX reduces in the dtype
            it is given.
        targets: (N,) integer.
    """
    cross_entropy: Any = _cross_entropy
    result: mx.array = cross_entropy(logits.astype(mx.float32), targets)[0]
    return result


@mx.custom_function
def _cross_entropy(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    top = logits.max(axis=-1, keepdims=True)
    p = exp(logits - top)
    total = _sum(p)[:, None]  # (N, 1)
    chosen = mx.take_along_axis(logits, targets[:, None], axis=-1)
    return (top + mx.log(total) - chosen)[:, 0], p, total


@_cross_entropy.vjp
def _pull_cross_entropy(
    primals: list[mx.array], cotangents: list[mx.array], outputs: list[mx.array]
) -> tuple[mx.array, mx.array]:
    targets, weight, (_, p, total) = primals[1][:, None], cotangents[0][:, None], outputs
    gradient = p * (weight / total)
    at_target = mx.take_along_axis(gradient, targets, axis=-1) - weight
    return mx.put_along_axis(gradient, targets, at_target, axis=-1), mx.zeros_like(primals[1])


def _in_chunks(
    function: Callable[..., tuple[mx.array, ...]], size: int, hidden: mx.array, *others: mx.array
) -> list[tuple[mx.array, ...]]:
    """What the function makes of each chunk of positions, one chunk after the other.

    Args:
        function: gets a chunk of `hidden` and of each of the others. What it gives first is had with all of the rest.
    """
    found: list[tuple[mx.array, ...]] = []
    for first in range(0, hidden.shape[0], size):
        part, *more = (whole[first : first + size] for whole in (hidden, *others))
        if found:
            part = mx.depends([part], [found[-1][0]])[0]  # two chunks must not be in memory at once
        value, *rest = function(part, *more)
        if rest:
            # The loss must not be had without the gradient, or all chunks' logits would wait for their turn.
            value = mx.depends([value], rest)[0]
        found.append((value, *rest))
    return found


def _sum(p: mx.array) -> mx.array:
    """Sum over the last axis, in two stages.

    On the CPU, MLX adds up a row one term after the other. Over 49,152 float32 terms that loses the small ones: 7e-5
    too little on average, always to the same side. Sums of at most 512 terms, summed again, are 400 times closer.
    """
    vocabulary = p.shape[-1]
    width = max(divisor for divisor in range(1, _WIDTH + 1) if vocabulary % divisor == 0)
    if width == 1:
        return p.sum(axis=-1)
    return p.reshape(*p.shape[:-1], vocabulary // width, width).sum(axis=-1).sum(axis=-1)
