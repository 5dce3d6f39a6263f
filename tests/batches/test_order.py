"""The rows of a step depend on corpus hash, seed and step alone."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest

from chrysalis_mlx.batches.order import PackedRows
from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.batches.tokens import Segment

DIGEST = hashlib.sha256(b"corpus").hexdigest()
SEGMENTS = [Segment(np.full(9, number, np.int32), np.arange(9) > 0) for number in range(1, 8)]  # one to a row of 16


def rows(digest: str = DIGEST, seed: int = 0) -> PackedRows:
    return PackedRows(SEGMENTS, 16, digest, seed)


def drawn(packed: PackedRows, steps: range, batch_size: int = 2, accumulation: int = 2) -> list[int]:
    """The segment of each row, in the order of training."""
    batches = [batch for step in steps for batch in packed.micro_batches(step, batch_size, accumulation)]
    return [int(row[0]) for batch in batches for row in batch.tokens]


def test_an_epoch_visits_every_row_once_and_no_row_is_dropped() -> None:
    order = drawn(rows(), range(7))  # 28 rows: four epochs of seven, though a step takes four
    epochs = [order[at : at + 7] for at in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(1, 8)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert Counter(order) == dict.fromkeys(range(1, 8), 4)


def test_a_step_is_the_same_whatever_was_asked_before() -> None:
    packed = rows()
    later = drawn(packed, range(5, 6))
    drawn(packed, range(5))
    assert drawn(packed, range(5, 6)) == later == drawn(rows(), range(6))[20:]


@pytest.mark.parametrize("other", [rows(seed=1), rows(digest=hashlib.sha256(b"other").hexdigest())])
def test_another_seed_or_corpus_is_another_order(other: PackedRows) -> None:
    assert drawn(other, range(7)) != drawn(rows(), range(7))


def test_the_same_rows_in_the_same_order_however_a_step_is_cut() -> None:
    def shapes(batch_size: int, accumulation: int) -> list[tuple[int, ...]]:
        return [batch.tokens.shape for batch in rows().micro_batches(0, batch_size, accumulation)]

    assert drawn(rows(), range(3), 4, 1) == drawn(rows(), range(3), 2, 2) == drawn(rows(), range(3), 1, 4)
    assert (shapes(4, 1), shapes(1, 4)) == ([(4, 16)], [(1, 16)] * 4)


def test_fixed_batches_hold_every_row_or_the_first_ones() -> None:
    def numbers(batches: list[Batch]) -> list[list[int]]:
        return [[int(row[0]) for row in batch.tokens] for batch in batches]

    everything = numbers(rows().in_order(3))
    assert [len(batch) for batch in everything] == [3, 3, 1]
    order = list(itertools.chain(*everything))
    assert sorted(order) == list(range(1, 8))
    assert list(itertools.chain(*numbers(rows().in_order(2, 4)))) == order[:4]
    assert numbers(rows().in_order(3, 100)) == everything


def test_fill_is_the_share_of_positions_that_hold_a_token() -> None:
    assert (len(rows()), rows().fill) == (7, 9 / 16)
