"""Conversations of any origin: the roles, what is cut off and joined, and every reason to refuse one."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrysalis_mlx.corpus.data.conversation import (
    CUT_AFTER,
    CUT_BEFORE,
    JOINED,
    ROLES,
    BadRowError,
    conversation,
)
from chrysalis_mlx.models.chat import ChatTemplate

Turn = dict[str, Any]

# Refuses what Llama 2's, Mistral's and Gemma's templates refuse.
ALTERNATING = (
    "{% set turns = messages[1:] if messages[0].role == 'system' else messages %}"
    "{% for turn in turns %}"
    "{% if (turn.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ turn.role }}:{{ turn.content }}\n{% endfor %}"
)


def turns(roles: str) -> list[Turn]:
    """s, u, a and t for the speakers; each turn's content is its place."""
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": names[role], "content": str(place)} for place, role in enumerate(roles)]


def roles_of(messages: list[Turn]) -> str:
    return "".join(message["role"][0] for message in messages)


@pytest.mark.parametrize("roles", ["ua", "sua", "uaua", "suaua", "uatauata", "uatta"])
def test_a_good_conversation_stays_as_it_is(roles: str) -> None:
    assert conversation(turns(roles)) == (turns(roles), [])


@pytest.mark.parametrize(
    ("roles", "kept", "notes"),
    [
        ("uau", [0, 1], [CUT_AFTER]),
        ("uauauu", [0, 1, 2, 3], [CUT_AFTER]),
        ("uat", [0, 1], [CUT_AFTER]),
        ("aua", [1, 2], [CUT_BEFORE]),
        ("saaua", [0, 3, 4], [CUT_BEFORE]),
        ("auau", [1, 2], [CUT_BEFORE, CUT_AFTER]),
    ],
)
def test_turns_before_the_first_question_and_after_the_last_answer_are_cut_off(
    roles: str, kept: list[int], notes: list[str]
) -> None:
    assert conversation(turns(roles)) == ([turns(roles)[place] for place in kept], notes)


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_turns_of_one_speaker_in_a_row_are_joined(role: str) -> None:
    others = [turn for turn in turns("sua") if turn["role"] != role]
    pair = [{"role": role, "content": "one\n"}, {"role": role, "content": "two"}]
    given_turns = sorted([*others, *pair], key=lambda turn: ["system", "user", "assistant"].index(turn["role"]))
    messages, notes = conversation(given_turns)
    assert roles_of(messages) == "sua"
    assert {turn["role"]: turn["content"] for turn in messages}[role] == "one\n\n\ntwo"
    assert notes == [JOINED]


def test_turns_with_more_than_text_and_tools_are_not_joined() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    given_turns = [*turns("u"), *turns("a"), call, *turns("tt"), {"role": "assistant", "content": "b", "weight": 0}]
    assert conversation([*given_turns, *turns("ua")]) == ([*given_turns, *turns("ua")], [])


@given(st.text("suat", min_size=1, max_size=12))
def test_what_is_accepted_ends_with_an_answer_and_never_has_one_speaker_twice(roles: str) -> None:
    try:
        messages, notes = conversation(turns(roles))
    except BadRowError:
        return
    found = roles_of(messages)
    assert found.lstrip("s").startswith("u")
    assert found.endswith("a")
    assert all(one != two or one == "t" for one, two in pairwise(found))
    assert "s" not in found[1:]
    if "t" not in found:
        ChatTemplate(ALTERNATING, {}).render(messages)
    assert bool(notes) == (messages != turns(roles))
    assert conversation(messages) == (messages, [])


@pytest.mark.parametrize(
    ("given_turns", "reason", "detail"),
    [
        (None, "the conversation is not a list of turns", "it is missing"),
        ([], "the conversation is not a list of turns", "it is []"),
        ({"role": "user"}, "the conversation is not a list of turns", "it is {'role': 'user'}"),
        ("[{'role': 'user'}]", "a text should be JSON and is not", "the conversation: Expecting property name"),
        (["hello"], "a turn is not an object", "turn 1 is 'hello'"),
        ([{"content": "a"}], "a turn has no known role", "the role of turn 1 is missing"),
        ([*turns("u"), {"role": "narrator", "content": "x"}], "a turn has no known role", "turn 2 is 'narrator'"),
        ([{"role": "user", "content": 3}], "a value is not a text", "turn 1 is 3"),
        (turns("sa"), "the user says nothing", ""),
        (turns("su"), "the assistant gives no answer", ""),
        (turns("au"), "the assistant gives no answer", ""),
        ([*turns("u"), {"role": "assistant", "content": " "}], "the assistant gives no answer", ""),
        ([*turns("u"), {"role": "assistant", "content": None}], "the assistant gives no answer", ""),
        (turns("uasua"), "the system speaks after the conversation has begun", "turn 3"),
        (turns("uta"), "a tool answers that the assistant did not call", "turn 2"),
        ([{"role": "user", "content": "\n"}, *turns("a")], "a turn is empty", "turn 1, of the user"),
        ([*turns("u"), {"role": "assistant"}, *turns("ua")], "a turn is empty", "turn 2, of the assistant"),
        ([{"role": "user", "content": "\ud83e"}], "a text holds half a character (a lone surrogate)", r"\ud83e"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image_url"}]}],
            "a part is no text, and only text is learned",
            "turn 1 has a part of type image_url",
        ),
        (
            [*turns("u"), {"role": "assistant", "tool_calls": [{"name": b"f"}]}],
            "a value cannot be written as JSON",
            "tool_calls of turn 2",
        ),
        ([*turns("u"), {"role": "function_call", "content": "f()"}], "a text should be JSON and is not", "turn 2"),
        ([*turns("u"), {"role": "function_call", "content": "[]"}], "the assistant gives no answer", ""),
        ([*turns("u"), {"role": "function_call", "content": "[1]"}], "a call names no function", "turn 2"),
        (
            [*turns("u"), {"role": "function_call", "content": '{"arguments": {}}'}],
            "a call names no function",
            "turn 2",
        ),
        (
            [*turns("u"), {"role": "tool_call", "content": '{"name": "f", "arguments": "[1]"}'}],
            "the arguments of a call are not an object",
            "turn 2",
        ),
        (
            [*turns("u"), {"role": "assistant", "content": "a", "train": "perhaps"}],
            "whether a turn is learned is neither true nor false",
            "train of turn 2: 'perhaps'",
        ),
    ],
)
def test_every_reason_to_refuse_a_conversation(given_turns: Any, reason: str, detail: str) -> None:
    with pytest.raises(BadRowError) as caught:
        conversation(given_turns)
    assert caught.value.reason == reason
    assert detail in caught.value.detail


