"""A chat template in Go's text/template, for Ollama, where the model's own is a plain structure of turns.

The parts are found by showing the Jinja template marked contents and looking at what stands around them. They count
only when they make of every conversation that is tried exactly what the template makes of it. What Ollama hands to the
Go text, and how, is in docs/template.mdx and template/template.go of ollama/ollama.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.models.chat import ChatTemplate, Message
from chrysalis_mlx.models.tokenizer import Tokenizer

_ROLES = ("system", "user", "assistant")
_TALK = ("user", "assistant", "user", "assistant", "user")
_MARK = "Qx{}xQ"  # plain letters: nothing that a template would strip, escape or look for
_NOT_PLAIN = {
    "tool": "knows tools",
    "think": "knows thinking",
    "reason": "knows reasoning",
    "documents": "knows documents",
    "strftime_now": "names the date",
}
_AWKWARD = (
    "plain",
    'He said "yes" and \'no\': """maybe""".',
    "{{ .Content }} {% raw %} {{- range }} }} {# none #}",
    "two\nlines\n\nand a third",
    "  spaces and a tab\t",
    "\n\nlines around\n",
    "Größe, 東京, 🦋 & <b>bold</b> \\n",
)


class _NotPlainError(Exception):
    """Why a template is not a plain structure of turns; it completes the sentence "the chat template ..."."""


@dataclass(frozen=True)
class Turns:
    """What a chat template puts around the contents of a conversation.

    Attributes:
        bos: the first token, where encoding a text adds it: the program that runs the model puts it there.
        opening: before the first turn.
        around: of each role, what stands before and after a content.
        prompt: after the last turn, to ask the model for its own.
    """

    bos: str
    opening: str
    around: Mapping[str, tuple[str, str]]
    prompt: str

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation and the generation prompt, as the Go text makes them, `bos` before it."""
        shown = (
            before + message["content"] + after
            for message in messages
            for before, after in (self.around[message["role"]],)
        )
        return self.bos + self.opening + "".join(shown) + self.prompt

    def go(self) -> str:
        """The Go text, without `bos`.

        Ollama has the system prompt among .Messages as well as in .System, which would show it a second time.
        """
        branches = (
            f'{{{{ {"else " if number else ""}if eq .Role "{role}" }}}}'
            f"{_literal(self.around[role][0])}{{{{ .Content }}}}{_literal(self.around[role][1])}"
            for number, role in enumerate(_ROLES)
        )
        loop = "{{ range .Messages }}" + "".join(branches) + "{{ end }}{{ end }}"
        return _literal(self.opening) + loop + _literal(self.prompt)


def plain_turns(tokenizer: Tokenizer, system: str | None) -> Turns | str:
    """The parts of the tokenizer's chat template, proved; or why it has none: "the chat template ...".

    Args:
        tokenizer: one with a chat template.
        system: what stands for the system prompt of a conversation that has none; None: nothing does.

    Raises:
        ModelError: the chat template is not valid Jinja.
    """
    chat = tokenizer.chat
    assert chat is not None
    knows = next((why for word, why in _NOT_PLAIN.items() if word in chat.source), None)
    if knows or chat.shows_tools:
        return knows or "knows tools"
    try:
        turns = _parts(chat, tokenizer, with_default=bool(system))
    except CorpusError:
        return "refuses some conversations"
    except _NotPlainError as error:
        return str(error)
    for messages in _conversations():
        told = messages if not system or messages[0]["role"] == "system" else [_message("system", system), *messages]
        if turns.render(told) != _try(chat, messages):
            return "changes contents, or shows a turn by what stands around it"
    return turns


def default_system(chat: ChatTemplate) -> str | None:
    """The system prompt that a template adds when a conversation has none; None when it adds none.

    One that names today's date is none: it cannot be written down.

    Raises:
        ModelError: the chat template is not valid Jinja.
    """
    user = _message("user", "a")
    try:
        before, after, _ = _gaps(chat, ("system", "user"))
        start = _gaps(chat, ("user",))[0]
        found = start[len(before) : len(start) - len(after)]
        if not found or start != before + found + after:
            return None
        for date in ("01 Jan 2001", "31 Dec 2030"):
            given, added = (
                chat.render(messages, strftime_now=lambda form, date=date: date)
                for messages in ([_message("system", found), user], [user])
            )
            if given != added:
                return None
    except (CorpusError, _NotPlainError):
        return None
    return found


