"""Which rows make the batch of a step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.batches.packing import Batch, assemble, pack, pack_in_order
from chrysalis_mlx.batches.tokens import Segment

OrderKind = Literal["shuffled", "curriculum", "annealed"]


class PackedRows:
    """A corpus packed into rows, in an order that depends on nothing but the corpus and the seed.

    An epoch is a sequence of rows that holds every row: `shuffled` anew each time, each row once; `curriculum`, each
    once in the order of the corpus; `annealed`, that with `replay` earlier rows, drawn anew each time, after every row.

    Args:
        segments: the corpus.
        row_length: T, tokens in a row.
        corpus_sha256: hash of the corpus file, in hexadecimal.
        seed: of the order.
        kind: of order.
        replay: of annealed; 0.25 is one earlier row after every four.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        row_length: int,
        corpus_sha256: str,
        seed: int,
        *,
        kind: OrderKind = "shuffled",
        replay: float = 0.25,
    ) -> None:
        self.segments = segments
        self.row_length = row_length
        self.rows = pack(segments, row_length) if kind == "shuffled" else pack_in_order(segments, row_length)
        self._entropy = [seed, int(corpus_sha256[:16], 16)]
        self._replay = {"shuffled": None, "curriculum": 0.0, "annealed": replay}[kind]
        self._epoch = lru_cache(maxsize=2)(self._sequence)  # a batch may span two

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def epoch_length(self) -> int:
        """Rows of an epoch, those that come back included."""
        return len(self._epoch(0))

    @property
    def fill(self) -> float:
        """Share of the rows' positions that hold a token."""
        return sum(len(segment.tokens) for segment in self.segments) / (len(self) * self.row_length)

    def micro_batches(self, step: int, batch_size: int, accumulation: int, rank: int = 0, size: int = 1) -> list[Batch]:
        """The micro-batches of one optimizer step: a pure function of (corpus hash, seed, step).

        A batch may span two epochs. No row is dropped.

        Args:
            batch_size, accumulation: rows of a micro-batch, and how many of these make a step of all processes.
            rank, size: of `size` processes, the share of this one: contiguous, and as even as can be. It may be empty.
        """
        per_step = batch_size * accumulation
        first, end = (step * per_step + per_step * number // size for number in (rank, rank + 1))
        chosen = [self._row_at(position) for position in range(first, end)]
        return [self._assemble(chosen[at : at + batch_size]) for at in range(0, len(chosen), batch_size)]

    def in_order(self, batch_size: int, limit: int | None = None) -> list[Batch]:
        """Fixed batches of the first `limit` rows of a seeded order, for measuring; no row twice."""
        chosen = self._first(limit)
        return [self._assemble(chosen[at : at + batch_size]) for at in range(0, len(chosen), batch_size)]

    def members(self, limit: int | None = None) -> list[list[int]]:
        """Which segments, by their place in the corpus, are in each of the rows of `in_order`."""
        return [self.rows[row] for row in self._first(limit)]

    def _first(self, limit: int | None) -> list[int]:
        found: list[int] = self._shuffled(0)[:limit].tolist()
        return found

    def _row_at(self, position: int) -> int:
        epoch, index = divmod(position, self.epoch_length)
        return int(self._epoch(epoch)[index])

    def _sequence(self, epoch: int) -> npt.NDArray[np.int64]:
        """The rows of an epoch, all of the same length."""
        if self._replay is None:
            return self._shuffled(epoch)
        sequence: list[int] = []
        returned = 0
        generator = self._generator(epoch)
        for row in range(len(self)):
            sequence.append(row)
            # A whole number of rows come back after each row, and the fractions add up.
            due = int((row + 1) * self._replay) - returned if row else 0
            sequence += generator.integers(row, size=due).tolist() if due else []
            returned += due
        return np.asarray(sequence, np.int64)

    def _shuffled(self, epoch: int) -> npt.NDArray[np.int64]:
        return self._generator(epoch).permutation(len(self))

    def _generator(self, epoch: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([*self._entropy, epoch]))

    def _assemble(self, rows: Sequence[int]) -> Batch:
        return assemble([[self.segments[i] for i in self.rows[row]] for row in rows], self.row_length)
