"""Segments to rows, and rows to arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrysalis_mlx.batches.packing import PADDING, assemble, attention_mask, pack, pack_in_order, unpack
from chrysalis_mlx.batches.tokens import Segment


def segment(length: int, first: int = 1, *, unsupervised: tuple[int, ...] = ()) -> Segment:
    supervised = np.arange(length) > 0
    supervised[list(unsupervised)] = False
    return Segment(np.arange(first, first + length, dtype=np.int32), supervised)


@given(st.lists(st.integers(1, 32), max_size=60))
def test_every_segment_is_packed_once_and_no_row_is_too_long(lengths: list[int]) -> None:
    segments = [segment(length) for length in lengths]
    rows = pack(segments, 32)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in row) <= 32 for row in rows)
    assert pack(segments, 32) == rows
    half_full = [row for row in rows if sum(lengths[index] for index in row) <= 16]
    assert len(half_full) <= 1  # two such rows would have shared one


def test_the_best_fit_is_taken_longest_first() -> None:
    segments = [segment(length) for length in (3, 6, 4, 7, 10)]
    assert pack(segments, 10) == [[4], [3, 0], [1, 2]]


@given(st.lists(st.integers(1, 32), max_size=80), st.integers(1, 8))
def test_in_order_a_segment_stays_near_its_place(lengths: list[int], window: int) -> None:
    segments = [segment(length) for length in lengths]
    rows = pack_in_order(segments, 32, window)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 32 for row in rows)
    firsts = [row[0] for row in rows]
    assert firsts == sorted(firsts)
    for number, row in enumerate(rows):
        assert row == sorted(row)
        assert all(index < first for index in row for first in firsts[number + window : number + window + 1])


def test_in_order_rows_are_nearly_as_full_as_in_any_order() -> None:
    lengths = np.clip(np.random.Generator(np.random.PCG64(0)).lognormal(5.5, 1, 3000).astype(int), 5, 1024)
    segments = [segment(int(length)) for length in lengths]
    assert len(pack_in_order(segments, 1024)) <= 1.03 * len(pack(segments, 1024))


def test_arrays_of_a_row_of_two_segments() -> None:
    batch = assemble([[segment(3, 10), segment(2, 20)], [segment(4, 30, unsupervised=(2,))]], 6)
    assert batch.tokens.tolist() == [[10, 11, 12, 20, 21, 0], [30, 31, 32, 33, 0, 0]]
    assert batch.segments.tolist() == [[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 0, 0]]
    assert batch.mask.tolist() == [
        [True, True, False, True, False, False],
        [True, False, True, False, False, False],
    ]
    assert batch.targets.tolist() == [[11, 12, 0, 21, 0, 0], [31, 32, 33, 0, 0, 0]]
    assert batch.target_count == 5
    assert batch.tokens.dtype == batch.targets.dtype == batch.segments.dtype == np.int32


@given(st.lists(st.integers(1, 12), min_size=1, max_size=20))
def test_targets_stay_inside_their_segment(lengths: list[int]) -> None:
    segments = [segment(length, 100 * number) for number, length in enumerate(lengths, 1)]
    batch = assemble([[segments[index] for index in row] for row in pack(segments, 16)], 16)
    assert batch.target_count == sum(length - 1 for length in lengths)
    for r, t in zip(*np.nonzero(batch.mask), strict=True):
        assert batch.targets[r, t] == batch.tokens[r, t + 1]
        assert batch.segments[r, t] == batch.segments[r, t + 1] != PADDING
    assert not batch.mask[:, -1].any()
    assert not batch.tokens[batch.segments == PADDING].any()
    assert sorted(batch.tokens[batch.segments != PADDING]) == sorted(np.concatenate([s.tokens for s in segments]))


@pytest.mark.parametrize("window", [None, 2])
def test_a_token_attends_to_earlier_tokens_of_its_own_segment(window: int | None) -> None:
    segments = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]], np.int32)
    mask = attention_mask(segments, window)
    assert mask.shape == (2, 1, 6, 6)
    for b in range(2):
        for query in range(6):
            for key in range(6):
                near = window is None or query - key < window
                allowed = key <= query and near and segments[b, query] == segments[b, key]
                assert mask[b, 0, query, key] == allowed
    assert mask.any(axis=-1).all()  # also in padding: no softmax over nothing


@given(st.lists(st.lists(st.integers(1, 9), max_size=4), min_size=1, max_size=4), st.integers(0, 2))
def test_values_at_targets_come_back_to_their_segments(lengths: list[list[int]], unlearned: int) -> None:
    rows = [
        [segment(length, 100 * r + 10 * n, unsupervised=tuple(range(min(unlearned, length)))) for n, length in row]
        for r, row in ((r, list(enumerate(row))) for r, row in enumerate(lengths))
    ]
    batch = assemble(rows, 40)
    found = unpack(batch.targets.astype(np.float32), rows)
    assert [[values.tolist() for values in row] for row in found] == [
        [item.tokens[item.supervised].tolist() for item in row] for row in rows
    ]
    assert sum(len(values) for row in found for values in row) == batch.target_count
