"""Texts continued token by token, with transformers' cache of keys and values (contract: backends/base.py)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from chrysalis_mlx.backends.base import Choose
from chrysalis_mlx.backends.torch.loss import Head

# Tokens of the prompts that go through the layers at once: enough for a fast matrix product, and few enough for the
# scores of all of them against all keys, which exist where transformers' own attention is used.
PREFILL = 512


def continued(
    model: Any, head: Head, prompts: npt.NDArray[np.int32], choose: Choose
) -> Iterator[npt.NDArray[np.int32]]:
    """The tokens that follow, see `Engine.continued`. Closing the iterator frees the cache."""
    turn = _turn(model.config)
    text, known, cache = prompts, 0, _new_cache(model)  # (B, T), of which the cache has the first so many
    while True:
        size = max(1, PREFILL // len(text))
        if known <= turn < text.shape[1]:
            # All positions rotate by other angles now, so what the cache has is of no use; they do so only in a pass
            # that reaches beyond the turn, so that this one must take the whole text.
            known, cache, size = 0, _new_cache(model), text.shape[1]
        chosen = choose(_logits(model, head, text[:, known:], cache, size))
        known = text.shape[1]
        yield chosen
        text = np.concatenate([text, chosen[:, None]], axis=1)


@torch.no_grad()
def _logits(
    model: Any, head: Head, tokens: npt.NDArray[np.int32], cache: dict[str, Any], size: int
) -> npt.NDArray[np.float32]:
    """(B, n) token ids that follow those in the cache -> (B, V), of the token after the last; the cache grows.

    Args:
        size: tokens of each text that go through the layers at once.
    """
    decoder = getattr(model, model.base_model_prefix)
    for first in range(0, tokens.shape[1], size):
        part = torch.tensor(tokens[:, first : first + size], dtype=torch.long)
        states = decoder(input_ids=part, use_cache=True, **cache).last_hidden_state  # (B, n, H)
    logits: npt.NDArray[np.float32] = head(states[:, -1]).float().numpy()
    return logits


def _new_cache(model: Any) -> dict[str, Any]:
    """An empty cache, by the name that transformers has for the argument: in 5.x `past_key_values` became `cache`."""
    decoder = getattr(model, model.base_model_prefix)
    name = "cache" if "cache" in inspect.signature(decoder.forward).parameters else "past_key_values"
    return {name: transformers.DynamicCache(config=model.config)}


def _turn(config: Any) -> float:
    """The length of text beyond which LongRoPE (arXiv 2402.13753) rotates all positions by other angles."""
    rope = getattr(config, "rope_parameters", None) or {}
    return float(rope["original_max_position_embeddings"]) if rope.get("rope_type") == "longrope" else math.inf
