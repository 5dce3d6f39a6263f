"""A model without a framework: what comes next depends on the last token alone, by a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.backends.base import Choose
from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.batches.tokens import Segment


class BigramEngine:
    """Logits of the next token are a row of `table`, (V, V).

    Attributes:
        batches: how many were predicted.
        steps: how many tokens were generated, of all texts together.
    """

    name = device = dtype = "bigram"

    def __init__(self, table: npt.NDArray[np.float32]) -> None:
        self.table = table
        self.log_p = table - np.logaddexp.reduce(table.astype(np.float64), axis=1, keepdims=True)
        self.batches = self.steps = 0

    def target_logprobs(self, batch: Batch) -> npt.NDArray[np.float32]:
        self.batches += 1
        return np.where(batch.mask, self.log_p[batch.tokens, batch.targets], 0).astype(np.float32)

    def continued(self, prompts: npt.NDArray[np.int32], choose: Choose) -> Iterator[npt.NDArray[np.int32]]:
        last = prompts[:, -1]
        while True:
            last = choose(self.table[last])
            self.steps += len(last)
            yield last


def random_table(vocabulary: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.Generator(np.random.PCG64(seed)).normal(0, 2, (vocabulary, vocabulary)).astype(np.float32)


def cycle(vocabulary: int) -> npt.NDArray[np.float32]:
    """The likeliest token after n is n + 1, by far."""
    return 20 * np.roll(np.eye(vocabulary, dtype=np.float32), 1, axis=1)


def segment(tokens: Sequence[int], learned_from: int = 1) -> Segment:
    return Segment(np.array(tokens, np.int32), np.arange(len(tokens)) >= learned_from)
