"""Rotary positions: the base, and Llama 3's scaling of it, in config.json and in a GGUF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ExportError, ModelError

Array = npt.NDArray[np.float32]
Scaling = tuple[tuple[str, float], ...]
ROPE_FREQS = "rope_freqs.weight"


def rope_section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """transformers >= 5 writes rope_parameters; before, rope_scaling (may be null) beside a top-level rope_theta."""
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def rope_theta(config: Mapping[str, Any]) -> float:
    """The rotary base.

    Raises:
        ExportError: the config has none.
    """
    value = config.get("rope_theta") or rope_section(config).get("rope_theta")
    if value is None:
        raise ExportError("config.json names no rope_theta", where="config.json", fix="add it; Llama 2 has 10000.0")
    return float(value)


def llama3_scaling(config: Mapping[str, Any]) -> Scaling | None:
    """Llama 3's four numbers, None without that scaling."""
    rope = rope_section(config)
    if rope.get("rope_type", rope.get("type", "default")) != "llama3":
        return None
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    return tuple((key, float(rope[key])) for key in keys)


def llama3_factors(head_dim: int, theta: float, scaling: Mapping[str, float]) -> Array:
    """Llama 3.1's rotary scaling as one divisor per frequency.

    Source: transformers `_compute_llama3_parameters`, which divides the frequencies; GGUF holds the divisors.
    """
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling["original_max_position_embeddings"]
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    smooth = (original / wavelengths - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(wavelengths < original / high, 1.0, np.where(wavelengths > original / low, factor, between))
    return factors.astype(np.float32)


def recognize_llama3(factors: Array | None, head_dim: int, theta: float) -> Scaling | None:
    """The scaling that gives these divisors; a GGUF does not say it, so Llama 3's published values are tried.

    Raises:
        ModelError: other values made them.
    """
    if factors is None:
        return None
    scaling = {
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192.0,
    }
    expected = llama3_factors(head_dim, theta, scaling)
    if expected.shape != factors.shape or not np.allclose(expected, factors, rtol=1e-5):
        raise ModelError(f"{ROPE_FREQS} is not a scaling of Llama 3")
    return tuple(scaling.items())
