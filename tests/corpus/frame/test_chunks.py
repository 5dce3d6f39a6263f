"""Passages cut into rows that fit, at the best places, and nothing is lost."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame import text
from chrysalis_mlx.corpus.frame.chunks import (
    BLANK,
    HEADING,
    LINE,
    TORN,
    NoRoomError,
    Passage,
    Piece,
    _pieces,
    _ranks,
    cuts,
    first_fitting,
    fit,
)
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny

HEADER = "# repo/file.md\n\n"

lines = st.one_of(
    st.text(max_size=60),
    st.sampled_from(["", "\n", "\r\n", "    ", "def f(x):\n", "東京🦋" * 30, "a" * 700, "word " * 90, "é\u0301\u200d"]),
    st.sampled_from(["# Heading", "Setext\n===", "```\n# code\n\n", "```", "| a | b |\n|---|---|\n| 1 | 2 |\n"]),
)
texts = st.lists(lines, max_size=8).map("".join) | st.lists(lines, max_size=8).map("\n".join)


def check(body: str, tokenizer: Tokenizer, row_length: int) -> list[str]:
    """Frame a text and hold it to its promises; gives the rows' texts without their headers."""
    document = Document("repo", "file.md", body)
    rows = fit(text.passages(document, "# {repository}/{path}\n\n"), tokenizer, row_length)
    assert all(row["text"].startswith(HEADER) for row in rows)
    assert all(len(segment.tokens) <= row_length for segment in segments(rows, tokenizer))
    assert [(row["part"], row["parts"]) for row in rows] == [(n, len(rows)) for n in range(1, len(rows) + 1)]
    bodies = [row["text"][len(HEADER) :] for row in rows]
    assert all(found.strip() for found in bodies)
    position = 0
    for found in bodies:
        at = body.index(found, position)
        assert body[position:at].strip() == ""  # only white space may be left out, and only as a whole part
        position = at + len(found)
    assert body[position:].strip() == ""
    return bodies


@settings(max_examples=120, deadline=None)
@given(body=texts, row_length=st.sampled_from([32, 48, 128]))
@example(body="x" * 5000, row_length=32)
@example(body="🦋" * 3000, row_length=48)
@example(body="one line without an end", row_length=32)
@example(body="a\r\nb\r\n" * 40, row_length=32)
@example(body="<|im_end|>" * 50, row_length=32)
def test_every_row_fits_and_nothing_is_lost(tokenizer: Tokenizer, body: str, row_length: int) -> None:
    check(body, tokenizer, row_length)


@settings(max_examples=40, deadline=None)
@given(body=texts)
def test_the_same_holds_for_sentencepiece(spm_tokenizer: Tokenizer, body: str) -> None:
    check(body, spm_tokenizer, 48)


def test_rows_without_their_headers_are_the_text(tokenizer: Tokenizer) -> None:
    bodies = check(tiny.TEXT, tokenizer, 96)
    assert "".join(bodies) == tiny.TEXT
    assert len(bodies) > 5


def test_plain_lines_fill_the_rows(tokenizer: Tokenizer) -> None:
    body = "".join(f"line {number} of many\n" for number in range(100))
    bodies = check(body, tokenizer, 64)
    assert "".join(bodies) == body
    assert all(found.endswith("\n") for found in bodies)
    for found, following in itertools.pairwise(bodies):
        longer = HEADER + found + following.splitlines(keepends=True)[0]
        assert len(tokenizer.encode(longer)) > 64


def test_rows_end_before_headings_and_else_at_blank_lines_outside_of_code(tokenizer: Tokenizer) -> None:
    code = "```\n" + "def f():\n\n    pass\n\n" * 2 + "```\n\n"
    paragraphs = [f"paragraph {n} says a little\nin two lines of words\n\n" for n in range(4)]
    body = "".join([*paragraphs, "## Chapter\n\n", *paragraphs, code, *paragraphs])
    bodies = check(body, tokenizer, 180)
    starts = {found.split("\n")[0] for found in bodies[1:]}
    assert "## Chapter" in starts
    assert all(re.match(r"## Chapter|paragraph|```", start) for start in starts)
    assert all(found.endswith("\n\n") for found in bodies)


