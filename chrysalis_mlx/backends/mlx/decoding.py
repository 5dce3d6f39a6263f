"""Texts continued token by token, with mlx-lm's caches of keys and values (contract: backends/base.py)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx_lm.models.cache import make_prompt_cache

from chrysalis_mlx.backends.base import Choose
from chrysalis_mlx.backends.mlx import blas
from chrysalis_mlx.backends.mlx.model import PackedModel

# Tokens of the prompts that go through the layers at once: enough for a fast matrix product, and few enough for the
# scores of all of them against all keys, which exist on a processor and in gemma2.
PREFILL = 512


def continued(
    model: PackedModel, prompts: npt.NDArray[np.int32], choose: Choose, bind: Callable[[], None]
) -> Iterator[npt.NDArray[np.int32]]:
    """The tokens that follow, see `Engine.continued`. Closing the iterator frees the cache.

    Args:
        bind: called before each pass; puts the adapter's values into the model.

    Raises:
        ModelError: a text gets longer than the model's sliding window, and mlx-lm's model has none.
    """
    cache = make_prompt_cache(model.module)
    tokens = prompts
    while True:
        bind()
        chosen = choose(_logits(model, tokens, cache))
        yield chosen
        tokens = chosen[:, None]


def _logits(model: PackedModel, tokens: npt.NDArray[np.int32], cache: list[Any]) -> npt.NDArray[np.float32]:
    """(B, n) token ids that follow those in the cache -> (B, V), of the token after the last; the cache grows.

    What is lazy holds all that it is computed from, and belongs to the calling thread. Nothing in the cache stays so:
    the logits depend on all of it.
    """
    blas.use_threads(os.cpu_count() or 1)  # lanes leave one to each
    size = max(1, PREFILL // len(tokens))
    *parts, last = np.split(tokens, range(size, tokens.shape[1], size), axis=1)
    for part in parts:
        model.extended(mx.array(part), cache)
        mx.eval([layer.state for layer in cache])  # or all parts' scores would wait for the last
    hidden = model.extended(mx.array(last), cache)  # (B, n, H)
    return np.array(model.head(hidden[:, -1]).astype(mx.float32))
