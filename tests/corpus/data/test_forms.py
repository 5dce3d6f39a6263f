"""Every form of a row, with and without a chat template, and what is refused of each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chrysalis_mlx.batches.rows import form_of
from chrysalis_mlx.corpus.data.conversation import CUT_AFTER, BadRowError
from chrysalis_mlx.corpus.data.forms import FormName, convert, known_keys, tell_form, why_no_form

ASK = {"role": "user", "content": "Why?"}
TELL = {"role": "assistant", "content": "Because."}
TURNS = [ASK, TELL]
SHAREGPT = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
BRIEF = {"role": "system", "content": "Be brief."}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


def told(row: dict[str, Any], *, chat: bool = True) -> dict[str, Any]:
    form = tell_form(row)
    assert form
    converted = convert(row, form, chat=chat).row
    assert form_of(converted)
    return converted


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"messages": TURNS}, "messages"),
        ({"conversations": TURNS}, "messages"),
        ({"conversation": TURNS, "text": "x"}, "messages"),
        ({"messages": json.dumps(TURNS)}, "messages"),
        ({"messages": []}, "messages"),
        ({"conversations": SHAREGPT}, "sharegpt"),
        ({"messages": SHAREGPT}, "sharegpt"),
        ({"conversations": json.dumps(SHAREGPT)}, "sharegpt"),
        ({"instruction": "Do.", "input": "", "output": "Done.", "text": "all of it"}, "alpaca"),
        ({"instruction": "Do.", "context": "", "response": "Done.", "category": "qa"}, "alpaca"),
        ({"prompt": "a", "completion": "b", "text": "ab"}, "completion"),
        ({"prompt": "a", "response": "b"}, "completion"),
        ({"question": "a", "answer": "b"}, "completion"),
        ({"query": "a", "response": "b"}, "completion"),
        ({"input": "a", "output": "b"}, "completion"),
        ({"prompt": [ASK], "completion": [TELL]}, "completion"),
        ({"text": "a", "label": 1}, "text"),
        ({"text": 3}, None),
        ({"prompt": "a"}, None),
        ({"instruction": "a"}, None),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, None),
        ({}, None),
    ],
)
def test_the_form_is_told_from_the_keys(row: dict[str, Any], form: FormName | None) -> None:
    assert tell_form(row) == form


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS},
        {"conversations": TURNS},
        {"messages": json.dumps(TURNS)},
        {"conversations": SHAREGPT},
        {"instruction": "Why?", "output": "Because."},
        {"instruction": "Why?", "input": " ", "output": "Because.", "history": [], "system": ""},
        {"instruction": "", "input": "Why?", "output": "Because."},
        {"prompt": "Why?", "completion": "Because."},
        {"question": "Why?", "answer": "Because."},
        {"prompt": [ASK], "completion": [TELL]},
        {"prompt": [ASK], "completion": "Because."},
        {"prompt": "Why?", "completion": [TELL]},
    ],
)
def test_every_form_of_an_exchange_is_the_same_conversation(row: dict[str, Any]) -> None:
    assert told(row) == {"messages": TURNS}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS, "system": "Be brief."},
        {"messages": [BRIEF, *TURNS], "system": "passed over"},
        {"conversations": SHAREGPT, "system": "Be brief."},
        {"conversations": [{"from": "system", "value": "Be brief."}, *SHAREGPT]},
        {"instruction": "Why?", "output": "Because.", "system": "Be brief."},
        {"prompt": "Why?", "completion": "Because.", "system": "Be brief."},
        {"prompt": [BRIEF, ASK], "completion": [TELL]},
    ],
)
def test_the_system_speaks_first(row: dict[str, Any]) -> None:
    assert told(row) == {"messages": [BRIEF, *TURNS]}


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS)])
@pytest.mark.parametrize(
    "row", [{"messages": TURNS}, {"conversations": SHAREGPT}, {"prompt": "Why?", "completion": "Because."}]
)
def test_tools_are_kept(row: dict[str, Any], tools: Any) -> None:
    assert told(row | {"tools": tools}) == {"messages": TURNS, "tools": TOOLS}
    assert told(row | {"tools": "" if isinstance(tools, str) else []}) == {"messages": TURNS}


def test_bare_functions_become_tools() -> None:
    assert told({"messages": TURNS, "functions": [TOOLS[0]["function"]]}) == {"messages": TURNS, "tools": TOOLS}


def test_what_a_question_is_about_stands_before_it() -> None:
    row = {"question": "Who?", "context": "Ada wrote it.", "answer": "Ada."}
    assert told(row, chat=False) == {"prompt": "Ada wrote it.\n\nWho?", "completion": "Ada."}
    assert told(row)["messages"][0]["content"] == "Ada wrote it.\n\nWho?"
    dolly = {"instruction": "Who?", "context": "Ada wrote it.", "response": "Ada."}
    assert told(dolly)["messages"][0]["content"] == "Who?\nAda wrote it."


def test_keys_of_tables_may_be_written_with_capitals() -> None:
    row = known_keys({"Prompt": "a", "COMPLETION": "b", "Note": 1, "System_Prompt": "Be brief."})
    assert row == {"prompt": "a", "completion": "b", "Note": 1, "system_prompt": "Be brief."}
    assert told(row, chat=False) == {"prompt": "Be brief.\n\na", "completion": "b"}
    assert known_keys({"Text": "a", "text": "b", "TEXT": "c"}) == {"Text": "a", "text": "b", "TEXT": "c"}


def test_alpaca_with_input_and_history() -> None:
    row = {"instruction": "Add.", "input": "1 2", "output": "3", "history": [["Hi.", "Hello."]]}
    assert told(row) == {
        "messages": [
            {"role": "user", "content": "Hi."},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Add.\n1 2"},
            {"role": "assistant", "content": "3"},
        ]
    }
    assert told(row, chat=False) == {
        "prompt": "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nHi.\n\n### Response:\nHello.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n",
        "completion": "3",
    }


def test_without_a_chat_template_exchanges_are_prompt_and_completion() -> None:
    assert told({"instruction": "Why?", "output": "Because."}, chat=False) == {
        "prompt": "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\nWhy?\n\n### Response:\n",
        "completion": "Because.",
    }
    system = {"instruction": "Why?", "output": "Because.", "system": "Be brief."}
    assert told(system, chat=False)["prompt"] == "Be brief.\n\n### Instruction:\nWhy?\n\n### Response:\n"
    assert told({"question": "Why? ", "answer": " Because."}, chat=False) == {
        "prompt": "Why? ",
        "completion": " Because.",
    }
    with_system = {"prompt": "Why?", "completion": "Because.", "system": "Be brief."}
    assert told(with_system, chat=False)["prompt"] == "Be brief.\n\nWhy?"


@pytest.mark.parametrize("chat", [True, False])
def test_text_stays_text(chat: bool) -> None:
    assert told({"text": " as it is\r\n"}, chat=chat) == {"text": " as it is\r\n"}


@pytest.mark.parametrize("label", [0, 1, "0", "1", 0.0, "sports"])
def test_a_label_that_may_be_a_class_is_no_preference(label: Any) -> None:
    assert told({"text": "a", "label": label}) == {"text": "a"}
    assert told({"text": "a", "label": True}) == {"text": "a"}
    assert told({"prompt": "a", "completion": "b", "label": label}, chat=False) == {"prompt": "a", "completion": "b"}


def test_the_keys_that_were_read_and_what_was_changed_are_told() -> None:
    row = {"conversations": [*SHAREGPT, {"from": "human", "value": "And?"}], "system": "Be brief.", "id": 3}
    converted = convert(row, "sharegpt", chat=True)
    assert converted.used == {"conversations", "system", "system_prompt", "tools", "functions"}
    assert converted.notes == (CUT_AFTER,)


@pytest.mark.parametrize(
    ("row", "form", "reason", "detail"),
    [
        ({"text": "a"}, "messages", "not of the form messages", "its keys: text"),
        ({"text": "a"}, "sharegpt", "not of the form sharegpt", "its keys: text"),
        ({"text": "a", "output": "b"}, "alpaca", "not of the form alpaca", "its keys: text, output"),
        ({"prompt": "a"}, "completion", "not of the form completion", "its keys: prompt"),
        ({"prompt": "a"}, "text", "not of the form text", "its keys: prompt"),
        ({}, "text", "not of the form text", "its keys: none"),
        ({"text": " \n"}, "text", "a text is empty", "text"),
        ({"prompt": "a", "completion": ""}, "completion", "a text is empty", "completion"),
        ({"prompt": "", "completion": "a"}, "completion", "a text is empty", "prompt"),
        ({"prompt": "a", "completion": None}, "completion", "a value is missing", "completion is null"),
        ({"prompt": "a", "completion": 1}, "completion", "a value is not a text", "completion is 1"),
        ({"instruction": "a", "output": " "}, "alpaca", "a text is empty", "output"),
        ({"instruction": "", "input": "", "output": "a"}, "alpaca", "a text is empty", "instruction"),
        (
            {"instruction": "a", "output": "b", "history": ["c"]},
            "alpaca",
            "the history is not a list of pairs",
            "it is ['c']",
        ),
        ({"messages": TURNS, "tools": "f"}, "messages", "a text should be JSON and is not", "tools: Expecting value"),
        ({"messages": TURNS, "tools": "{}"}, "messages", "the tools are not a list", "they are {}"),
        ({"messages": SHAREGPT}, "messages", "a turn has no known role", "the role of turn 1 is missing"),
        (
            {"prompt": "a", "completion": "b", "label": False},
            "completion",
            "a row that says whether its answer is liked; preferences are not learned here",
            "label is False",
        ),
        (
            {"prompt": "a", "completion": "b", "chosen": "c"},
            "completion",
            "a preference row (chosen, rejected); preferences are not learned here",
            "",
        ),
    ],
)
def test_every_reason_to_refuse_a_row(row: dict[str, Any], form: FormName, reason: str, detail: str) -> None:
    with pytest.raises(BadRowError) as caught:
        convert(row, form, chat=True)
    assert caught.value.reason == reason
    assert caught.value.detail.startswith(detail)


@pytest.mark.parametrize(
    "row", [{"messages": TURNS}, {"conversations": SHAREGPT}, {"prompt": [ASK], "completion": "b"}]
)
def test_a_conversation_needs_a_chat_template(row: dict[str, Any]) -> None:
    form = tell_form(row)
    assert form
    with pytest.raises(BadRowError, match="no chat template"):
        convert(row, form, chat=False)


def test_why_a_row_is_of_no_form() -> None:
    assert "preferences are not learned" in why_no_form({"prompt": "a", "chosen": "b", "rejected": "c"}).reason
    assert why_no_form({"title": "a", "body": "b"}).detail == "its keys: title, body"
    assert why_no_form({"prompt": "a", "completion": None}).detail == "completion is null"