def test_how_good_a_place_each_line_is() -> None:
    ranked = [
        ("text", LINE), ("", LINE), ("text", BLANK), ("## One", HEADING), ("", TORN), ("### Two", TORN), ("text", TORN),
        ("text", LINE), ("", LINE), ("Setext", HEADING), ("===", TORN), ("", TORN), ("text", TORN), ("", LINE),
        ("```", BLANK), ("code", LINE), ("", LINE), ("code", LINE), ("# code", LINE), ("```", LINE), ("", LINE),
        ("text", BLANK),
    ]  # fmt: skip
    assert list(_ranks([f"{line}\n" for line, _ in ranked])) == [rank for _, rank in ranked]


def test_the_pieces_of_a_long_line_are_torn_apart(tokenizer: Tokenizer) -> None:
    found = _pieces("short\n" + "word " * 300 + "\n", tokenizer)
    assert [piece.rank for piece in found] == [LINE, LINE, TORN, TORN]
    assert "".join(piece.text for piece in found) == "short\n" + "word " * 300 + "\n"


def test_a_heading_stays_with_what_stands_under_it(tokenizer: Tokenizer) -> None:
    body = "".join(f"text {n} of many words\n\n## Chapter {n}\n\n### Part {n}\n\n" for n in range(40))
    for row_length in range(60, 120, 7):
        bodies = check(body, tokenizer, row_length)
        assert all(re.match("## Chapter|text 0", found) for found in bodies)


def test_parts_that_are_not_wanted_are_left_away_but_never_all(tokenizer: Tokenizer) -> None:
    body = "".join(f"line {number} of many\n" for number in range(60))

    def rows(is_wanted: Any) -> list[str]:
        document = Document("repo", "file.md", body)
        passage = Passage(document, "text", body, lambda part, *_: {"text": part}, is_wanted=is_wanted)
        return [row["text"] for row in fit([passage], tokenizer, 64)]

    everything = rows(lambda part: True)
    assert rows(lambda part: "line 0 " not in part) == everything[1:]
    assert rows(lambda part: False) == everything


def test_a_line_too_long_by_itself_is_cut_at_white_space(tokenizer: Tokenizer) -> None:
    body = "caterpillar " * 160 + "\nshort\n"
    bodies = check(body, tokenizer, 64)
    assert "".join(bodies) == body
    assert len(bodies) > 3
    assert all(found.endswith((" ", "\n")) for found in bodies)


def test_work_is_linear_in_the_text(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0
    encode_batch = Tokenizer.encode_batch

    def counting(self: Tokenizer, batch: list[str], **options: Any) -> list[list[int]]:
        nonlocal counted
        counted += sum(map(len, batch))
        return encode_batch(self, batch, **options)

    monkeypatch.setattr(Tokenizer, "encode_batch", counting)
    for body in ("0123456789" * 8_000, "a few words in a line\n" * 4_000, "🦋" * 20_000):
        counted = 0
        document = Document("repo", "file.md", body)
        rows = fit(text.passages(document, ""), tokenizer, 256)
        assert "".join(row["text"] for row in rows) == body
        assert counted < 8 * len(body)


def pieces(*ranked: tuple[int, int]) -> list[Piece]:
    return [Piece("x", tokens, rank) for tokens, rank in ranked]


def test_cuts_take_the_best_place_of_the_second_half() -> None:
    even = [(10, LINE)] * 12
    assert list(cuts(pieces(*even), 50)) == [(0, 5), (5, 10), (10, 12)]
    even[3] = (10, BLANK)
    assert list(cuts(pieces(*even), 50)) == [(0, 3), (3, 8), (8, 12)]
    even[4] = (10, HEADING)
    assert list(cuts(pieces(*even), 50)) == [(0, 4), (4, 9), (9, 12)]
    even[2:5] = [(10, HEADING), (10, LINE), (10, LINE)]  # in the first half: a row would be mostly empty
    assert list(cuts(pieces(*even), 50)) == [(0, 5), (5, 10), (10, 12)]


def test_cuts_go_through_a_line_only_when_it_is_longer_than_a_row() -> None:
    fits_alone = [(10, LINE), (20, LINE), (20, TORN), (10, LINE)]
    assert list(cuts(pieces(*fits_alone), 40)) == [(0, 1), (1, 3), (3, 4)]
    too_long = [(10, LINE), (20, LINE), (20, TORN), (20, TORN), (10, LINE)]
    assert list(cuts(pieces(*too_long), 40)) == [(0, 1), (1, 3), (3, 5)]


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(TORN, HEADING)), max_size=60), st.integers(1, 50))
def test_cuts_are_a_partition_that_fits(ranked: list[tuple[int, int]], room: int) -> None:
    found = list(cuts(pieces(*ranked), room))
    assert [index for start, end in found for index in range(start, end)] == list(range(len(ranked)))
    for start, end in found:
        assert end - start == 1 or sum(tokens for tokens, _ in ranked[start:end]) <= room


