"""The training loss in torch (definition: backends/reference.py)."""

from __future__ import annotations

import torch


def loss_sum(logits: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Sum of −log p over the targets that count, in nats, float32.

    Args:
        logits: (B, T, V).
        targets: (B, T) integer.
        mask: (B, T) bool.
    """
    chosen, wanted = logits[mask].float(), targets[mask].long()  # (N, V), (N,)
    return torch.nn.functional.cross_entropy(chosen, wanted, reduction="sum")
