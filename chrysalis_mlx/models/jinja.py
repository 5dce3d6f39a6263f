"""The Jinja of chat templates, as transformers sets it up (its `chat_template_utils.py`), but for the date.

Templates that ask for today's date are told the one that Llama 3's falls back to, because rows that changed at midnight
would be another corpus.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MARKS = "_marks"
"""The variable of a template from which its {% generation %} tag takes the two marks."""

_TODAY = datetime(2024, 7, 26)


class Generation(Extension):
    """{% generation %} ... {% endgeneration %}: what stands inside is the model's; put between two marks."""

    tags = {"generation"}  # noqa: RUF012 (as jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_between_marks", [nodes.ContextReference()])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _between_marks(self, context: Mapping[str, Any], caller: Callable[[], str]) -> str:
        first, last, *_ = context[MARKS]
        return f"{first}{caller()}{last}"


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Jinja as transformers sets it up for chat templates."""

    def to_json(value: object, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = _TODAY.strftime
    return made