def shows_system(chat: ChatTemplate) -> bool:
    """Whether a template shows the system prompt of a conversation.

    Raises:
        ModelError: the chat template is not valid Jinja.
    """
    mark = _MARK.format(0)
    return mark in (_try(chat, [_message("system", mark), _message("user", "a")]) or "")


def turn_end(tokenizer: Tokenizer) -> str | None:
    """The special token that ends an answer in the chat template; None when none does.

    Raises:
        ModelError: the chat template is not valid Jinja.
    """
    if tokenizer.chat is None:
        return None
    try:
        after = _gaps(tokenizer.chat, ("user", "assistant"), prompt=False)[-1].lstrip()
    except (CorpusError, _NotPlainError):
        return None
    return max((token for token in tokenizer.turn_tokens if after.startswith(token)), key=len, default=None)


def _parts(chat: ChatTemplate, tokenizer: Tokenizer, *, with_default: bool) -> Turns:
    """The parts, as far as one conversation shows them.

    How a text between two contents is divided matters to no conversation of alternating turns; it is divided where the
    template ends when nothing follows, and inside of no token.
    """
    start, to_assistant, to_user, *more, last = _gaps(chat, _TALK)
    if more != [to_assistant, to_user]:
        raise _NotPlainError("shows later turns differently from the first")
    start_system, from_system, *_ = _gaps(chat, ("system", *_TALK))
    after_user = _gaps(chat, _TALK[:1], prompt=False)[-1]
    after_assistant = _gaps(chat, _TALK[:2], prompt=False)[-1]
    tokens = tokenizer.turn_tokens
    user_end = _common_start((to_assistant, last, after_user), tokens)
    assistant_end = _common_start((to_user, after_assistant), tokens)
    user_start = to_user.removeprefix(assistant_end)
    bos = chat.tokens.get("bos_token", "")
    bos = bos if start.startswith(bos) else ""
    opening = bos if with_default else start.removesuffix(user_start)
    if not (from_system.endswith(user_start) and start.endswith(user_start) and start_system.startswith(opening)):
        raise _NotPlainError("shows the first turn differently from later ones")
    added = bos if bos and _adds_bos(tokenizer, bos) else ""
    around = {
        "system": (start_system.removeprefix(opening), from_system.removesuffix(user_start)),
        "user": (user_start, user_end),
        "assistant": (to_assistant.removeprefix(user_end), assistant_end),
    }
    return Turns(added, opening.removeprefix(added), around, last.removeprefix(user_end))


def _gaps(chat: ChatTemplate, roles: Sequence[str], *, prompt: bool = True) -> list[str]:
    """What the template puts before, between and after the contents of a conversation of these roles."""
    marks = [_MARK.format(number) for number in range(len(roles))]
    text = chat.render([_message(*turn) for turn in zip(roles, marks, strict=True)], add_generation_prompt=prompt)
    pieces = re.split("(" + "|".join(marks) + ")", text)
    if pieces[1::2] != marks:
        raise _NotPlainError("does not show each content once and in its place")
    return pieces[::2]


def _common_start(texts: Sequence[str], tokens: Sequence[str]) -> str:
    """The longest text that all begin with and that ends inside of no token."""
    columns = enumerate(zip(*texts, strict=False))
    common = next((at for at, column in columns if len(set(column)) > 1), min(map(len, texts)))
    for token in sorted(tokens, key=len, reverse=True):
        for found in re.finditer(re.escape(token), texts[0]):
            if found.start() < common < found.end():
                common = found.start()
    return texts[0][:common]


def _adds_bos(tokenizer: Tokenizer, bos: str) -> bool:
    plain, encoded = (tokenizer.encode("a", special=special) for special in (False, True))
    return len(encoded) > len(plain) and encoded[0] == tokenizer.token_id(bos)


def _conversations() -> Iterator[list[Message]]:
    """One turn and several, with a system prompt and without, each kind of content in each place."""
    for roles in (_TALK[:1], _TALK[:3], _TALK, ("system", *_TALK[:1]), ("system", *_TALK)):
        for shift in range(len(_AWKWARD)):
            yield [_message(role, _AWKWARD[(shift + at) % len(_AWKWARD)]) for at, role in enumerate(roles)]


def _try(chat: ChatTemplate, messages: Sequence[Message]) -> str | None:
    """The conversation with the generation prompt; None when the template refuses it."""
    try:
        return chat.render(messages, add_generation_prompt=True)
    except CorpusError:
        return None


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _literal(text: str) -> str:
    """The text as Go shows it as it is: two braces that stand together would begin an action."""
    return text.replace("{", '{{ "{" }}')
