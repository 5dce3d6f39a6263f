"""The loss over a vocabulary of real size."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import torch

from chrysalis_mlx.backends import reference
from chrysalis_mlx.backends.mlx.loss import loss_sum as mlx_loss_sum
from chrysalis_mlx.backends.torch.loss import loss_sum as torch_loss_sum


@pytest.mark.parametrize("vocabulary", [49_152, 151_936, 32_003, 509])  # 32,003 is prime
def test_the_loss_does_not_drift_with_the_size_of_the_vocabulary(vocabulary: int) -> None:
    random = np.random.default_rng(vocabulary)
    logits = random.normal(0.0, 3.0, (1, 24, vocabulary)).astype(np.float32)
    logits[..., 0] += 12.0  # one likely token, and very many unlikely ones
    targets = random.integers(0, vocabulary, (1, 24)).astype(np.int32)
    mask = np.arange(24)[None] % 3 > 0
    expected, count, _ = reference.loss_sum(logits.astype(np.float64), targets, mask)
    assert count == 16
    found = mlx_loss_sum(mx.array(logits), mx.array(targets), mx.array(mask)).item()
    # A prime vocabulary cannot be summed in two stages; it keeps MLX's own rounding.
    assert found == pytest.approx(expected, rel=1e-4 if vocabulary == 32_003 else 1e-6)
    tensors = torch.from_numpy(logits), torch.from_numpy(targets), torch.from_numpy(mask)
    assert torch_loss_sum(*tensors).item() == pytest.approx(expected, rel=1e-6)
