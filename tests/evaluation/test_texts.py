"""What is asked: the texts, evenly spread where they are fewer, and the beginnings to go on from."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrysalis_mlx.batches.tokens import Segment, segments
from chrysalis_mlx.evaluation.prompts import Prompt
from chrysalis_mlx.evaluation.texts import (
    Beginning,
    Questions,
    Text,
    beginnings,
    general_texts,
    held_out_texts,
    thinned,
)
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests.corpus.genomes import prose
from tests.evaluation.engines import segment


def text(number: int, length: int = 40, repository: str = "a", framing: str = "text") -> Text:
    return Text(number, segment(range(length)), repository, f"{number}.md", framing)


def test_the_texts_of_packed_rows_know_where_they_are_from() -> None:
    rows = [{"repository": "a", "path": f"{n}.md", "framing": "chat" if n else "text"} for n in range(3)]
    made = [segment(range(n + 2)) for n in range(3)]
    found = held_out_texts([*rows, {"text": "of somebody's own file"}], [*made, segment([1])], [[2, 0], [3]])
    assert [[item.number for item in row] for row in found] == [[2, 0], [3]]
    assert [(item.repository, item.path, item.framing) for row in found for item in row] == [
        ("a", "2.md", "chat"),
        ("a", "0.md", "text"),
        ("", "", ""),
    ]
    assert found[0][0].segment is made[2]
    general = general_texts([segment(range(length)) for length in (5, 9, 4)], 10)
    assert [[item.number for item in row] for row in general] == [[1], [0, 2]]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 400))
def test_so_many_targets_are_left_or_all(lengths: list[int], targets: int) -> None:
    texts = [text(number, length) for number, length in enumerate(lengths)]
    found = thinned(texts, targets)
    kept = sum(len(item.targets) for item in found)
    assert kept == min(targets, sum(len(item.targets) for item in texts))
    assert all(set(item.targets) <= set(texts[item.number].targets) for item in found)
    assert all(len(item.segment.tokens) == item.targets[-1] + 1 for item in found)


def test_targets_are_spread_over_repositories_framings_and_each_text() -> None:
    texts = [text(n, 101, "ab"[n % 2], ("text", "chat")[n // 2 % 2]) for n in range(40)]
    found = thinned(texts, 8 * 16)
    assert Counter((item.repository, item.framing) for item in found) == dict.fromkeys(
        [("a", "text"), ("a", "chat"), ("b", "text"), ("b", "chat")], 2
    )
    for item in found:
        assert len(item.targets) == 16
        assert set(np.diff(item.targets)) == {6, 7}
        assert item.targets[0] < 7
        assert item.targets[-1] > 93


def test_a_file_is_asked_for_half_as_many_general_tokens_and_one_text_in_a_row() -> None:
    questions = Questions([[text(0), text(1)], [text(2)]], [[text(0, 90), text(1, 90)]], (), (Prompt("?", (1,), 3),))
    few = questions.for_file(40, 512)
    assert {len(row) for row in (*few.test, *few.general)} == {1}
    assert sum(len(row[0].targets) for row in few.test) == 40
    assert sum(len(row[0].targets) for row in few.general) == 20
    assert few.prompts == questions.prompts
    begun = Beginning("train", "a", "0", tuple(range(50)), ())
    assert Questions([[text(0, 70)]], [], (begun,), ()).longest(10) == 70
    assert Questions([[text(0, 70)]], [], (begun,), (Prompt("?", (1,) * 60, 30),)).longest(21) == 90


def test_a_file_is_asked_for_nothing_that_its_context_has_no_room_for() -> None:
    questions = Questions([[text(0, 40)], [text(1, 39)], [text(2, 42)]], [[text(0, 40)]])
    few = questions.for_file(1000, 40)
    assert {row[0].number: int(row[0].targets[-1]) for row in few.test} == {0: 38, 1: 38, 2: 38}
    assert [int(row[0].targets[-1]) for row in few.general] == [38]
    assert int(questions.test[0][0].targets[-1]) == 39  # an engine is asked for it


def test_the_fingerprint_is_of_every_token_and_of_nothing_else() -> None:
    def made(**changes: Any) -> str:
        settings: dict[str, Any] = {"tokens": range(9), "learned": 1, "begun": (1, 2), "limit": 3, "path": "p"}
        settings |= changes
        item = Text(0, segment(settings["tokens"], settings["learned"]), "a", settings["path"])
        begun = Beginning("train", "a", settings["path"], settings["begun"], (5,))
        return Questions([[item]], [[item]], (begun,), (Prompt("?", (1,), settings["limit"]),)).fingerprint()

    assert made() == made(path="q")
    others = [made(tokens=range(1, 10)), made(learned=2), made(begun=(1, 3)), made(limit=4)]
    assert len({made(), *others}) == 5


def from_rows(
    rows: list[dict[str, Any]], tokenizer: Tokenizer, count: int = 9, following: int = 8
) -> tuple[list[Segment], tuple[Beginning, ...]]:
    made = segments(rows, tokenizer)
    return made, beginnings([("train", rows, made)], count, following, tokenizer)


def row(number: int, **content: Any) -> dict[str, Any]:
    return {"repository": "docs", "path": f"{number}.md", **content}


def test_a_text_is_begun_with_its_first_tokens(tokenizer: Tokenizer) -> None:
    rows = [row(n // 2, text=prose(n)) for n in range(8)]
    made, found = from_rows(rows, tokenizer)
    assert [item.path for item in found] == ["0.md", "1.md", "2.md", "3.md"]  # once for every document
    for number, item in enumerate(found):
        tokens = made[2 * number].tokens.tolist()
        assert (item.tokens, item.expected) == (tuple(tokens[:32]), tuple(tokens[32:40]))
        assert (item.source, item.repository) == ("train", "docs")


def test_so_many_documents_evenly_spread(tokenizer: Tokenizer) -> None:
    rows = [row(n, text=prose(n)) for n in range(12)]
    assert [item.path for item in from_rows(rows, tokenizer, count=3)[1]] == ["2.md", "6.md", "10.md"]
    made = segments(rows, tokenizer)
    found = beginnings([("train", rows, made), ("held_out", rows[:2], made[:2])], 3, 8, tokenizer)
    assert [item.source for item in found] == ["train"] * 3 + ["held_out"] * 2
    assert beginnings([], 3, 8, tokenizer) == ()


def test_all_beginnings_are_of_one_length_and_short_texts_are_passed_over(tokenizer: Tokenizer) -> None:
    rows = [row(0, text="a b"), *(row(n, text=prose(n, 12)) for n in range(1, 5)), row(5, text=prose(5))]
    made, found = from_rows(rows, tokenizer)
    length = int(np.median([len(item.tokens) for item in made])) // 2
    assert 1 < length < 32
    assert {len(item.tokens) for item in found} == {length}
    assert [item.path for item in found] == [f"{n}.md" for n in range(6) if len(made[n].tokens) - 1 >= 2 * length]
    assert "0.md" not in {item.path for item in found}


def test_the_end_of_a_text_is_not_expected_to_be_told(tokenizer: Tokenizer) -> None:
    rows = [row(n, text=prose(n)) for n in range(2)]
    made, found = from_rows(rows, tokenizer, following=999)
    for own, item in zip(made, found, strict=True):
        assert own.tokens[-1] == tokenizer.eos_id
        assert [*item.tokens, *item.expected] == own.tokens[:-1].tolist()


@pytest.mark.parametrize("form", ["messages", "completion"])
def test_where_a_part_is_learned_the_beginning_reaches_into_it(tokenizer: Tokenizer, form: str) -> None:
    def content(number: int) -> dict[str, Any]:
        if form == "completion":
            return {"prompt": prose(number), "completion": prose(number + 100)}
        asked, said = prose(number), prose(number + 100)
        return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}

    made, found = from_rows([row(n, **content(n)) for n in range(3)], tokenizer)
    assert len(found) == 3
    for own, item in zip(made, found, strict=True):
        first = int(np.flatnonzero(own.supervised)[0])
        cut = first + 16
        assert (*item.tokens, *item.expected) == tuple(own.tokens[cut - 32 : cut + 8].tolist())


def test_what_starts_every_text_stays_before_a_beginning(spm_tokenizer: Tokenizer) -> None:
    rows = [row(n, prompt=prose(n), completion=prose(n + 100)) for n in range(3)]
    made, found = from_rows(rows, spm_tokenizer)
    for own, item in zip(made, found, strict=True):
        cut = int(np.flatnonzero(own.supervised)[0]) + 16
        assert item.tokens == (own.tokens[0], *own.tokens[cut - 31 : cut].tolist())
        assert len(item.tokens) == 32
        assert own.tokens[0] == spm_tokenizer.token_id("<s>")
