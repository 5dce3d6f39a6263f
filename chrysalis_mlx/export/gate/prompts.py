"""The prompt that llama.cpp's own template engine makes of a conversation, against the training template's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chrysalis_mlx.errors import CorpusError, ExportError
from chrysalis_mlx.export.gate.token_ids import differing_ids
from chrysalis_mlx.gguf.vocabulary.agreement import Agreement
from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.models.chat import ChatTemplate
from chrysalis_mlx.models.tokenizer import Tokenizer

_USER = {"role": "user", "content": "  Does white space count?\n\nYes: \t“two  spaces”, {{ braces }} & <tags>. "}
_ASSISTANT = {"role": "assistant", "content": "It may. 東京 🦋 costs 1234.50 €\n"}
_AGAIN = {"role": "user", "content": "Why 'so' and not \"so\"? Go on\\on"}
_SYSTEM = {"role": "system", "content": "You answer in one line.\nIt is short."}

CONVERSATIONS: Mapping[str, Sequence[Mapping[str, str]]] = {
    "one turn": [_USER],
    "several turns": [_USER, _ASSISTANT, _AGAIN],
    "a system prompt": [_SYSTEM, _USER],
    "a system prompt and several turns": [_SYSTEM, _USER, _ASSISTANT, _AGAIN],
}
_SHOWN = 60  # characters of a prompt in a failure


@dataclass(frozen=True)
class Prompts:
    """What the comparison found.

    Attributes:
        compared: names of the conversations whose prompts were compared.
        left_out: those that the training template cannot show, and why.
        notes: what is different and does no harm.
        failures: what is different.
    """

    compared: tuple[str, ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]
    failures: tuple[str, ...]


def compare_prompts(server: LlamaServer, tokenizer: Tokenizer, agreement: Agreement) -> Prompts | None:
    """Compare the prompts of `CONVERSATIONS`, as text and as the token ids that llama.cpp makes of it.

    Args:
        agreement: says which texts llama.cpp can tokenize alike; of others the text alone is compared.

    Returns:
        None where the model has no chat template.

    Raises:
        ModelError: the training template is no Jinja template.
    """
    if tokenizer.chat is None:
        return None
    compared: list[str] = []
    left_out: dict[str, str] = {}
    notes: dict[str, None] = {}
    failures: list[str] = []
    for name, messages in CONVERSATIONS.items():
        try:
            shown = tokenizer.chat.render(messages, add_generation_prompt=True)
        except CorpusError as error:
            left_out[name] = error.what
            continue
        if messages[0] is _SYSTEM and _SYSTEM["content"] not in shown:
            left_out[name] = "the model's chat template shows no system prompt"
            continue
        compared.append(name)
        try:
            note, failure = _compare(server, tokenizer, tokenizer.chat, agreement, messages)
        except ExportError as error:
            note, failure = None, f"cannot be made: {error.what}"
        notes |= {note: None} if note else {}
        failures += [f"the prompt of {name} {failure}"] if failure else []
    return Prompts(tuple(compared), left_out, tuple(notes), tuple(failures))


def _compare(
    server: LlamaServer,
    tokenizer: Tokenizer,
    chat: ChatTemplate,
    agreement: Agreement,
    messages: Sequence[Mapping[str, str]],
) -> tuple[str | None, str | None]:
    """What is to be noted, and what is wrong: "the prompt of ... ..."."""
    before = datetime.now()
    prompt = server.apply_template(messages)
    expected: dict[str, str | None] = {}
    for text, note in _renderings(chat, messages, (before, datetime.now())):
        expected.setdefault(text, note)
    # llama.cpp takes a leading BOS off a prompt where it puts one before every text.
    always = server.tokenize("")
    bos = chat.tokens.get("bos_token", "")
    stripped = bos if bos and always == [tokenizer.token_id(bos)] else ""
    found = next((text for text in expected if text in (prompt, stripped + prompt)), None)
    if found is None:
        nearest = max(expected, key=lambda text: _common(prompt, text.removeprefix(stripped)))
        return None, _difference(prompt, nearest.removeprefix(stripped))
    if not agreement.agrees(found):
        return "token ids of prompts are not compared: " + "; ".join(agreement.limits), None
    ids, trained = server.tokenize(prompt, parse_special=True), tokenizer.encode(found, special=False)
    if ids != trained:
        if always and ids == always + trained:
            return f"llama.cpp puts {bos!r} before a conversation, the training template does not", None
        return None, differing_ids(ids, trained)
    return expected[found], None


def _renderings(
    chat: ChatTemplate, messages: Sequence[Mapping[str, str]], times: Sequence[datetime]
) -> Iterator[tuple[str, str | None]]:
    """The training template's prompts that llama.cpp may show, each with what is to be noted.

    llama.cpp tells every template the date, in three ways, and that thinking is on (common/chat.cpp); the corpus was
    made with a fixed date (`models/jinja.py`). The clock is read before and after, because a day may end between.
    """
    yield chat.render(messages, add_generation_prompt=True), None
    switches: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "the template shows today's date"),
        ({"enable_thinking": True}, "llama.cpp tells the template enable_thinking = true, the corpus was made without"),
    )
    for switch, note in switches:
        for time in times:
            clock = {"date_string": time.strftime("%d %b %Y"), "datetime": time.strftime("%b %d %Y")}
            variables = {**switch, **clock, "strftime_now": time.strftime}
            with suppress(CorpusError):  # refused when told so: then it is not what llama.cpp shows
                yield chat.render(messages, add_generation_prompt=True, **variables), note


def _difference(prompt: str, expected: str) -> str:
    at = _common(prompt, expected)
    start = max(0, at - _SHOWN // 3)
    ours, theirs = prompt[start : start + _SHOWN], expected[start : start + _SHOWN]
    return f"differs at character {at}: {ours!r} in llama.cpp, {theirs!r} in the training template"


def _common(text: str, other: str) -> int:
    """How many characters two texts begin with together."""
    return next((at for at, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
