"""Words and n-grams."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrysalis_mlx.corpus.select import words as module
from chrysalis_mlx.corpus.select.words import contained, distinct, ngram_hashes, union, words

LETTERS = st.text("abAB é\n\t.,-", max_size=60)
NUMBERS = st.lists(st.integers(0, 2**64 - 1), max_size=30)


def hashes(numbers: list[int]) -> module.Hashes:
    return np.array(numbers, np.uint64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The model's 3.5-bit snake_case — Ünïcode!", ["the", "model", "s", "3", "5", "bit", "snake_case", "ünïcode"]),
        ("共生AI系统です", ["共", "生", "ai", "系", "统", "で", "す"]),
        ("공생 지능", ["공생", "지능"]),
        ("สวัสดี", ["ส", "ว", "ส", "ด"]),
        ("हिन्दी में लिखा", ["हिन्दी", "में", "लिखा"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("مَرْحَبًا بِكُم", ["مَرْحَبًا", "بِكُم"]),
        ("x\u20d7 y", ["x\u20d7", "y"]),
        ("--- *** ...", []),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(LETTERS)
def test_a_json_string_has_the_words_of_its_text(text: str) -> None:
    assert words(json.dumps(text)) == words(text)
    assert words(json.dumps(text, ensure_ascii=False)) == words(text)


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert words(unicodedata.normalize("NFD", "Möbius évolution")) == ["möbius", "évolution"]


@pytest.mark.parametrize("marks", ["\u0301\u0302", "\u05b0\u0591", "\u20d0\u20d2"])
def test_a_run_of_marks_is_not_normalized(marks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    normalized: list[str] = []
    monkeypatch.setattr(module.unicodedata, "normalize", lambda form, text: normalized.append(text) or text)
    assert words("a" + marks * 50) == ["a" + marks * 50]
    assert normalized == []
    words("a" + marks)
    assert normalized == ["a" + marks]


@given(st.lists(st.text("ab ", max_size=40), max_size=5), st.integers(1, 6))
def test_ngrams_are_told_apart_as_tuples_of_words_are(texts: list[str], n: int) -> None:
    found = list(ngram_hashes(texts, n))
    tuples = [{tuple(w[i : i + n]) for i in range(max(1, len(w) - n + 1))} if (w := words(t)) else set() for t in texts]
    assert [len(of) for of in found] == [len(of) for of in tuples]
    for i, one in enumerate(found):
        assert (np.diff(one.astype(object)) > 0).all()
        for j, other in enumerate(found):
            assert len(np.intersect1d(one, other)) == len(tuples[i] & tuples[j])


def test_a_short_text_is_one_ngram_and_an_empty_one_has_none() -> None:
    short, longer, empty = ngram_hashes(["Four words are here", "four words are here, and more", "!"], 5)
    assert (len(short), len(longer), len(empty)) == (1, 2, 0)
    assert not contained(short, longer).any()


def test_hashes_are_the_same_on_every_machine() -> None:
    (found,) = ngram_hashes(["to be or not to be"], 5)
    assert [f"{value:016x}" for value in found.tolist()] == ["0eacade126b6b4fb", "6bf156b518ff9201"]


def test_words_may_be_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "one two three four five six " * 3
    before = list(ngram_hashes([text, text], 3))
    monkeypatch.setattr(module, "_KNOWN_WORDS", 2)
    known = module._WordHashes()
    assert [len(known) for word in text.split() if known[word]] == [1, 2] * 9
    for one, other in zip(before, ngram_hashes([text, text], 3), strict=True):
        np.testing.assert_array_equal(one, other)


@given(NUMBERS, NUMBERS)
def test_sets_of_hashes(one: list[int], other: list[int]) -> None:
    assert distinct(hashes(one)).tolist() == sorted(set(one))
    assert union([hashes(one), hashes(other)]).tolist() == sorted({*one, *other})
    assert contained(hashes(one), distinct(hashes(other))).tolist() == [number in other for number in one]


def test_a_union_of_nothing_is_empty() -> None:
    assert union([]).tolist() == []
