"""The training loss in torch, fused with the output head (definition: backends/reference.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Head = Callable[[torch.Tensor], torch.Tensor]
"""(n, H) hidden states -> (n, V) logits; frozen."""

# Logits that exist at once: 256 positions of 151,936 tokens are 156 MB. On a CPU 128 to 1024 positions are equally
# fast to 5%; fewer are slower, because the head's weight is read once a chunk.
CHUNK = 256


def loss_sum(hidden: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor, head: Head) -> torch.Tensor:
    """Sum of −log p over the targets that count, in nats, float32.

    Positions without a target never reach the head, and logits exist for CHUNK positions at a time. The gradient of the
    hidden states is found on the way, while a chunk's logits are there; the backward pass only scales it.

    Args:
        hidden: (B, T, H) last hidden states.
        targets: (B, T) integer.
        mask: (B, T) bool.
        head: from hidden states to logits; it gets no gradient.
    """
    total: torch.Tensor = _LossSum.apply(hidden[mask], targets[mask].long(), head)  # type: ignore[no-untyped-call]
    return total


def target_logprobs(hidden: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor, head: Head) -> torch.Tensor:
    """log p of every target, (B, T) float32, in nats; 0 where the mask is off. Arguments and chunks of `loss_sum`."""
    chosen, wanted = hidden[mask], targets[mask].long()
    found = torch.zeros(len(wanted))
    for start in range(0, len(wanted), CHUNK):
        rows = slice(start, start + CHUNK)
        found[rows] = _log_softmax(head(chosen[rows])).gather(1, wanted[rows, None])[:, 0]
    return torch.zeros(mask.shape).masked_scatter(mask, found)


class _LossSum(torch.autograd.Function):
    """(N, H) hidden states, (N,) targets -> the sum; the head is applied chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(targets), CHUNK):
            rows = slice(start, start + CHUNK)
            loss, of_chunk = _chunk(hidden[rows], targets[rows, None], head, gradient is not None)
            total += loss
            if gradient is not None and of_chunk is not None:
                gradient[rows] = of_chunk
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.gradient * grad_outputs[0], None, None


def _chunk(
    hidden: torch.Tensor, targets: torch.Tensor, head: Head, backward: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The sum over (n, H) hidden states and (n, 1) targets, and its gradient when asked for."""
    with torch.set_grad_enabled(backward):
        hidden = hidden.detach().requires_grad_(backward)
        logits = head(hidden)  # (n, V)
    log_p = _log_softmax(logits.detach())
    loss = -log_p.gather(1, targets).sum()
    if not backward:
        return loss, None
    dlogits = log_p.exp_()
    dlogits.scatter_add_(1, targets, dlogits.new_full(targets.shape, -1.0))  # p − 1 at the target
    (gradient,) = torch.autograd.grad(logits, hidden, dlogits.to(logits.dtype))
    return loss, gradient


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """(n, V) in any float dtype -> log p, float32."""
    return torch.log_softmax(logits.float(), dim=-1)
