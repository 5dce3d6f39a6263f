"""Runs of a text that stand in a corpus: exactly the longest, however it is looked for."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chrysalis_mlx.evaluation import copying as module
from chrysalis_mlx.evaluation.copying import COPIED, Corpus, copying
from chrysalis_mlx.evaluation.results import Continuation, Copying

# Letters of one to four bytes, half characters, and a zero; few, so that runs are long.
ALPHABETS = ["ab", "aé€🦋", "\x00 \n", "\ud83d\udc80😀\udfff"]


def by_force(text: str, texts: Sequence[str], prompt: str) -> int:
    runs = (text[start:end] for start in range(len(text)) for end in range(start + 1, len(text) + 1))
    return max((len(run) for run in runs if run not in prompt and any(run in some for some in texts)), default=0)


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, list[str], str]:
    """A text, a corpus and a prompt; the text often quotes both."""
    letters = st.text(st.sampled_from(draw(st.sampled_from(ALPHABETS))), max_size=40)
    texts, prompt = draw(st.lists(letters, max_size=3)), draw(letters)
    text = draw(letters)
    for quoted in draw(st.lists(st.sampled_from([*texts, prompt]), max_size=2)):
        start = draw(st.integers(0, len(quoted)))
        text += quoted[start : draw(st.integers(start, len(quoted)))] + draw(letters)[:2]
    return text, texts, prompt


def all_alike(grams: npt.NDArray[np.uint64]) -> None:
    grams[:] = 0


def check(question: tuple[str, list[str], str]) -> None:
    text, texts, prompt = question
    assert Corpus(texts).longest(text, prompt=prompt) == by_force(text, texts, prompt)


FIXTURES = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@given(questions())
@settings(max_examples=300, deadline=None)
def test_it_is_the_longest(question: tuple[str, list[str], str]) -> None:
    check(question)


@given(questions())
@FIXTURES
def test_by_candidates_alone_it_is_the_same(question: tuple[str, list[str], str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SEARCHED", 0)
        patch.setattr(module, "_BLOCK", 3)
        check(question)


@given(questions())
@FIXTURES
def test_a_hash_decides_nothing(question: tuple[str, list[str], str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_hash", all_alike)
        patch.setattr(module, "_SEARCHED", 0)
        check(question)


@pytest.mark.parametrize("before", range(5))
def test_every_length_is_found_wherever_it_stands(before: int) -> None:
    letters = [chr(ord("A") + number) for number in range(58)]
    corpus = Corpus(["~" * before + "".join(letters)])
    for length in range(1, 40):
        for start in (0, 1, 2, 3, 58 - length):
            quoted = "".join(letters[start : start + length])
            assert corpus.longest(f"#{quoted}#") == length


@pytest.mark.parametrize("length", [9, 10, 11, 12])
def test_parts_of_a_run_are_not_the_run(length: int) -> None:
    run = "abcdefghijkl"[:length]
    assert Corpus([run[:-1], run[1:]]).longest(run) == length - 1
    assert Corpus([f"{run[:-1]}#{run[1:]}"]).longest(run) == length - 1


def test_a_run_over_the_end_of_a_text_is_none() -> None:
    corpus = Corpus(["one caterpillar", "and a butterfly"])
    assert corpus.longest("caterpillarand a") == len("caterpillar")
    assert corpus.longest("caterpillar\xffand a") == len("caterpillar")
    assert corpus.longest("butterflyone cat") == len("butterfly")


def test_what_the_prompt_has_is_no_memory() -> None:
    corpus = Corpus(["the wings of a monarch are orange, the wings of a swallowtail are not"])
    prompt = "the wings of a monarch"
    assert corpus.longest(" are orange", prompt=prompt) == len(" are orange")
    assert corpus.longest("the wings of a monarch", prompt=prompt) == 0
    # The runs that the prompt has are longer than any other here, but one that goes on from them counts as a whole.
    assert corpus.longest("the wings of a m, orange", prompt=prompt) == len(" orange")
    assert corpus.longest("the wings of a s", prompt=prompt) == len("the wings of a s")


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_in_nothing_nothing_stands(texts: list[str]) -> None:
    corpus = Corpus(texts)
    assert [corpus.longest(text) for text in ("", "a", "\x00" * 20, "a longer text, of several words")] == [0] * 4


def test_texts_may_come_one_by_one() -> None:
    assert Corpus(text for text in ("larva", "pupa")).longest("a pupation") == len("pupa")


def test_characters_are_counted_and_not_bytes() -> None:
    assert Corpus(["🦋🦋🐛🦋"]).longest("🦋🐛🦋🦋") == len("🦋🐛🦋")
    # The first bytes of both are the same.
    assert Corpus(["ж" * 30]).longest("з" * 30) == 0


def test_a_large_corpus_is_searched_as_exactly() -> None:
    """Words that are common and rare, in 400 KB: candidates by the thousand, and runs of every length."""
    random = Random(0)
    words = ["    ", "self", ".", "(", ")\n", "return ", *("".join(random.choices("etaoin", k=6)) for _ in range(400))]
    weights = [100, 60, 60, 50, 50, 20, *(10 / rank for rank in range(1, 401))]
    texts = ["".join(random.choices(words, weights, k=1000)) for _ in range(100)]
    corpus, joined = Corpus(texts), "|".join(texts)
    for number in range(20):
        text = "".join(random.choices(words, weights, k=30))
        if number % 2:
            source, start = random.choice(texts), random.randrange(2000)
            text = text[:70] + source[start : start + random.randrange(100)] + text[70:]
        found = corpus.longest(text)
        assert any(text[at : at + found] in joined for at in range(len(text) - found + 1))
        assert not any(text[at : at + found + 1] in joined for at in range(len(text) - found))


def continuation(source: str, copied: int) -> Continuation:
    return Continuation(source, "repository", "path", "prompt", "text", "expected", copied)


def test_copies_are_counted_by_source() -> None:
    found = copying(
        [
            continuation("train", COPIED - 1),
            continuation("held_out", 12),
            continuation("train", COPIED),
            continuation("train", 180),
        ]
    )
    assert found == {"train": Copying(3, 2, 180), "held_out": Copying(1, 0, 12)}
    assert list(found) == ["train", "held_out"]
    assert found["train"].share == pytest.approx(2 / 3)
    assert copying([]) == {}
