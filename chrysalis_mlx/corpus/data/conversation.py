"""Conversations of any origin, to turns that a chat template accepts and a model can learn from."""

from __future__ import annotations

import json
from typing import Any

Message = dict[str, Any]

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_response": "tool",
}
"""What data sets call those who speak, and what chat templates call them."""

_CALLS = {"function_call", "tool_call"}
# What models/chat.py and chat templates read of a turn beside its role and content.
_KEPT = ("tool_call_id", "name", "reasoning_content", "thinking", "reasoning")
# Whether a turn is learned, by models/chat.py; CSV and some data sets write these as text.
_SWITCHES = ("train", "weight")
_SWITCHED = {"true": 1, "1": 1, "false": 0, "0": 0}

JOINED = "turns of one speaker in a row were joined"
CUT_BEFORE = "turns before the user's first were cut off"
CUT_AFTER = "turns after the last answer were cut off"


class BadRowError(ValueError):
    """A row cannot be learned from.

    Args:
        reason: the same for all rows of this kind, so that they can be counted.
        detail: what differs from row to row.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def text_of(value: Any, what: str) -> str:
    """A text that can be written as UTF-8; the texts of a list of parts are joined.

    Raises:
        BadRowError: it is no text, has parts of another kind, or holds half a character.
    """
    if isinstance(value, list):
        kinds = [part.get("type") if isinstance(part, dict) else None for part in value]
        if any(kind != "text" for kind in kinds):
            other = next(kind for kind in kinds if kind != "text")
            raise BadRowError("a part is no text, and only text is learned", f"{what} has a part of type {other}")
        value = "".join(text_of(part.get("text"), what) for part in value)
    if not isinstance(value, str):
        raise BadRowError("a value is not a text", f"{what} is {shown(value)}")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            half = f"{what} has \\u{ord(value[error.start]):04x}"
            raise BadRowError("a text holds half a character (a lone surrogate)", half) from error
    return value


def parsed(value: Any, what: str) -> Any:
    """A value that some data sets, and CSV always, hold as JSON in a text.

    Raises:
        BadRowError: the text is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadRowError("a text should be JSON and is not", f"{what}: {error}") from error


def plain(value: Any, what: str) -> Any:
    """A value that JSON can hold.

    Raises:
        BadRowError: it cannot.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise BadRowError("a value cannot be written as JSON", f"{what}: {error}") from error
    return value


def conversation(turns: Any, *, role: str = "role", content: str = "content") -> tuple[list[Message], list[str]]:
    """A conversation, and what was changed in it.

    Roles get the names that templates know. What comes before the user's first turn (the system's aside) or after the
    last answer is cut off, and turns of one speaker in a row are joined: many templates refuse such conversations.

    Raises:
        BadRowError: no list of turns, an unknown role, an empty turn, the system in between, a tool unasked, no answer.
    """
    turns = parsed(turns, "the conversation")
    if not isinstance(turns, list) or not turns:
        raise BadRowError("the conversation is not a list of turns", f"it is {shown(turns)}")
    messages = [_message(turn, number, role, content) for number, turn in enumerate(turns, 1)]
    messages, notes = _trimmed(messages)
    _check(messages)
    joined = _joined(messages)
    if len(joined) < len(messages):
        notes.append(JOINED)
    return joined, notes


def shown(value: Any) -> str:
    """A value in a few characters, for a message."""
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _message(turn: Any, number: int, role: str, content: str) -> Message:
    what = f"turn {number}"
    if not isinstance(turn, dict):
        raise BadRowError("a turn is not an object", f"{what} is {shown(turn)}")
    name = str(turn.get(role, "")).strip().lower()
    if name not in ROLES:
        raise BadRowError("a turn has no known role", f"the {role} of {what} is {shown(turn.get(role))}")
    value = turn.get(content)
    if value is None:
        value = turn.get("text")
    if name in _CALLS:
        return {"role": "assistant", "content": "", "tool_calls": _calls(value, what)} | _switches(turn, what)
    message: Message = {"role": ROLES[name], "content": "" if value is None else text_of(value, what)}
    called = next((key for key in ("tool_calls", "function_call") if turn.get(key)), None)
    if called and (calls := _calls(turn[called], f"{called} of {what}")):
        message["tool_calls"] = calls
    for key in _KEPT:
        if turn.get(key) is not None:
            message[key] = plain(turn[key], f"{key} of {what}")
    return message | _switches(turn, what)


def _switches(turn: Message, what: str) -> Message:
    switches: Message = {}
    for key in _SWITCHES:
        value = turn.get(key)
        if value is not None:
            on = _SWITCHED.get(str(value).strip().lower())
            if on is None:
                raise BadRowError(
                    "whether a turn is learned is neither true nor false", f"{key} of {what}: {shown(value)}"
                )
            switches[key] = bool(on) if key == "train" else on
    return switches


def _calls(value: Any, what: str) -> list[Message]:
    """The calls of a turn as templates take them: OpenAI's, or ShareGPT's {"name", "arguments"}, one or a list."""
    calls = plain(parsed(value, what), what)
    calls = calls if isinstance(calls, list) else [calls]
    found = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRowError("a call names no function", f"{what} is {shown(value)}")
        wrapped = call if "function" in call else {"type": "function"}
        found.append(wrapped | {"function": function | {"arguments": _arguments(function.get("arguments"), what)}})
    return found


def _arguments(value: Any, what: str) -> Message:
    """An object: templates write it as JSON, and would quote a text that is JSON already."""
    arguments = parsed(value, f"the arguments in {what}") if value not in (None, "") else {}
    if not isinstance(arguments, dict):
        raise BadRowError("the arguments of a call are not an object", f"{what} has {shown(value)}")
    return arguments


def _answers(message: Message) -> bool:
    return message["role"] == "assistant" and bool(message["content"].strip() or message.get("tool_calls"))


def _trimmed(messages: list[Message]) -> tuple[list[Message], list[str]]:
    """From the system's and the user's first turn to the last answer."""
    begin = next((i for i, message in enumerate(messages) if message["role"] != "system"), len(messages))
    user = next((i for i, message in enumerate(messages) if message["role"] == "user"), None)
    if user is None:
        raise BadRowError("the user says nothing")
    end = next((i + 1 for i in range(len(messages) - 1, user, -1) if _answers(messages[i])), None)
    if end is None:
        raise BadRowError("the assistant gives no answer")
    notes = ([CUT_BEFORE] if user > begin else []) + ([CUT_AFTER] if end < len(messages) else [])
    return messages[:begin] + messages[user:end], notes


def _check(messages: list[Message]) -> None:
    before = "system"
    for number, message in enumerate(messages, 1):
        role = message["role"]
        if role == "system" and before != "system":
            raise BadRowError("the system speaks after the conversation has begun", f"turn {number}")
        if role == "tool" and before not in ("assistant", "tool"):
            raise BadRowError("a tool answers that the assistant did not call", f"turn {number}")
        if (role == "user" and not message["content"].strip()) or (role == "assistant" and not _answers(message)):
            raise BadRowError("a turn is empty", f"turn {number}, of the {role}")
        before = role


def _joined(messages: list[Message]) -> list[Message]:
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        if last and last["role"] == message["role"] != "tool" and len(last) == len(message) == 2:
            joined[-1] = last | {"content": f"{last['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    return joined
