"""Rotary positions: the base, and the scalings of Llama 3 and of Phi 3, in config.json and in a GGUF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ExportError, ModelError

Array = npt.NDArray[np.float32]
Scaling = tuple[tuple[str, float], ...]
ROPE_FREQS = "rope_freqs.weight"
LONGROPE = ("longrope", "su", "yarn")


def rope_section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What config.json says of the rotary positions; of those of full attention where each kind of layer has its own.

    transformers >= 5 writes rope_parameters; before, rope_scaling (may be null) beside a top-level rope_theta.
    """
    section: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return rope_of_layers(config, "full_attention") or section


def rope_of_layers(config: Mapping[str, Any], layer_type: str) -> Mapping[str, Any] | None:
    """The own section of one kind of layer; None where all share one."""
    own = (config.get("rope_parameters") or {}).get(layer_type)
    return own if isinstance(own, Mapping) else None


def rope_type(section: Mapping[str, Any]) -> str:
    """The kind of scaling that a section names, "default" for none."""
    return str(section.get("rope_type", section.get("type")) or "default")


def rope_theta(config: Mapping[str, Any]) -> float:
    """The rotary base.

    Raises:
        ExportError: the config has none.
    """
    value = rope_section(config).get("rope_theta") or config.get("rope_theta")
    if value is None:
        raise ExportError("config.json names no rope_theta", where="config.json", fix="add it; Llama 2 has 10000.0")
    return float(value)


def llama3_scaling(config: Mapping[str, Any]) -> Scaling | None:
    """Llama 3's four numbers, None without that scaling."""
    rope = rope_section(config)
    if rope_type(rope) != "llama3":
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


@dataclass(frozen=True)
class LongRope:
    """LongRoPE (arXiv 2402.13753): one set of divisors for short contexts, one for long ones.

    Attributes:
        short, long: divisors of the rotary frequencies, (rotary dimensions / 2,).
        original: tokens up to which a context is short.
        attention: cosine and sine are multiplied by it.
    """

    short: Array
    long: Array
    original: int
    attention: float


def longrope(config: Mapping[str, Any]) -> LongRope | None:
    """Phi 3's scaling; "su" and "yarn" are older names of it there. None without scaling.

    Source: transformers `_compute_longrope_parameters` and `Phi3Config.convert_rope_params_to_dict`.
    """
    rope = rope_section(config)
    if rope_type(rope) not in LONGROPE:
        return None
    original = int(config.get("original_max_position_embeddings") or rope["original_max_position_embeddings"])
    factor = float(rope.get("factor") or int(config["max_position_embeddings"]) / original)
    attention = rope.get("attention_factor")
    if attention is None:
        attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    short, long = (np.array(rope[key], np.float32) for key in ("short_factor", "long_factor"))
    return LongRope(short, long, original, float(attention))


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
