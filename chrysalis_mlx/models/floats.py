"""Floats of 16 bits in numpy, which has no bfloat16: it is its bits in uint16."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ModelError

Array = npt.NDArray[np.float32]


def to_float16(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    """Round to float16.

    Raises:
        ModelError: a finite value is beyond 65504; `name` is the tensor it speaks of.
    """
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.array_equal(np.isinf(half), np.isinf(values)):
        raise ModelError(
            f"the tensor {name} has values up to {np.abs(values).max():.6g}, too large for float16 (65504)",
            fix="write bfloat16 or float32 instead",
        )
    return half


def to_bfloat16(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The bits of float32 values rounded to bfloat16, to nearest, ties to even; NaN stays NaN."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    rounded = ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(
        np.uint16
    )
    quiet = ((bits >> np.uint32(16)) | np.uint32(64)).astype(np.uint16)
    result: npt.NDArray[np.uint16] = np.where(np.isnan(values), quiet, rounded)
    return result


def from_bfloat16(bits: npt.NDArray[np.uint16]) -> Array:
    """float32 values of bfloat16 bits, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
