"""What torch says of itself and of its device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def facts() -> dict[str, Any]:
    """See `chrysalis_mlx.backends.facts`; `error` is the largest difference of a matrix product."""
    a, b = np.random.default_rng(0).normal(size=(2, 64, 64)).astype(np.float32)
    product = (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()
    return {
        "version": torch.__version__,
        "device": "cpu",  # the engine's
        "name": "",
        "error": float(np.abs((product - a.astype(np.float64) @ b) / 64).max()),
    }
