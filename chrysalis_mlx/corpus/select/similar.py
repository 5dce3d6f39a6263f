"""Similar documents: MinHash signatures, banded (LSH), and the exact Jaccard index of what they propose.

A signature has 128 numbers, and two documents of Jaccard index J agree in each with probability J (arXiv 1704.04370).
A document looks for others that agree with it in all r numbers of a band: at least one of the b = 128 // r bands finds
a pair with probability 1 - (1 - J^r)^b. r is the largest for which that is 0.99 at the threshold: 3 for 0.5, where
1 - (1 - 0.5^3)^42 = 0.996. What is far more alike is found by nearly every band.

A template that thousands of documents share puts all of them into the same buckets. So a bucket knows only the latest
few, and no document is compared with more than 64 others: those whose signatures are the most alike. Two documents that
are nearly equal still meet in the bands where they differ from the template. Time and memory are linear.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from chrysalis_mlx.corpus.select.words import Hashes

_PERMUTATIONS = 128
_SEED = 1
_RECALL = 0.99
_BUCKET = 16
_COMPARED = 64
# Three standard deviations of an estimate from 128 numbers, at its widest: 3 * sqrt(0.25 / 128).
_ERROR = 0.133
_BLOCK = 1024
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def jaccard(one: Hashes, other: Hashes) -> float:
    """What two sets have in common, by what they have together; 0 where both are empty. Without repeats."""
    together = len(one) + len(other)
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (together - common) if together else 0.0


def rows_per_band(threshold: float) -> int:
    """The widest band by which pairs at the threshold are found with probability 0.99."""
    wide_enough = (rows for rows in range(_PERMUTATIONS, 1, -1) if found_probability(threshold, rows) >= _RECALL)
    return next(wide_enough, 1)


def found_probability(similarity: float, rows: int) -> float:
    """How likely two documents of this Jaccard index meet in at least one bucket."""
    return 1.0 - (1.0 - similarity**rows) ** (_PERMUTATIONS // rows)


class SimilarDocuments:
    """Which earlier documents each document may be similar to. Documents are known by their number.

    Args:
        shingles: of every document, sorted, without repeats.
        threshold: the least Jaccard index that matters.
    """

    def __init__(self, shingles: Sequence[Hashes], threshold: float) -> None:
        self._sizes = np.array([len(of) for of in shingles], np.int64)
        self._threshold = threshold
        self._signatures = _signatures(shingles)
        self._buckets = _buckets(self._signatures, rows_per_band(threshold), self._sizes > 0)
        self._latest: defaultdict[int, deque[int]] = defaultdict(lambda: deque(maxlen=_BUCKET))

    def add(self, number: int) -> None:
        """Let later documents find this one."""
        for bucket in self._buckets[number]:
            self._latest[bucket].append(number)

    def candidates(self, number: int) -> list[tuple[int, float]]:
        """Documents that were added, each with the most that their similarity is likely to be; the best first."""
        met = {*chain.from_iterable(self._latest[bucket] for bucket in self._buckets[number])}
        numbers = np.array(sorted(met), np.int64)
        likely = (self._signatures[numbers] == self._signatures[number]).mean(axis=1) + _ERROR
        size, sizes = self._sizes[number], self._sizes[numbers]
        likely = np.minimum(likely, np.minimum(size, sizes) / np.maximum(np.maximum(size, sizes), 1))
        best = np.argsort(-likely, kind="stable")[:_COMPARED]
        return [(int(numbers[i]), float(likely[i])) for i in best if likely[i] >= self._threshold]


def _signatures(shingles: Sequence[Hashes]) -> NDArray[np.uint32]:
    """MinHash of every document: (documents, permutations)."""
    signatures = np.empty((len(shingles), _PERMUTATIONS), np.uint32)
    for start in range(0, len(shingles), _BLOCK):
        block = shingles[start : start + _BLOCK]
        ends = np.cumsum([0, *(len(of) for of in block)]).astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(block), ends, _PERMUTATIONS, _SEED)
        signatures[start : start + _BLOCK] = matrix.to_rows()
    return signatures


def _buckets(signatures: NDArray[np.uint32], rows: int, present: NDArray[np.bool_]) -> list[list[int]]:
    """The buckets of every document, those aside where it would be alone."""
    buckets: list[list[int]] = [[] for _ in signatures]
    known = 0
    numbers = np.flatnonzero(present)
    for first in range(0, _PERMUTATIONS - rows + 1, rows):
        keys = np.zeros(len(numbers), np.uint64)
        for column in range(first, first + rows):
            keys = keys * _MULTIPLIER + signatures[numbers, column]
        _, bucket, count = np.unique(keys, return_inverse=True, return_counts=True)
        for place in np.flatnonzero(count[bucket] > 1):
            buckets[numbers[place]].append(known + int(bucket[place]))
        known += len(count)
    return buckets
