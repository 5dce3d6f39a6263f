"""What MLX says of itself and of its device."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import mlx.core as mx
import numpy as np

from chrysalis_mlx.backends.mlx import blas


def facts() -> dict[str, Any]:
    """See `chrysalis_mlx.backends.facts`; `error` is the largest difference in a product and in a compiled function.

    The compiled function makes MLX call its compiler, if it has not kept the result from an earlier time.
    """
    a, b = np.random.default_rng(0).normal(size=(2, 64, 64)).astype(np.float32)
    product = np.array(mx.array(a) @ mx.array(b))
    compiled = np.array(mx.compile(lambda x: mx.exp(-x * x) * x + 1)(mx.array(a)))
    differences = (product - a.astype(np.float64) @ b) / 64, compiled - (np.exp(-a * a) * a + 1)
    device = mx.default_device()
    info = mx.device_info()
    working_set = info.get("max_recommended_working_set_size") if mx.metal.is_available() else None
    return {
        "version": metadata.version("mlx"),
        "device": "gpu" if device.type == mx.DeviceType.gpu else "cpu",
        "name": str(info.get("device_name", "")),
        "working_set": None if working_set is None else int(working_set),
        "blas": blas.serving(),
        "error": max(float(np.abs(difference).max()) for difference in differences),
    }
