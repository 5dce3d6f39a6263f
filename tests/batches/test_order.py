"""The rows of a step depend on corpus hash, seed and step alone."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest

from chrysalis_mlx.batches.order import OrderKind, PackedRows
from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.batches.tokens import Segment

DIGEST = hashlib.sha256(b"corpus").hexdigest()


def rows(
    digest: str = DIGEST, seed: int = 0, kind: OrderKind = "shuffled", replay: float = 0.25, count: int = 7
) -> PackedRows:
    segments = [Segment(np.full(9, number, np.int32), np.arange(9) > 0) for number in range(1, count + 1)]
    return PackedRows(segments, 16, digest, seed, kind=kind, replay=replay)


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


def test_the_shuffled_order_is_the_one_that_earlier_runs_began_with() -> None:
    assert drawn(rows(), range(4)) == [5, 1, 3, 6, 4, 2, 7, 4, 3, 1, 2, 6, 7, 5, 7, 4]


def test_curriculum_is_the_order_of_the_corpus_in_every_epoch() -> None:
    assert drawn(rows(kind="curriculum"), range(7)) == list(range(1, 8)) * 4
    assert drawn(rows(kind="curriculum", seed=1), range(7)) == list(range(1, 8)) * 4


@pytest.mark.parametrize("replay", [0.0, 0.25, 0.3, 1.0, 2.5])
def test_annealed_is_the_curriculum_with_earlier_rows_in_between(replay: float) -> None:
    packed = rows(kind="annealed", replay=replay, count=40)
    assert packed.epoch_length == 40 + int(40 * replay)
    epochs = drawn(packed, range(2 * packed.epoch_length), 1, 1)
    for order in (epochs[: packed.epoch_length], epochs[packed.epoch_length :]):
        newest = list(itertools.accumulate(order, max))
        fresh = [row for row, seen in zip(order, [0, *newest], strict=False) if row > seen]
        assert fresh == list(range(1, 41))
        back = [(row, seen) for row, seen in zip(order, [0, *newest], strict=False) if row <= seen]
        assert len(back) == int(40 * replay)
        assert all(row < seen for row, seen in back)
    assert (epochs[: packed.epoch_length] != epochs[packed.epoch_length :]) is bool(replay)


def test_an_annealed_step_is_the_same_whatever_was_asked_before() -> None:
    packed = rows(kind="annealed", replay=1.0)
    everything = drawn(packed, range(20))
    assert drawn(packed, range(3, 4)) == everything[12:16] == drawn(rows(kind="annealed", replay=1.0), range(3, 4))
    assert drawn(rows(kind="annealed", replay=1.0, seed=1), range(20)) != everything


@pytest.mark.parametrize("kind", ["curriculum", "annealed"])
def test_fixed_batches_are_of_all_parts_of_the_corpus_and_hold_no_row_twice(kind: OrderKind) -> None:
    order = [int(row[0]) for batch in rows(kind=kind, replay=1.0).in_order(3) for row in batch.tokens]
    assert sorted(order) == list(range(1, 8))
    assert order != list(range(1, 8))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
def test_the_shares_of_all_processes_are_the_step_in_its_order_as_even_as_can_be(size: int) -> None:
    for step in range(3):
        shares = [[b.tokens for b in rows().micro_batches(step, 3, 2, rank, size)] for rank in range(size)]
        numbers = [[int(row[0]) for tokens in share for row in tokens] for share in shares]
        assert list(itertools.chain(*numbers)) == drawn(rows(), range(step, step + 1), 3, 2)
        lengths = [len(share) for share in numbers]
        assert max(lengths) - min(lengths) <= 1
        assert all(len(tokens) <= 3 for share in shares for tokens in share)
        assert all(len(share) == -(-length // 3) for share, length in zip(shares, lengths, strict=True))


def test_a_process_alone_gets_what_it_always_got() -> None:
    alone, before = rows().micro_batches(1, 2, 2, 0, 1), rows().micro_batches(1, 2, 2)
    assert [batch.tokens.tolist() for batch in alone] == [batch.tokens.tolist() for batch in before]
    assert [len(batch.tokens) for batch in rows().micro_batches(1, 2, 2, 0, 8)] == []


def test_the_members_of_the_fixed_batches_are_known() -> None:
    segments = [Segment(np.full(4, number, np.int32), np.arange(4) > 0) for number in range(1, 8)]
    packed = PackedRows(segments, 8, DIGEST, 0)
    members = packed.members()
    assert sorted(itertools.chain(*members)) == list(range(7))
    shown = [[int(token) - 1 for token in row[::4] if token] for batch in packed.in_order(3) for row in batch.tokens]
    assert members == shown
    assert packed.members(2) == members[:2]
