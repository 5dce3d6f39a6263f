"""MinHash signatures and their bands."""

from __future__ import annotations

import numpy as np
import pytest

from chrysalis_mlx.corpus.select.similar import SimilarDocuments, found_probability, jaccard, rows_per_band
from chrysalis_mlx.corpus.select.words import Hashes, distinct

RANDOM = np.random.Generator(np.random.PCG64(4))


def fresh(count: int) -> Hashes:
    return RANDOM.integers(0, 2**64, count, dtype=np.uint64)


def pair(common: int, own: int) -> tuple[Hashes, Hashes]:
    shared = fresh(common)
    return distinct(np.concatenate([shared, fresh(own)])), distinct(np.concatenate([shared, fresh(own)]))


def test_jaccard() -> None:
    one, other = pair(30, 15)
    assert jaccard(one, other) == 0.5
    assert jaccard(one, one) == 1.0
    assert jaccard(one, fresh(5)) == 0.0
    assert jaccard(fresh(0), fresh(0)) == 0.0


@pytest.mark.parametrize(("threshold", "rows"), [(0.3, 2), (0.5, 3), (0.8, 6), (1.0, 128)])
def test_bands_are_as_wide_as_recall_allows(threshold: float, rows: int) -> None:
    assert rows_per_band(threshold) == rows
    assert found_probability(threshold, rows) >= 0.99


def test_the_arithmetic_of_the_default() -> None:
    assert found_probability(0.5, 3) == pytest.approx(1 - (7 / 8) ** 42)
    assert found_probability(0.5, 4) == pytest.approx(0.873, abs=1e-3)


@pytest.mark.parametrize("size", [9, 90, 900])
def test_pairs_at_the_threshold_are_found(size: int) -> None:
    pairs = [pair(size // 3 * 2, size // 3) for _ in range(300)]
    index = SimilarDocuments([side for both in pairs for side in both], 0.5)
    found = 0
    for first in range(0, 600, 2):
        index.add(first)
        found += [number for number, _ in index.candidates(first + 1)] == [first]
    assert found >= 294  # 0.996 of 300, and four standard deviations


def test_the_likely_similarity_is_seldom_below_the_true_one() -> None:
    pairs = [pair(70, 15) for _ in range(200)]
    index = SimilarDocuments([side for both in pairs for side in both], 0.5)
    below = 0
    for first in range(0, 400, 2):
        index.add(first)
        below += index.candidates(first + 1)[0][1] < 0.7
    assert below <= 3


def test_documents_without_words_are_similar_to_none() -> None:
    index = SimilarDocuments([fresh(0), fresh(0), fresh(3)], 0.5)
    index.add(0)
    assert index.candidates(1) == []
    assert index.candidates(2) == []


def test_much_shorter_documents_are_not_proposed() -> None:
    long = distinct(fresh(100))
    index = SimilarDocuments([long[:49], long[:50], long], 0.5)
    index.add(0)
    index.add(1)
    assert [number for number, _ in index.candidates(2)] == [1]


def test_of_many_the_most_similar_are_proposed() -> None:
    template = fresh(60)
    shingles = [distinct(np.concatenate([template, fresh(40)])) for _ in range(500)]
    shingles.append(distinct(np.concatenate([shingles[7][:95], fresh(5)])))
    index = SimilarDocuments(shingles, 0.3)
    for number in range(500):
        index.add(number)
    candidates = index.candidates(500)
    assert len(candidates) == 64
    assert candidates[0][0] == 7


def test_no_documents() -> None:
    assert SimilarDocuments([], 0.5)
