"""Segments packed whole into rows of one fixed length."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.batches.tokens import Segment

PADDING = 0  # the segment number of padding; segments in a row are numbered from 1


@dataclass(frozen=True)
class Batch:
    """Rows as both backends get them.

    Attributes:
        tokens: (B, T) int32; 0 where there is padding.
        targets: (B, T) int32; the token that follows in the same segment.
        mask: (B, T) bool; where the target counts. Never at a segment's last token, never in padding.
        segments: (B, T) int32; a token attends to earlier tokens with the same number only.
    """

    tokens: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]
    segments: npt.NDArray[np.int32]

    @property
    def target_count(self) -> int:
        return int(self.mask.sum())


def pack(segments: Sequence[Segment], row_length: int) -> list[list[int]]:
    """Which segments share a row: best fit, longest first. O(n log n), the same on every machine.

    Returns:
        for each row the indices of its segments; every index once; no row longer than `row_length` tokens.
    """
    order = sorted(range(len(segments)), key=lambda i: (-len(segments[i].tokens), i))
    rows: list[list[int]] = []
    space: list[tuple[int, int]] = []  # (tokens free, row), sorted
    for index in order:
        length = len(segments[index].tokens)
        at = bisect.bisect_left(space, (length, -1))
        if at == len(space):
            rows.append([index])
            bisect.insort(space, (row_length - length, len(rows) - 1))
        else:
            free, row = space.pop(at)
            rows[row].append(index)
            bisect.insort(space, (free - length, row))
    return rows


def pack_in_order(segments: Sequence[Segment], row_length: int, window: int = 16) -> list[list[int]]:
    """Which segments share a row when their order counts: best fit among the last `window` rows. O(n · window).

    Returns:
        as `pack`; rows stand in the order of their first segments, and every later segment of a row is one that came
        before `window` newer rows were begun.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for index, segment in enumerate(segments):
        length = len(segment.tokens)
        fitting = [row for row in range(max(0, len(rows) - window), len(rows)) if free[row] >= length]
        if fitting:
            row = min(fitting, key=free.__getitem__)
            rows[row].append(index)
            free[row] -= length
        else:
            rows.append([index])
            free.append(row_length - length)
    return rows


def assemble(rows: Sequence[Sequence[Segment]], row_length: int) -> Batch:
    """Lay segments out in rows of `row_length` tokens, padded at the end."""
    shape = (len(rows), row_length)
    tokens, targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    mask, numbers = np.zeros(shape, np.bool_), np.full(shape, PADDING, np.int32)
    for r, row in enumerate(rows):
        start = 0
        for number, segment in enumerate(row, 1):
            end = start + len(segment.tokens)
            tokens[r, start:end] = segment.tokens
            targets[r, start : end - 1] = segment.tokens[1:]
            mask[r, start : end - 1] = segment.supervised[1:]
            numbers[r, start:end] = number
            start = end
    return Batch(tokens, targets, mask, numbers)


def unpack(values: npt.NDArray[np.float32], rows: Sequence[Sequence[Segment]]) -> list[list[npt.NDArray[np.float32]]]:
    """Give values at the targets of a batch back to its segments.

    Args:
        values: (B, T), one for every target, as `assemble` laid them out.
        rows: what the batch was assembled of.

    Returns:
        for every segment of every row (n,), one for each of its supervised tokens.
    """
    found: list[list[npt.NDArray[np.float32]]] = []
    for own, row in zip(values, rows, strict=True):
        found.append([])
        start = 0
        for segment in row:
            end = start + len(segment.tokens)
            found[-1].append(own[start : end - 1][segment.supervised[1:]])
            start = end
    return found


def attention_mask(segments: npt.NDArray[np.int32], window: int | None = None) -> npt.NDArray[np.bool_]:
    """Who may attend to whom: causal, inside one segment, and within `window` tokens when given.

    Returns:
        (B, 1, T, T) bool, queries before keys. Padding attends to padding, so that no row of a softmax is empty.
    """
    positions = np.arange(segments.shape[1])
    allowed = positions[:, None] >= positions[None, :]
    if window is not None:
        allowed &= positions[:, None] < positions[None, :] + window
    same = segments[:, :, None] == segments[:, None, :]
    mask: npt.NDArray[np.bool_] = (same & allowed)[:, None]
    return mask