def test_roles_get_the_names_that_templates_know() -> None:
    assert set(ROLES.values()) == {"system", "user", "assistant", "tool"}
    speakers = [("System", "be brief"), ("human", "hi"), ("gpt", "hello"), ("Observation", "{}"), ("model", "done")]
    messages, notes = conversation([{"from": a, "value": b} for a, b in speakers], role="from", content="value")
    assert [(turn["role"], turn["content"]) for turn in messages] == [
        ("system", "be brief"),
        ("user", "hi"),
        ("assistant", "hello"),
        ("tool", "{}"),
        ("assistant", "done"),
    ]
    assert notes == []


def test_text_parts_are_joined_and_keys_that_nobody_reads_are_left_away() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    given_turns = [
        {"role": "user", "content": parts, "id": 7, "name": "ada"},
        {"role": "assistant", "content": "c", "tool_calls": None, "reasoning_content": "hm", "weight": 0},
    ]
    assert conversation(given_turns) == (
        [
            {"role": "user", "content": "a b", "name": "ada"},
            {"role": "assistant", "content": "c", "reasoning_content": "hm", "weight": 0},
        ],
        [],
    )


def test_calls_written_as_json_become_calls() -> None:
    call = {"name": "weather", "arguments": {"city": "東京"}}
    expected = [{"type": "function", "function": call}]
    speakers = [("human", "?"), ("function_call", json.dumps(call)), ("observation", "7°"), ("gpt", "cold")]
    messages, _ = conversation([{"from": a, "value": b} for a, b in speakers], role="from", content="value")
    assert messages[1] == {"role": "assistant", "content": "", "tool_calls": expected}
    openai = {"role": "assistant", "content": None, "tool_calls": json.dumps(expected)}
    assert conversation([*turns("u"), openai])[0][1] == {"role": "assistant", "content": "", "tool_calls": expected}


@pytest.mark.parametrize("arguments", [{"city": "東京"}, '{"city": "東京"}', "", None])
def test_the_arguments_of_calls_are_objects_whoever_wrote_them(arguments: Any) -> None:
    function = {"name": "weather", "arguments": arguments}
    expected = {"name": "weather", "arguments": {"city": "東京"} if arguments else {}}
    openai = {"tool_calls": [{"id": "1", "type": "function", "function": function}]}
    messages, _ = conversation([*turns("u"), {"role": "assistant", "content": "", **openai}])
    assert messages[1]["tool_calls"] == [{"id": "1", "type": "function", "function": expected}]
    older = {"role": "assistant", "content": None, "function_call": function}
    messages, _ = conversation([*turns("u"), older])
    assert messages[1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": expected}],
    }


def test_no_calls_are_nothing() -> None:
    said = {"role": "assistant", "content": "a", "tool_calls": "[]"}
    assert conversation([*turns("u"), said])[0][1] == {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ({"train": "True"}, {"train": True}),
        ({"train": "false"}, {"train": False}),
        ({"train": 0}, {"train": False}),
        ({"weight": "0"}, {"weight": 0}),
        ({"weight": True}, {"weight": 1}),
        ({"weight": None}, {}),
    ],
)
def test_whether_a_turn_is_learned_may_be_written_as_text(written: dict[str, Any], kept: dict[str, Any]) -> None:
    messages, _ = conversation([*turns("u"), {"role": "assistant", "content": "a", **written}])
    assert messages[1] == {"role": "assistant", "content": "a", **kept}


def test_the_words_of_a_turn_may_be_called_text() -> None:
    assert conversation([{"role": "user", "text": "q"}, {"role": "assistant", "text": "a"}])[0] == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]


def test_a_conversation_may_be_json_in_a_text() -> None:
    assert conversation(json.dumps(turns("sua"))) == (turns("sua"), [])
