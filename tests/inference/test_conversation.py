"""What was said, and what the model is shown of it."""

from __future__ import annotations

from chrysalis_mlx.blueprint.schema import ExportSection
from chrysalis_mlx.inference.conversation import Conversation, Turn


def talk(*texts: str) -> Conversation:
    conversation = Conversation("s", ExportSection(messages=("e", "f")).turns)
    for n, text in enumerate(texts):
        if n % 2:
            conversation.answer(Turn("assistant", text, "tuned"))
        else:
            conversation.ask(text)
    return conversation


def shown(conversation: Conversation) -> str:
    return " ".join(f"{message['role'][0]}:{message['content']}" for message in conversation.messages())


def test_system_and_examples_stand_before_what_was_said() -> None:
    assert shown(talk("1", "2", "3")) == "s:s u:e a:f u:1 a:2 u:3"
    assert Conversation().messages() == []
    assert ExportSection(messages=("a", "b", "c")).turns[2] == {"role": "user", "content": "c"}


def test_the_oldest_turns_are_left_out_down_to_the_last_question() -> None:
    conversation = talk("1", "2", "3", "4", "5")
    assert conversation.leave_out()
    assert shown(conversation) == "s:s u:e a:f u:3 a:4 u:5"
    assert conversation.leave_out()
    assert shown(conversation) == "s:s u:e a:f u:5"
    assert not conversation.leave_out()
    assert [turn.content for turn in conversation.turns] == ["1", "2", "3", "4", "5"]


def test_a_question_is_taken_back_with_its_answer() -> None:
    conversation = talk("1", "2", "3")
    assert conversation.take_back() == "3"
    conversation.left_out = 2
    assert conversation.take_back() == "1"
    assert (conversation.turns, conversation.left_out) == ([], 0)
    assert conversation.take_back() is None


def test_forgotten_is_all_that_was_said_and_nothing_else() -> None:
    conversation = talk("1", "2", "3")
    conversation.leave_out()
    conversation.clear()
    assert (shown(conversation), conversation.left_out) == ("s:s u:e a:f", 0)


def test_as_a_row_it_says_who_answered_and_what_was_stopped() -> None:
    conversation = Conversation("s")
    conversation.ask("1")
    conversation.answer(Turn("assistant", "2", "base", stopped=True))
    assert conversation.as_dict() == {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "1"},
            {"role": "assistant", "content": "2", "speaker": "base", "stopped": True},
        ]
    }
