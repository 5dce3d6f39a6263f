"""Which rows make the batch of a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chrysalis_mlx.batches.packing import Batch, assemble, pack
from chrysalis_mlx.batches.tokens import Segment


class PackedRows:
    """A corpus packed into rows, in an order that depends on nothing but the corpus and the seed.

    Args:
        segments: the corpus.
        row_length: T, tokens in a row.
        corpus_sha256: hash of the corpus file, in hexadecimal.
        seed: of the order.
    """

    def __init__(self, segments: Sequence[Segment], row_length: int, corpus_sha256: str, seed: int) -> None:
        self.segments = segments
        self.row_length = row_length
        self.rows = pack(segments, row_length)
        self._entropy = [seed, int(corpus_sha256[:16], 16)]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fill(self) -> float:
        """Share of the rows' positions that hold a token."""
        return sum(len(segment.tokens) for segment in self.segments) / (len(self) * self.row_length)

    def micro_batches(self, step: int, batch_size: int, accumulation: int) -> list[Batch]:
        """The micro-batches of one optimizer step: a pure function of (corpus hash, seed, step).

        Rows are drawn without replacement, in a new order each epoch; a batch may span two epochs. No row is dropped.
        """
        per_step = batch_size * accumulation
        chosen = [self._row_at(position) for position in range(step * per_step, (step + 1) * per_step)]
        return [self._assemble(chosen[at : at + batch_size]) for at in range(0, per_step, batch_size)]

    def in_order(self, batch_size: int, limit: int | None = None) -> list[Batch]:
        """Fixed batches of the first `limit` rows of a seeded order, for measuring."""
        chosen = [self._row_at(position) for position in range(len(self) if limit is None else min(limit, len(self)))]
        return [self._assemble(chosen[at : at + batch_size]) for at in range(0, len(chosen), batch_size)]

    def _row_at(self, position: int) -> int:
        epoch, index = divmod(position, len(self))
        generator = np.random.Generator(np.random.PCG64([*self._entropy, epoch]))
        return int(generator.permutation(len(self))[index])

    def _assemble(self, rows: Sequence[int]) -> Batch:
        return assemble([[self.segments[i] for i in self.rows[row]] for row in rows], self.row_length)
