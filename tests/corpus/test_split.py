"""Documents to train, valid and test."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrysalis_mlx.blueprint.schema import SplitSection
from chrysalis_mlx.corpus.split import split_documents
from chrysalis_mlx.errors import CorpusError

DIGESTS = [f"{number:064x}" for number in range(40)]


def test_shares_are_of_documents() -> None:
    sides = split_documents(DIGESTS, SplitSection(valid=0.1, test=0.2))
    assert Counter(sides) == {"train": 28, "valid": 4, "test": 8}


@given(st.integers(3, 40), st.floats(0, 0.25), st.floats(0, 0.25))
def test_no_side_is_empty(count: int, valid: float, test: float) -> None:
    assert set(split_documents(DIGESTS[:count], SplitSection(valid=valid, test=test))) == {"train", "valid", "test"}


def test_the_order_of_the_genome_plays_no_part() -> None:
    forwards = dict(zip(DIGESTS, split_documents(DIGESTS, SplitSection()), strict=True))
    backwards = dict(zip(DIGESTS[::-1], split_documents(DIGESTS[::-1], SplitSection()), strict=True))
    assert forwards == backwards


def test_a_new_document_moves_at_most_one_other_per_side() -> None:
    section = SplitSection(valid=0.1, test=0.1)
    before = split_documents(DIGESTS[:39], section)
    after = split_documents(DIGESTS, section)[:39]
    assert sum(one != other for one, other in zip(before, after, strict=True)) <= 2


def test_another_seed_is_another_split() -> None:
    assert split_documents(DIGESTS, SplitSection(seed=1)) == split_documents(DIGESTS, SplitSection(seed=1))
    assert split_documents(DIGESTS, SplitSection(seed=1)) != split_documents(DIGESTS, SplitSection(seed=2))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_documents_are_an_error(count: int) -> None:
    with pytest.raises(CorpusError, match=rf"{count} document\(s\) are left(.|\n)*loosen the blueprint"):
        split_documents(DIGESTS[:count], SplitSection())
