"""What a model is that answers a conversation, whatever runs it."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Protocol

from chrysalis_mlx.inference.conversation import Message
from chrysalis_mlx.llamacpp.server import Piece


class ChatModel(Protocol):
    """A model in memory.

    Attributes:
        context: tokens that fit, prompt and answer together.
        has_template: whether a chat template makes the prompt; without one the conversation is one text that goes on.
    """

    @property
    def context(self) -> int: ...

    @property
    def has_template(self) -> bool: ...

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation that asks for an answer.

        Raises:
            ChrysalisError: the chat template refuses it.
        """

    def answer(
        self, prompt: Sequence[int], *, max_tokens: int | None, seed: int, sampling: Mapping[str, float]
    ) -> Generator[Piece, None, None]:
        """The answer as it comes. Closing the iterator stops it.

        Args:
            prompt: shorter than the context.
            max_tokens: None goes on to the end of the answer or of the context.
            sampling: temperature (0 is greedy), top_k, top_p, min_p, repeat_penalty; llama.cpp's own where unsaid.
        """

    def close(self) -> None:
        """Free the memory."""


def as_text(messages: Sequence[Message]) -> str:
    """A conversation for a model without a chat template: what was said, line after line."""
    return "\n".join(message["content"] for message in messages)