@pytest.mark.parametrize("body", ["", "\n\n", " \t\n"])
def test_blank_text_is_no_training_text(tokenizer: Tokenizer, body: str) -> None:
    assert check(body, tokenizer, 64) == []


def test_parts_of_their_own_are_whole_texts(tokenizer: Tokenizer) -> None:
    document = Document("repo", "file.md", tiny.TEXT)
    passage = Passage(document, "fim", tiny.TEXT, lambda part, *_: {"text": part}, own=True)
    rows = fit([passage], tokenizer, 96)
    assert "".join(row["text"] for row in rows) == tiny.TEXT
    assert {(row["part"], row["parts"]) for row in rows} == {(1, 1)}
    assert all(segment.tokens[-1] == tokenizer.eos_id for segment in segments(rows, tokenizer))


def test_a_header_that_fills_the_row_is_an_error(tokenizer: Tokenizer) -> None:
    document = Document("repo", "very/long/" * 20 + "path.md", "text " * 100)
    passages = text.passages(document, "# {repository}/{path}\n\n")
    room = len(tokenizer.encode(f"# {document.name}\n\n")) + 1
    assert len(fit(passages, tokenizer, room + 16)) > 3
    with pytest.raises(NoRoomError, match=r"leaves \d of \d+ tokens(.|\n)*very/long(.|\n)*raise training.row_length"):
        fit(passages, tokenizer, room + 4)
    with pytest.raises(NoRoomError, match="leaves 0 of 32 tokens"):
        fit(passages, tokenizer, 32)


def test_every_row_length_gives_rows_or_an_error(tokenizer: Tokenizer) -> None:
    """Around the header's length, and where later parts repeat more than the first measurement showed."""
    document = Document("repo", "file.md", "")
    body = "text " * 60 + "🦋" * 60

    def render(part: str, number: int, before: str) -> dict[str, Any]:
        return {"text": f"{HEADER}{'again ' * (number // 3 % 4)}{number} {part}"}

    outcomes = set()
    for row_length in range(len(tokenizer.encode(HEADER)), 60):
        try:
            rows = fit([Passage(document, "text", body, render)], tokenizer, row_length)
        except NoRoomError:
            outcomes.add("none")
        else:
            assert max(len(segment.tokens) for segment in segments(rows, tokenizer)) <= row_length
            assert sum(row["text"].count("🦋") for row in rows) == 60
            outcomes.add("rows")
    assert outcomes == {"none", "rows"}


def test_what_grows_without_end_is_an_error(tokenizer: Tokenizer) -> None:
    passage = Passage(Document("repo", "file.md", ""), "text", "text " * 99, lambda part, *_: {"text": part * 40})
    with pytest.raises(NoRoomError, match="of 64 tokens"):
        fit([passage], tokenizer, 64)


def test_a_part_knows_the_one_before_it(tokenizer: Tokenizer) -> None:
    body = "".join(f"line {number} of many\n" for number in range(60))
    passage = Passage(Document("repo", "file.md", ""), "text", body, lambda *given: {"text": given[0], "given": given})
    rows = fit([passage], tokenizer, 64)
    assert [row["given"][1:] for row in rows] == [
        (1, ""),
        *((number, row["text"]) for number, row in enumerate(rows[:-1], 2)),
    ]


def test_the_last_range_is_not_nearly_empty() -> None:
    assert list(cuts(pieces(*[(10, LINE)] * 11), 100)) == [(0, 9), (9, 11)]  # else ten, and then a tenth of a range
    assert list(cuts(pieces(*[(10, LINE)] * 12), 100)) == [(0, 10), (10, 12)]
    assert list(cuts(pieces((80, LINE), (20, LINE), (2, LINE)), 100)) == [(0, 1), (1, 3)]
    assert list(cuts(pieces((100, LINE), (2, LINE)), 100)) == [(0, 1), (1, 2)]


def test_the_first_prompt_that_takes_at_most_half_of_a_row(tokenizer: Tokenizer) -> None:
    prompts = ["chapter " * 50, "chapter " * 20, "chapter"]
    tokens = [len(tokenizer.encode(prompt)) for prompt in prompts]
    for number, prompt in enumerate(prompts):
        assert first_fitting(prompts, tokenizer, 2 * tokens[number]) == prompt
        assert first_fitting(prompts[: number + 1], tokenizer, 2 * tokens[number] - 1) == prompt
