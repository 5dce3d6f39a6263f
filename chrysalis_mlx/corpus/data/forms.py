"""The forms that rows of one's own come in, each a pure function to a row of batches/rows.py.

    messages     {"messages": [{"role", "content"}, ...]}, also under "conversations"; "tools" are kept
    sharegpt     {"conversations": [{"from", "value"}, ...]}, "system" and "tools" beside them
    alpaca       {"instruction", "input", "output"}, "system" and "history" beside them; Dolly's "context", "response"
    completion   {"prompt", "completion"} or other names of a question and its answer, "context" and "system" beside
                 them; lists of messages as TRL has them
    text         {"text"}

"system_prompt" is the same as "system", "functions" as "tools"; keys may be written with capitals. Where the model
has a chat template, alpaca and completion become conversations; else text after text, Alpaca's in the words of its own
prompt. Keys that no form knows do not reach the corpus; the report counts them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from chrysalis_mlx.batches.rows import Row
from chrysalis_mlx.corpus.data.conversation import BadRowError, Message, conversation, parsed, plain, shown, text_of

FormName = Literal["messages", "sharegpt", "alpaca", "completion", "text"]

_TURNS = ("messages", "conversations", "conversation")
_PROMPTS = ("prompt", "question", "query", "input")
_ANSWERS = ("completion", "response", "answer", "output")
_EXTRAS = ("input", "context", "question", "query")
_SYSTEMS = ("system", "system_prompt")
_TOOLS = ("tools", "functions")
_LIKED = ("label", "kto_tag")
_COMPARED = ("chosen", "rejected")
FORMS = (
    "The forms are messages; conversations with from and value; instruction with output (and input); "
    f"{' or '.join(_PROMPTS)} with {' or '.join(_ANSWERS)}; text"
)
"""The keys by which a row's form is told, in words."""

_KNOWN = {
    *(*_TURNS, *_PROMPTS, *_ANSWERS, *_EXTRAS, *_SYSTEMS, *_TOOLS, *_LIKED, *_COMPARED),
    *("instruction", "history", "text"),
}

# The prompts of Stanford's Alpaca, with which its models were trained.
_PREAMBLE = (
    "Below is an instruction that describes a task{}. Write a response that appropriately completes the request."
)
_WITH_INPUT = ", paired with an input that provides further context"


@dataclass(frozen=True)
class Converted:
    """A row as the corpus holds it.

    Attributes:
        used: the keys that were read; what else the row has is passed over.
        notes: what was changed in its conversation.
    """

    row: Row
    used: frozenset[str]
    notes: tuple[str, ...] = ()


def known_keys(row: Row) -> Row:
    """The row with the keys that a form knows in lower case: tables often have Prompt,Completion."""
    known: Row = {}
    for key, value in row.items():
        name = key.lower()
        known[name if name in _KNOWN and name not in row and name not in known else key] = value
    return known


def tell_form(row: Row) -> FormName | None:
    """The form of a row by its keys, the more specific one first; None: of none."""
    turns = _first(row, _TURNS)
    if turns is not None:
        value = row[turns]
        first = value[0] if isinstance(value, list) and value else value
        if (isinstance(first, dict) and "from" in first) or (isinstance(first, str) and '"from"' in first):
            return "sharegpt"
        return "messages"
    if "instruction" in row and _first(row, _ANSWERS):
        return "alpaca"
    if _first(row, _PROMPTS) and _first(row, _ANSWERS):
        return "completion"
    return "text" if isinstance(row.get("text"), str) else None


def convert(row: Row, form: FormName, *, chat: bool) -> Converted:
    """A row of a form as the corpus holds it.

    Args:
        chat: whether the model has a chat template.

    Raises:
        BadRowError: it is not of the form, or cannot be learned from.
    """
    preference = _preference(row)
    if preference and form != "text":
        raise preference
    converted = _FORMS[form](row, chat)
    if not chat and "messages" in converted.row:
        raise BadRowError("a conversation, and the model has no chat template to put it into words")
    return converted


def why_no_form(row: Row) -> BadRowError:
    """What to say of a row whose form cannot be told."""
    null = next((key for key, value in row.items() if key in _KNOWN and value is None), None)
    missing = BadRowError("a value is missing", f"{null} is null") if null else None
    return _preference(row) or missing or BadRowError("of no known form", f"its keys: {_keys(row)}")


def _preference(row: Row) -> BadRowError | None:
    """Why a row is not learned that says of its answer whether it is liked, or has two to compare."""
    if any(_has(row, key) for key in _COMPARED):
        return BadRowError("a preference row (chosen, rejected); preferences are not learned here")
    # Of a number one cannot tell: it may be a class.
    liked = next((key for key in _LIKED if str(row.get(key)).strip().lower() in ("true", "false")), None)
    if liked is None:
        return None
    return BadRowError(
        "a row that says whether its answer is liked; preferences are not learned here", f"{liked} is {row[liked]}"
    )


def _messages(row: Row, chat: bool) -> Converted:
    return _turns(row, _key(row, _TURNS, "messages"), "role", "content")


def _sharegpt(row: Row, chat: bool) -> Converted:
    return _turns(row, _key(row, _TURNS[::-1], "sharegpt"), "from", "value")


def _turns(row: Row, key: str, role: str, content: str) -> Converted:
    messages, notes = conversation(row[key], role=role, content=content)
    return _conversation(row, messages, {key}, notes)


