"""Contamination, against sets of words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chrysalis_mlx.corpus.contamination import NgramIndex, contamination, shares_ngram
from chrysalis_mlx.corpus.select.words import words
from tests.corpus.select.test_copies import prose

TEXTS = st.lists(st.text("abc ", max_size=30), max_size=6)


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    of = words(text)
    return {tuple(of[start : start + n]) for start in range(max(1, len(of) - n + 1))} if of else set()


@given(TEXTS, TEXTS, st.integers(1, 4))
def test_as_sets_of_words_would(train: list[str], held_out: list[str], n: int) -> None:
    trained_on = {gram for text in train for gram in grams(text, n)}
    expected = tuple(place for place, text in enumerate(held_out) if grams(text, n) & trained_on)
    measured = contamination(train, held_out, n)
    assert measured.documents == len(held_out)
    assert measured.contaminated == expected
    assert measured.share == (len(expected) / len(held_out) if held_out else 0.0)


def test_thirteen_words_in_a_row_are_contamination_and_twelve_are_not() -> None:
    passage = prose(1, 13).split()
    held_out = [f"{prose(2)} {' '.join(passage)} {prose(3)}", f"{prose(4)} {' '.join(passage[1:])} {prose(5)}"]
    measured = contamination([f"{prose(6)}. {' '.join(passage).upper()}!"], held_out, 13)
    assert measured.contaminated == (0,)
    assert measured.share == 0.5


def test_texts_that_touch_what_is_kept_back_are_told() -> None:
    protected = NgramIndex.of([prose(1), prose(2)], 13)
    assert protected.ngram == 13
    assert len(protected.hashes) == 2 * (60 - 12)
    assert list(shares_ngram([prose(3), f"{prose(4)} {prose(2)}", "", prose(1, 12)], protected)) == [
        False,
        True,
        False,
        False,
    ]
