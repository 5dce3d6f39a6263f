"""The blueprint's fixed prompts, as the model gets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chrysalis_mlx.errors import CorpusError, ModelError
from chrysalis_mlx.models.tokenizer import Tokenizer

_SHOWN = 40  # characters of a prompt, in a note


@dataclass(frozen=True)
class Prompt:
    """A prompt to answer.

    Attributes:
        text: as the blueprint has it.
        tokens: as the model gets it.
        limit: tokens of an answer, at most.
    """

    text: str
    tokens: tuple[int, ...]
    limit: int


def prompts(
    texts: Sequence[str], tokenizer: Tokenizer, limit: int, context: int
) -> tuple[tuple[Prompt, ...], list[str]]:
    """Prompts in the model's chat template; without one, or where it refuses, as plain text to go on from.

    Args:
        limit: tokens of an answer, at most.
        context: tokens of a prompt and its answer together, at most.

    Returns:
        the prompts that leave room for an answer, and what is to be said about them.
    """
    found, notes = [], []
    for text in texts:
        try:
            tokens = _asked(text, tokenizer)
        except (CorpusError, ModelError) as error:
            notes.append(f"the prompt {_short(text)!r} is continued, not answered: {error.what}")
            tokens = tokenizer.encode(text)
        if not tokens or len(tokens) >= context:
            why = f"does not fit into the model's context of {context:,} tokens" if tokens else "is empty"
            notes.append(f"the prompt {_short(text)!r} {why} and is left out")
            continue
        found.append(Prompt(text, tuple(tokens), min(limit, context - len(tokens))))
    return tuple(found), notes


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _asked(text: str, tokenizer: Tokenizer) -> list[int]:
    if tokenizer.chat is None:
        return tokenizer.encode(text)
    shown = tokenizer.chat.render([{"role": "user", "content": text}], add_generation_prompt=True)
    return tokenizer.encode(shown, special=False)
