"""Rows that are too long: cut so that nothing is lost where that keeps their sense, else left out with their number."""

from __future__ import annotations

from typing import Any

import pytest

from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.corpus.data.fit import fit_rows
from chrysalis_mlx.models.chat import ChatTemplate
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests.tiny import TEXT

Row = dict[str, Any]


def row(number: int, **content: Any) -> Row:
    return {**content, "repository": "rows.jsonl", "path": str(number), "framing": "messages"}


def exchange(question: str, answer: str, **keys: Any) -> list[Row]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **keys}]


def lengths(rows: list[Row], tokenizer: Tokenizer) -> list[int]:
    return [len(segment.tokens) for segment in segments(rows, tokenizer)]


@pytest.fixture(scope="module")
def calling(tokenizer: Tokenizer) -> Tokenizer:
    """Of a model that was taught to call tools."""
    assert tokenizer.chat
    source = (
        "{% if tools %}<|im_start|>tools {{ tools | tojson }}<|im_end|>\n{% endif %}{% for message in messages %}"
        "<|im_start|>{{ message.role }}\n{{ message.content }}{{ message.tool_calls | tojson if message.tool_calls }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return Tokenizer(tokenizer._engine, tokenizer.eos_id, ChatTemplate(source, tokenizer.chat.tokens))


def test_calls_that_the_template_does_not_show_would_teach_to_say_nothing(
    tokenizer: Tokenizer, calling: Tokenizer
) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {}}}
    turns = [{"role": "user", "content": "Cold?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    rows = [row(1, messages=turns), row(2, messages=exchange("a", "b"))]
    fitted = fit_rows(rows, tokenizer, 256)
    assert (fitted.rows, fitted.origins) == ([rows[1]], [1])
    [remark] = fitted.left_out
    assert remark.reason == "the chat template cannot show the conversation"
    assert "does not show the calls of message 2" in remark.detail
    assert fit_rows(rows, calling, 256).rows == rows
    off = [turns[0], turns[1] | {"weight": 0}, {"role": "tool", "content": "7"}, *exchange("And?", "No.")[1:]]
    assert fit_rows([row(1, messages=off)], tokenizer, 256).left_out == []
    # What is left out is told once, with or without tools.
    fitted = fit_rows([row(1, messages=turns, tools=[{"name": "f"}])], tokenizer, 256)
    assert (len(fitted.left_out), fitted.cut) == (1, [])


def test_tools_that_the_template_does_not_show_are_left_away(tokenizer: Tokenizer, calling: Tokenizer) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    rows = [row(1, messages=exchange("a", "b"), tools=tools), row(2, messages=exchange("c", "d"))]
    fitted = fit_rows(rows, tokenizer, 256)
    assert fitted.rows == [row(1, messages=exchange("a", "b")), rows[1]]
    assert [(remark.number, remark.reason) for remark in fitted.cut] == [
        (1, "the chat template shows no tools: they were left away")
    ]
    assert (fit_rows(rows, calling, 256).rows, fit_rows(rows, calling, 256).cut) == (rows, [])


@pytest.mark.parametrize("ends", [True, False])
def test_the_last_part_of_a_text_ends_where_the_text_does(tokenizer: Tokenizer, ends: bool) -> None:
    whole = row(1, text=TEXT) if ends else row(1, text=TEXT, part=1, parts=2)
    fitted = fit_rows([whole, row(2, text="short")], tokenizer, 64)
    found = segments(fitted.rows, tokenizer)
    assert fitted.origins == [0] * (len(found) - 1) + [1]
    assert [int(segment.tokens[-1]) == tokenizer.eos_id for segment in found] == [
        *[False] * (len(found) - 2),
        ends,
        True,
    ]


def test_rows_that_fit_stay_as_they_are(calling: Tokenizer) -> None:
    tokenizer = calling
    rows = [
        row(1, text="short"),
        row(2, prompt="a ", completion="b"),
        row(3, messages=exchange("a", "b"), tools=[{"name": "f"}]),
    ]
    fitted = fit_rows(rows, tokenizer, max(lengths(rows, tokenizer)))
    assert (fitted.rows, fitted.origins, fitted.cut, fitted.left_out) == (rows, [0, 1, 2], [], [])
    assert fit_rows([], tokenizer, 16).rows == []


@pytest.mark.parametrize("copies", [1, 20])
def test_a_long_text_becomes_several_rows_and_loses_nothing(tokenizer: Tokenizer, copies: int) -> None:
    text = TEXT * copies
    fitted = fit_rows([row(1, text=text), row(2, text="short")], tokenizer, 64)
    parts, short = fitted.rows[:-1], fitted.rows[-1]
    assert "".join("".join(part["text"] for part in parts).split()) == "".join(text.split())
    assert max(lengths(fitted.rows, tokenizer)) <= 64
    assert [part["part"] for part in parts] == list(range(1, len(parts) + 1))
    assert {(part["parts"], part["repository"], part["path"]) for part in parts} == {(len(parts), "rows.jsonl", "1")}
    assert short == row(2, text="short")
    assert [(remark.number, remark.reason, remark.detail) for remark in fitted.cut] == [
        (1, "too long, so that it became several rows", f"{len(parts)} rows")
    ]


def test_a_long_completion_loses_its_end_and_does_not_learn_to_end_there(tokenizer: Tokenizer) -> None:
    prompt = "Tell of the caterpillar.\n"
    [whole] = lengths([row(1, prompt=prompt, completion=TEXT)], tokenizer)
    fitted = fit_rows([row(1, prompt=prompt, completion=TEXT)], tokenizer, 96)
    [kept] = fitted.rows
    assert kept["prompt"] == prompt
    assert TEXT.startswith(kept["completion"])
    [segment] = segments([kept], tokenizer)
    assert 48 < len(segment.tokens) <= 96
    assert tokenizer.eos_id not in segment.tokens
    assert [(remark.number, remark.reason, remark.detail) for remark in fitted.cut] == [
        (1, "too long, so that its end was cut off", f"{whole} tokens; training.row_length is 96")
    ]


def test_a_completion_whose_prompt_takes_more_than_half_a_row_is_left_out(tokenizer: Tokenizer) -> None:
    rows = [row(4, prompt=TEXT[:200], completion=TEXT), row(5, prompt="a", completion="b")]
    [whole, _] = lengths(rows, tokenizer)
    prompt = len(tokenizer.encode(TEXT[:200])) + 1
    fitted = fit_rows(rows, tokenizer, 2 * prompt - 1)
    assert fitted.rows == [rows[1]]
    [remark] = fitted.left_out
    assert (remark.number, remark.reason) == (4, "too long, and its prompt takes more than half a row")
    assert remark.detail == f"{whole} tokens, {prompt} of them the prompt's; training.row_length is {2 * prompt - 1}"
    cut, other = fit_rows(rows, tokenizer, 2 * prompt).rows
    assert (cut["prompt"], other) == (TEXT[:200], rows[1])


def test_a_long_conversation_loses_its_last_exchanges(calling: Tokenizer) -> None:
    tokenizer = calling
    turns = [turn for i in range(9) for turn in exchange(f"Question {i}?", TEXT[40 * i : 40 * i + 40])]
    system = [{"role": "system", "content": "Be brief."}]
    tools = [{"name": "f"}]
    for kept in range(1, 9):
        short = row(3, messages=system + turns[: 2 * kept], tools=tools)
        [room] = lengths([short], tokenizer)
        [following] = lengths([row(3, messages=system + turns[: 2 * kept + 2], tools=tools)], tokenizer)
        for row_length in (room, following - 1):
            fitted = fit_rows([row(3, messages=system + turns, tools=tools)], tokenizer, row_length)
            assert fitted.rows == [short]
            [remark] = fitted.cut
            assert remark.detail.startswith(f"{18 - 2 * kept} of 19 turns; ")


def test_a_conversation_is_never_cut_between_a_call_and_its_answer(tokenizer: Tokenizer) -> None:
    begin = exchange("Hi", "Hello")
    turns = [
        *begin,
        *exchange("How cold is it?", "weather()"),
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": TEXT[:300]},
    ]
    [full, called] = lengths([row(1, messages=turns), row(1, messages=turns[:4])], tokenizer)
    for row_length in (called, full - 1):
        assert fit_rows([row(1, messages=turns)], tokenizer, row_length).rows == [row(1, messages=begin)]


def test_a_conversation_whose_first_exchange_is_too_long_is_left_out(tokenizer: Tokenizer) -> None:
    turns = exchange("Why?", TEXT)
    rows = [
        row(7, messages=turns + exchange("And?", "So.")),
        row(8, messages=turns),
        row(9, messages=exchange("a", "b")),
    ]
    [_, first, _] = lengths(rows, tokenizer)
    fitted = fit_rows(rows, tokenizer, first - 1)
    assert fitted.rows == rows[2:]
    assert [(remark.number, remark.reason, remark.detail) for remark in fitted.left_out] == [
        (number, "its first exchange is too long", f"{first} tokens; training.row_length is {first - 1}")
        for number in (7, 8)
    ]


def test_what_the_template_refuses_is_left_out_and_the_rest_goes_on(tokenizer: Tokenizer) -> None:
    assert tokenizer.chat
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    picky = Tokenizer(tokenizer._engine, tokenizer.eos_id, ChatTemplate(strict + tokenizer.chat.source, {}))
    good = [row(number, messages=exchange(f"{number}?", "yes")) for number in range(1, 6)]
    bad = row(3, messages=[{"role": "system", "content": "s"}, *exchange("3?", "yes")])
    fitted = fit_rows([*good[:2], bad, *good[3:]], picky, 256)
    assert fitted.rows == [*good[:2], *good[3:]]
    [remark] = fitted.left_out
    assert (remark.number, remark.reason) == (3, "the chat template cannot show the conversation")
    assert "no system here" in remark.detail


def test_rows_of_which_nothing_is_learned_are_left_out(tokenizer: Tokenizer) -> None:
    off = exchange("a", "b", weight=0)
    long = off + exchange("c", TEXT)
    fitted = fit_rows([row(1, messages=off), row(2, messages=long)], tokenizer, 64)
    assert fitted.rows == []
    assert [(remark.number, remark.reason) for remark in fitted.left_out] == [
        (1, "nothing in the row is learned"),
        (2, "too long, and nothing that fits is learned"),
    ]