def _alpaca(row: Row, chat: bool) -> Converted:
    answer = _key(row, _ANSWERS, "alpaca")
    _key(row, ("instruction",), "alpaca")
    extra = _first(row, _EXTRAS)
    used = {"instruction", answer, "history", *([extra] if extra else [])}
    instruction = text_of(row["instruction"], "instruction")
    given = text_of(row[extra], extra) if extra else ""
    history = [(text_of(a, "history"), text_of(b, "history")) for a, b in _history(row)]
    output = _filled(row, answer)
    if not instruction.strip() and not given.strip():
        raise BadRowError("a text is empty", "instruction")
    if chat:
        question = "\n".join(part for part in (instruction, given) if part.strip())
        turns = [turn for pair in (*history, (question, output)) for turn in _exchange(*pair)]
        messages, notes = conversation(turns)
        return _conversation(row, messages, used, notes)
    preamble = _system(row) or _PREAMBLE.format(_WITH_INPUT if given.strip() else "")
    asked = f"### Instruction:\n{instruction}\n\n" + (f"### Input:\n{given}\n\n" if given.strip() else "")
    before = "".join(f"### Instruction:\n{a}\n\n### Response:\n{b}\n\n" for a, b in history)
    prompt = f"{preamble}\n\n{before}{asked}### Response:\n"
    return Converted({"prompt": prompt, "completion": output}, frozenset({*used, *_SYSTEMS}))


def _completion(row: Row, chat: bool) -> Converted:
    prompt = _key(row, _PROMPTS, "completion")
    answer = _key(row, _ANSWERS, "completion")
    asked, answered = row[prompt], row[answer]
    if isinstance(asked, list) or isinstance(answered, list):
        # TRL's conversational form; "prompt" alone may be a list of messages, or both.
        first = asked if isinstance(asked, list) else _exchange(asked, "")[:1]
        last = answered if isinstance(answered, list) else _exchange("", answered)[1:]
        turns, notes = conversation([*first, *last])
        return _conversation(row, turns, {prompt, answer}, notes)
    question, output = _filled(row, prompt), _filled(row, answer)
    used = {prompt, answer}
    if _has(row, "context"):
        used.add("context")
        question = f"{text_of(row['context'], 'context')}\n\n{question}"
    if chat:
        messages, notes = conversation(_exchange(question, output))
        return _conversation(row, messages, used, notes)
    system = _system(row)
    row_prompt = f"{system}\n\n{question}" if system else question
    return Converted({"prompt": row_prompt, "completion": output}, frozenset({*used, *_SYSTEMS}))


def _text(row: Row, chat: bool) -> Converted:
    return Converted({"text": _filled(row, _key(row, ("text",), "text"))}, frozenset({"text"}))


_FORMS: dict[FormName, Callable[[Row, bool], Converted]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "completion": _completion,
    "text": _text,
}


def _conversation(row: Row, messages: list[Message], used: set[str], notes: list[str]) -> Converted:
    """The conversation with the system's words, unless it has some, and the tools that stand beside it in the row."""
    if messages[0]["role"] != "system":
        system = _system(row)
        messages = [{"role": "system", "content": system}, *messages] if system else messages
        used = {*used, *_SYSTEMS}
    tools = _tools(row)
    converted: Row = {"messages": messages} | ({"tools": tools} if tools else {})
    return Converted(converted, frozenset({*used, *_TOOLS}), tuple(notes))


def _tools(row: Row) -> list[Any]:
    """The tools as templates take them; some data sets hold them as JSON in a text, or the bare functions."""
    key = _first(row, _TOOLS)
    if key is None or not _has(row, key):
        return []
    tools = plain(parsed(row[key], key), key)
    if not isinstance(tools, list):
        raise BadRowError("the tools are not a list", f"they are {shown(tools)}")
    bare = [isinstance(tool, dict) and "name" in tool and "function" not in tool for tool in tools]
    return [
        {"type": "function", "function": tool} if is_bare else tool for tool, is_bare in zip(tools, bare, strict=True)
    ]


def _system(row: Row) -> str:
    key = _first(row, _SYSTEMS)
    text = text_of(row[key], key) if key else ""
    return text if text.strip() else ""


def _exchange(question: Any, answer: Any) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _history(row: Row) -> list[list[Any]]:
    history = row.get("history") or []
    history = parsed(history, "history") if history else []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise BadRowError("the history is not a list of pairs", f"it is {shown(history)}")
    return history


def _filled(row: Row, key: str) -> str:
    text = text_of(row[key], key)
    if not text.strip():
        raise BadRowError("a text is empty", key)
    return text


def _has(row: Row, key: str) -> bool:
    value = row.get(key)
    return bool(value.strip()) if isinstance(value, str) else value not in (None, [], {})


def _first(row: Row, keys: tuple[str, ...]) -> str | None:
    """The first key with a value that is not blank; else the first that is not null."""
    filled = next((key for key in keys if _has(row, key)), None)
    return filled or next((key for key in keys if row.get(key) is not None), None)


def _key(row: Row, keys: tuple[str, ...], form: FormName) -> str:
    key = _first(row, keys)
    if key is None:
        null = next((key for key in keys if key in row), None)
        if null:
            raise BadRowError("a value is missing", f"{null} is null")
        raise BadRowError(f"not of the form {form}", f"its keys: {_keys(row)}")
    return key


def _keys(row: Row) -> str:
    return ", ".join(list(row)[:8]) or "none"
