"""The tokens that end a generation: which they are, and that llama.cpp stops at each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chrysalis_mlx.export.ollama.go_template import turn_end
from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.models.directory import ModelDirectory


@dataclass(frozen=True)
class EndToken:
    """A token that ends a text or an answer.

    Attributes:
        named_by: what says so: "tokenizer", "config.json", "generation_config.json", "chat template".
    """

    id: int
    text: str
    named_by: tuple[str, ...]


def end_tokens(model: ModelDirectory) -> tuple[EndToken, ...]:
    """Every token that ends a generation of this model, the tokenizer's own first.

    Raises:
        ModelError: generation_config.json is not valid JSON, or the chat template not valid Jinja.
    """
    tokenizer = model.tokenizer
    named: dict[int, list[str]] = {tokenizer.eos_id: ["tokenizer"]}
    special, generation = set(tokenizer.special_tokens.values()), _ids(model.generation_config)
    for token in generation:
        named.setdefault(token, []).append("generation_config.json")
    if not generation:  # an id of config.json may be left over from another tokenizer
        for token in special.intersection(_ids(model.config)):
            named.setdefault(token, []).append("config.json")
    end = turn_end(tokenizer)
    if end is not None:
        named.setdefault(tokenizer.special_tokens[end], []).append("chat template")
    texts = {token: text for text, token in tokenizer.special_tokens.items()}
    return tuple(
        EndToken(token, texts.get(token) or tokenizer.decode([token]), tuple(sources))
        for token, sources in named.items()
    )


def _ids(settings: Mapping[str, Any]) -> list[int]:
    ids = settings.get("eos_token_id")
    return [] if ids is None else [int(token) for token in (ids if isinstance(ids, list) else [ids])]


def missed_ends(server: LlamaServer, ends: Sequence[EndToken]) -> list[EndToken]:
    """The end tokens that llama.cpp goes on after; each is made the next token of a text."""
    start = server.tokenize("a")
    return [end for end in ends if not server.stops_at(start, end.id)]
