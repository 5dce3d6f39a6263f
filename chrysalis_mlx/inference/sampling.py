"""The next token, drawn as llama.cpp draws it; for engines that give logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

DEFAULTS: Mapping[str, float] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "repeat_penalty": 1.0,
}
"""llama.cpp's, where nothing is said."""

_PENALIZED = 64  # tokens back


class Sampler:
    """Draws the tokens of one text: repeat penalty, top k, top p, min p and temperature, in llama.cpp's order.

    Args:
        sampling: what is said of it; 0 switches top_k off, temperature 0 takes the likeliest.
        seed: the same one draws the same text.
        before: the tokens so far, for the penalty.
    """

    def __init__(self, sampling: Mapping[str, float], seed: int, before: Sequence[int] = ()) -> None:
        self._settings = {**DEFAULTS, **sampling}
        self._random = np.random.default_rng(seed)
        self._tokens = list(before[-_PENALIZED:])

    def choose(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """(1, V) logits to (1,) the token."""
        scores = self._penalized(logits[0].astype(np.float64))
        temperature = self._settings["temperature"]
        if temperature <= 0:
            token = int(np.argmax(scores))
        else:
            kept = self._kept(scores)
            weights = np.exp((scores[kept] - scores[kept[0]]) / temperature)
            token = int(self._random.choice(kept, p=weights / weights.sum()))
        self._tokens = [*self._tokens[1 - _PENALIZED :], token]
        return np.array([token], np.int32)

    def _penalized(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        penalty, seen = self._settings["repeat_penalty"], list(set(self._tokens))
        if penalty != 1 and seen:
            values = scores[seen]
            scores[seen] = np.where(values > 0, values / penalty, values * penalty)
        return scores

    def _kept(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """Ids of the tokens that may be drawn, the likeliest first."""
        top_k = int(self._settings["top_k"])
        kept = np.argsort(-scores, kind="stable")[: top_k if top_k > 0 else None]
        probabilities = np.exp(scores[kept] - scores[kept[0]])
        probabilities /= probabilities.sum()
        if self._settings["top_p"] < 1:
            # The one that reaches the sum stays.
            count = int(np.searchsorted(np.cumsum(probabilities), self._settings["top_p"])) + 1
            kept, probabilities = kept[:count], probabilities[:count]
        likely: npt.NDArray[np.bool_] = probabilities >= self._settings["min_p"] * probabilities[0]
        return kept[likely]
