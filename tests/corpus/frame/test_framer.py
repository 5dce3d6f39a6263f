"""How often a document is framed in which way."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.blueprint.schema import FramingSection, MixSection
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame.chunks import NoRoomError
from chrysalis_mlx.corpus.frame.framer import Framer
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny

DOCUMENTS = [Document("repo", f"{number}.md", f"# Title {number}\n\n{tiny.TEXT}") for number in range(200)]


def framer(tokenizer: Tokenizer, seed: int = 0, **mix: float) -> Framer:
    return Framer(FramingSection(mix=MixSection(**mix)), tokenizer, 4000, seed)


def ways(times: list[list[dict[str, object]]]) -> tuple[str, ...]:
    """How a document is framed each time."""
    assert all(len({row["framing"] for row in rows}) == 1 for rows in times)
    return tuple(str(rows[0]["framing"]) for rows in times)


def test_shares_that_add_up_to_one_show_each_document_once(tokenizer: Tokenizer) -> None:
    made = framer(tokenizer, text=0.1, chat=0.6, completion=0.3)
    found = Counter(ways(made.frame(document, 1)) for document in DOCUMENTS)
    assert set(found) == {("text",), ("chat",), ("completion",)}
    for way, expected in (("text", 20), ("chat", 120), ("completion", 60)):
        assert abs(found[way,] - expected) < 25


def test_whole_weights_come_up_each_time_and_fractions_as_often_as_they_say(tokenizer: Tokenizer) -> None:
    made = framer(tokenizer, text=1, chat=0.5)
    found = Counter(ways(made.frame(document, 1)) for document in DOCUMENTS)
    assert set(found) == {("text",), ("text", "chat")}
    assert abs(found["text", "chat"] - 100) < 25
    assert {ways(made.frame(document, 2)) for document in DOCUMENTS} == {("text", "text", "chat")}
    assert {ways(made.frame(document, 0.4)) for document in DOCUMENTS} == {(), ("text",), ("chat",)}
    assert {ways(made.frame(document, 0)) for document in DOCUMENTS} == {()}


def test_what_is_kept_back_is_framed_once_whatever_the_mix(tokenizer: Tokenizer) -> None:
    made = framer(tokenizer, text=3, chat=1)
    found = Counter(ways([made.frame_once(document)]) for document in DOCUMENTS)
    assert set(found) == {("text",), ("chat",)}
    assert abs(found["chat",] - 50) < 25


def test_what_speaks_of_turns_in_their_own_tokens_is_no_chat(tokenizer: Tokenizer) -> None:
    made = framer(tokenizer, text=0.25, chat=0.75)
    for token in ("<|im_start|>", "<|im_end|>"):
        document = Document("repo", "a.md", f"# A turn\n\nIt has {token} in it. {tiny.TEXT}")
        assert made.ways(document) == ["text"]
        assert ways(made.frame(document, 1)) == ("text",)
    assert made.ways(Document("repo", "a.md", f"# A turn\n\nIt has <|im_stop|> in it. {tiny.TEXT}")) == ["text", "chat"]


def test_a_way_that_cannot_frame_a_document_leaves_its_weight_to_the_others(tokenizer: Tokenizer) -> None:
    made = framer(tokenizer, text=0.25, completion=0.25, fim=1.5)
    assert made.ways(DOCUMENTS[0]) == ["text", "completion"]
    assert {ways(made.frame(document, 1)) for document in DOCUMENTS} == {("text", "completion")}
    without_template = Tokenizer(tokenizer._engine, tokenizer.eos_id, None)
    assert framer(without_template, chat=0.9, text=0.1).frame_once(DOCUMENTS[0])[0]["framing"] == "text"


@pytest.mark.parametrize("mix", [{"fim": 1.0}, {"history": 1.0}])
def test_where_no_way_can_there_are_no_rows(tokenizer: Tokenizer, mix: dict[str, float]) -> None:
    made = framer(tokenizer, **mix)
    assert made.ways(DOCUMENTS[0]) == []
    assert made.frame(DOCUMENTS[0], 1) == made.frame_once(DOCUMENTS[0]) == []


def test_repeats_ask_otherwise(tokenizer: Tokenizer) -> None:
    [first], [second] = framer(tokenizer, chat=2).frame(DOCUMENTS[0], 1)
    assert first["messages"][0] != second["messages"][0]
    assert first["messages"][1] == second["messages"][1]
    [first], [second] = framer(tokenizer, text=2).frame(DOCUMENTS[0], 1)
    assert first == second


def test_rows_depend_on_the_seed_and_nothing_else(tokenizer: Tokenizer) -> None:
    def all_rows(seed: int) -> list[list[dict[str, object]]]:
        made = framer(tokenizer, seed, text=0.5, chat=0.5)
        return [rows for document in DOCUMENTS for rows in made.frame(document, 1)]

    assert all_rows(0) == all_rows(0)
    assert ways(all_rows(0)) != ways(all_rows(1))
    made = framer(tokenizer, text=0.5, chat=0.5)
    assert [rows for document in reversed(DOCUMENTS) for rows in made.frame(document, 1)] == all_rows(0)[::-1]


def test_rows_say_where_they_come_from_and_fit(tokenizer: Tokenizer) -> None:
    section = FramingSection(mix=MixSection(text=1, completion=1, chat=1), header="{path}: ", system="Be brief.")
    times = Framer(section, tokenizer, 200, 0).frame(DOCUMENTS[7], 1)
    assert ways(times) == ("text", "completion", "chat")
    rows = [row for rows in times for row in rows]
    forms = {"text": ["text"], "completion": ["prompt", "completion"], "chat": ["messages"]}
    for row in rows:
        assert list(row) == [*forms[row["framing"]], "repository", "path", "framing", "part", "parts"]
        assert (row["repository"], row["path"]) == ("repo", "7.md")
        assert row["parts"] > 1
    assert all(row["text"].startswith("7.md: ") for row in rows if row["framing"] == "text")
    assert all(len(segment.tokens) <= 200 for segment in segments(rows, tokenizer))


def test_a_document_is_drawn_by_what_it_says(tokenizer: Tokenizer) -> None:
    made = framer(tokenizer, text=0.5, chat=0.5)
    moved = [dataclasses.replace(document, repository="other") for document in DOCUMENTS]
    assert [ways([made.frame_once(document)]) for document in moved] == [
        ways([made.frame_once(document)]) for document in DOCUMENTS
    ]


def test_each_time_that_a_document_is_seen_stands_by_itself(tokenizer: Tokenizer) -> None:
    made = Framer(FramingSection(mix=MixSection(text=2, completion=1)), tokenizer, 200, 0)
    times = made.frame(DOCUMENTS[0], 1)
    assert ways(times) == ("text", "text", "completion")
    assert times[0] == times[1]
    for rows in times[:2]:
        assert [row["part"] for row in rows] == list(range(1, rows[0]["parts"] + 1))
    assert made.frame_once(DOCUMENTS[0]) in times


def test_what_is_not_worded_is_framed_as_text_alone(tokenizer: Tokenizer) -> None:
    made = framer(tokenizer, text=0.1, completion=1, chat=1)
    trace = Document("repo", "trace.txt", "2025-12-22T23:38:10.720+00:00\n" + "0123456789abcdef" * 4)
    assert made.ways(trace) == ["text"]
    assert [made.ways(document) for document in DOCUMENTS[:3]] == [["text", "completion", "chat"]] * 3
    figures = Document("repo", "a.md", "7 8 9\n" * 200 + "# A\n\n" + "some words " * 20)
    assert made.ways(figures) == ["text"]


def test_what_has_no_room_is_framed_as_text_where_that_has_room(tokenizer: Tokenizer) -> None:
    def once(row_length: int, **mix: float) -> set[object]:
        section = FramingSection(mix=MixSection(**mix), system="Be brief. " * 40)
        return {row["framing"] for row in Framer(section, tokenizer, row_length, 0).frame_once(DOCUMENTS[0])}

    assert once(2000, chat=1) == {"chat"}
    assert once(200, chat=1, text=1e-9) == {"text"}
    with pytest.raises(NoRoomError, match="of 200 tokens"):
        once(200, chat=1)
    with pytest.raises(NoRoomError, match=r"of 8 tokens(.|\n)*repo/0\.md"):
        once(8, chat=1, text=1e-9)


def test_a_header_gives_away_nothing_but_its_two_fields(tokenizer: Tokenizer) -> None:
    section = FramingSection(mix=MixSection(text=1), header="{repository.__class__}{path}\n")
    [[row]] = Framer(section, tokenizer, 4000, 0).frame(DOCUMENTS[0], 1)
    assert row["text"].startswith("{repository.__class__}0.md\n# Title 0")
