"""A model's own chat template: what a conversation looks like to it, and which of it the model says itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chrysalis_mlx.errors import CorpusError, ModelError

if TYPE_CHECKING:
    import jinja2

Message = Mapping[str, Any]
Span = tuple[int, int]

_NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # Unicode keeps them out of texts
_SWITCHES = ("train", "weight")  # keys of a message that are ours and OpenAI's, and none of the template's
_REASONING = ("reasoning_content", "thinking", "reasoning")  # one thing by its three names, as in transformers
_GENERATION_TAG = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


@dataclass(frozen=True)
class Conversation:
    """A conversation as a model sees it.

    Attributes:
        text: all of it, special tokens included.
        learned: spans of characters that the model says itself, each with the token that ends the turn.
        ended: whether a token ends the last turn; False only where that is an answer, and learned.
    """

    text: str
    learned: tuple[Span, ...]
    ended: bool


class ChatTemplate:
    """A chat template in Jinja.

    Args:
        source: the template.
        tokens: what it may call by name: bos_token, eos_token and so on.
        where: the file it comes from, for errors.
        for_tools: the template to take when there are tools; None: the same.
    """

    def __init__(
        self, source: str, tokens: Mapping[str, str], *, where: object = None, for_tools: str | None = None
    ) -> None:
        self.source = source
        self.tokens = dict(tokens)
        self.where = where
        self._for_tools = ChatTemplate(for_tools, tokens, where=where) if for_tools else None

    @classmethod
    def open(cls, directory: Path, settings: Mapping[str, Any]) -> ChatTemplate | None:
        """The template of a model directory: chat_template.jinja, else that of its tokenizer_config.json.

        Args:
            settings: the content of tokenizer_config.json, and of special_tokens_map.json what that does not say.
        """
        tokens = {}
        for name, value in settings.items():
            text = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(text, str):
                tokens[name] = text
        file = directory / "chat_template.jinja"
        if file.is_file():
            return cls(file.read_text(encoding="utf-8"), tokens, where=file)
        found = settings.get("chat_template")
        if isinstance(found, list):
            named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
            found, for_tools = named.get("default"), named.get("tool_use")
        else:
            for_tools = None
        where = directory / "tokenizer_config.json"
        return cls(found, tokens, where=where, for_tools=for_tools) if isinstance(found, str) else None

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        **variables: Any,
    ) -> str:
        """A conversation as text.

        Args:
            messages: each with a `role` and a `content`; keys that switch a turn's learning off are passed over.
            tools: JSON schemas of functions that the model may call.
            add_generation_prompt: end with what asks the model for its turn.
            variables: further variables of the template, such as `enable_thinking` or `documents`.

        Raises:
            CorpusError: the template refuses the conversation; it says why.
            ModelError: the template is no Jinja template.
        """
        return self._render(messages, tools, {**variables, "add_generation_prompt": add_generation_prompt})[0]

    def conversation(
        self,
        messages: Sequence[Message],
        special_tokens: Iterable[str],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> Conversation:
        """A conversation, and what of it the model learns: each assistant turn that is not switched off.

        `"train": false` or `"weight": 0` in a message switch a turn off. What the template puts into an answer by
        itself, such as an empty <think> block, is learned, because the model has to say it; so is the end of the turn.
        Templates that mark the answers themselves, with {% generation %}, are taken at their word.

        Args:
            special_tokens: the tokenizer's; the first one after an answer ends it.
            tools: as `render`.
            variables: as `render`.

        Raises:
            CorpusError: the template refuses the conversation, or an answer cannot be found in it, or a call that is
                one: the model would learn to say nothing.
            ModelError: the template is no Jinja template.
        """

        def show(messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
            return self.render(messages, tools=tools, add_generation_prompt=add_generation_prompt, **variables)

        text, marked = self._render(messages, tools, variables)
        names = tuple(special_tokens)
        if marked is None:
            turns = [_turn(show, messages, i, text, names) for i, turn in enumerate(messages) if _is_learned(turn)]
            spans = [turn for turn in turns if turn]
        else:
            off = [_turn(show, messages, i, text, names) for i, turn in enumerate(messages) if _is_off(turn)]
            spans = [span for span in marked if not any(_overlap(span, other) for other in off if other)]
        _require_calls(messages, "".join(text[start:end] for start, end in spans))
        if not spans or not _is_learned(messages[-1]):
            return Conversation(text, tuple(spans), True)
        start, end = spans[-1]
        if text[start:end].rstrip().endswith(names) or _past_token(text, end, names) > end:
            return Conversation(text, tuple(spans), True)
        return Conversation(text, (*spans[:-1], (start, len(text))), False)

    @cached_property
    def shows_tools(self) -> bool:
        """Whether the model is told of the tools that stand beside a conversation."""
        messages = [{"role": "user", "content": "a"}]
        [mark, *_] = _unused(messages)
        function = {"name": mark, "description": mark, "parameters": {"type": "object", "properties": {}}}
        try:
            return mark in self.render(messages, tools=[{"type": "function", "function": function}])
        except CorpusError:
            return False

    def _render(
        self, messages: Sequence[Message], tools: Any, variables: Mapping[str, Any]
    ) -> tuple[str, list[Span] | None]:
        """The text, and the spans that the template marks with {% generation %}; None for a template that does not."""
        if tools and self._for_tools:
            return self._for_tools._render(messages, tools, variables)
        from chrysalis_mlx.models.jinja import MARKS  # slow to import, and no use to who only counts tokens

        for number, message in enumerate(messages, 1):
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
                raise CorpusError(f"message {number} is not an object with a role", fix="correct it, or leave it out")
        tagged = bool(_GENERATION_TAG.search(self.source))
        marks = _unused(messages, tools) if tagged else []
        messages = [_plain(message) for message in messages]
        values = {"messages": messages, "tools": tools or None, "documents": None, "add_generation_prompt": False}
        template = self._template
        try:
            text = template.render(**self.tokens, **{**values, **variables, MARKS: marks})
        except Exception as error:  # whatever Python raises at what the template does, beside Jinja's own errors
            reason = str(error) or type(error).__name__
            raise CorpusError(
                f"the model's chat template refuses this conversation: {reason}",
                where=self.where,
                fix="change the conversation, or leave it out",
            ) from error
        return _unmarked(text, *marks[:2]) if tagged else (text, None)

    @cached_property
    def _template(self) -> jinja2.Template:
        import jinja2

        from chrysalis_mlx.models.jinja import environment

        try:
            return environment().from_string(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(
                f"the chat template is not valid: {error.message} (line {error.lineno})",
                where=self.where,
                fix="copy it again from the original model",
            ) from error


def _turn(
    show: Callable[..., str], messages: Sequence[Message], index: int, text: str, names: tuple[str, ...]
) -> Span | None:
    """What the model says in one turn: from the end of the generation prompt to the token that ends the turn.

    The content is found by showing the conversation once more with a mark in its place. None: the template shows
    nothing of the turn.
    """
    mark = _unused(messages)[-1]
    try:
        shown = show([*messages[:index], {"role": messages[index]["role"], "content": mark}, *messages[index + 1 :]])
    except CorpusError:  # where the next turn answers a tool call of this one
        shown = ""
    if mark in shown:
        before, after = shown.partition(mark)[0], shown.rpartition(mark)[2]
        start = _common_prefix(text, before)
        end = max(start, len(text) - _common_prefix(text[::-1], after[::-1]))
        end = _past_token(text, end, names)
    elif shown == text:
        return None
    else:
        before, whole = show(messages[:index]), show(messages[: index + 1])
        if not (text.startswith(before) and text.startswith(whole)):
            raise CorpusError(
                f"the model's chat template does not show where message {index + 1} begins and ends",
                fix='leave the conversation out, or switch this turn off with "train": false',
            )
        start, end = len(before), len(whole.rstrip())
    try:
        prompt = show(messages[:index], add_generation_prompt=True)
    except CorpusError:  # some templates refuse a conversation that stops here
        return start, end
    return (len(prompt) if text.startswith(prompt) and len(prompt) <= end else start), end


def _require_calls(messages: Sequence[Message], learned: str) -> None:
    """Make sure that the model learns each of the calls that its turns consist of."""
    for number, message in enumerate(messages, 1):
        for call in (_is_learned(message) and message.get("tool_calls")) or ():
            if str(call.get("function", call).get("name")) not in learned:
                raise CorpusError(
                    f"the model's chat template does not show the calls of message {number}",
                    fix="take a model that was taught to call tools, or leave the conversation out",
                )


def _past_token(text: str, at: int, names: tuple[str, ...]) -> int:
    """The end of the special token that follows directly, or after white space; `at` itself when none does."""
    following = len(text) - len(text[at:].lstrip())
    if not text.startswith(names, following):
        return at
    return following + max(len(name) for name in names if text.startswith(name, following))


def _common_prefix(text: str, other: str) -> int:
    if text.startswith(other):
        return len(other)
    return next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))


def _overlap(span: Span, other: Span) -> bool:
    return span[0] < other[1] and other[0] < span[1]


def _is_off(message: Message) -> bool:
    off = message.get("train") is False or message.get("weight") == 0
    return off and message["role"] == "assistant"


def _is_learned(message: Message) -> bool:
    return message["role"] == "assistant" and not _is_off(message)


def _plain(message: Message) -> dict[str, Any]:
    """The message as a template may see it."""
    plain = {name: value for name, value in message.items() if name not in _SWITCHES}
    reasoning = next((plain[name] for name in _REASONING if plain.get(name) is not None), None)
    return plain if reasoning is None else {"thinking": reasoning, **plain, "reasoning_content": reasoning}


def _unused(*values: object) -> list[str]:
    """Three characters that the values have nowhere."""
    content = json.dumps(values, ensure_ascii=False)
    unused = [character for character in _NONCHARACTERS if character not in content][:3]
    if len(unused) < 3:
        raise CorpusError("a message holds too many of the characters U+FDD0 to U+FDEF", fix="leave it out")
    return unused


def _unmarked(text: str, first: str, last: str) -> tuple[str, list[Span]]:
    """The text without the marks, and what stood between them."""
    parts: list[str] = []
    spans: list[Span] = []
    start = length = 0
    for part in re.split(f"([{first}{last}])", text):
        if part == first:
            start = length
        elif part == last:
            spans.append((start, length))
        else:
            parts.append(part)
            length += len(part)
    return "".join(parts), spans
