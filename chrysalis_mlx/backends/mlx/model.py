"""mlx-lm's models, fed packed rows."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.utils import load_model as load_mlx_lm_model

from chrysalis_mlx.errors import ModelError

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


class PackedMask:
    """Stands where mlx-lm expects a key-value cache, and hands every layer the mask of packed rows.

    All mlx-lm models ask their cache for the mask and for the keys and values to attend to; this one keeps none.

    Args:
        segments: (B, T) integer, see `batches.packing.Batch`.
    """

    offset = 0

    def __init__(self, segments: mx.array) -> None:
        self._same = segments[:, None, :, None] == segments[:, None, None, :]  # (B, 1, T, T)

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        positions = mx.arange(N)
        allowed = positions[:, None] >= positions[None, :]
        if window_size is not None:
            allowed = allowed & (positions[:, None] < positions[None, :] + window_size)
        return self._same & allowed

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        return keys, values


def load_model(directory: Path, dtype: str) -> tuple[nn.Module, str]:
    """mlx-lm's model of a directory, frozen.

    Returns:
        the model, and the name of the dtype that `dtype` ("auto" too) came to.

    Raises:
        ModelError: mlx-lm does not know the architecture, or the weights do not fit it.
    """
    if sys.platform == "linux" and shutil.which("g++") is None:
        mx.disable_compile()  # on the CPU MLX compiles fused kernels by calling this name
    try:
        model, _ = load_mlx_lm_model(directory, lazy=True)
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise ModelError(f"mlx-lm cannot load the model: {error}", where=directory) from error
    if dtype == "auto":
        on_cpu = mx.default_device() == mx.Device(mx.cpu)
        dtype = "float32" if on_cpu else _dtype_of(model)
    model.set_dtype(DTYPES[dtype])
    model.eval()
    model.freeze()
    mx.eval(model.parameters())
    return cast(nn.Module, model), dtype


def logits(model: Any, tokens: mx.array, segments: mx.array) -> mx.array:
    """(B, T) token ids of packed rows -> (B, T, V)."""
    mask = PackedMask(segments)
    return cast(mx.array, model(tokens, cache=[mask] * len(model.layers)))


def _dtype_of(model: Any) -> str:
    stored = model.model.embed_tokens.weight.dtype
    return next((name for name, dtype in DTYPES.items() if dtype == stored), "float32")
