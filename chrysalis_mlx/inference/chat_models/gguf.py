"""A GGUF that talks, in llama.cpp."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from chrysalis_mlx.gguf.keys import read_keys
from chrysalis_mlx.inference.chat_models.protocol import as_text
from chrysalis_mlx.inference.conversation import Message
from chrysalis_mlx.llamacpp.server import LlamaServer, Piece


class GGUFChatModel:
    """See `ChatModel`. What the model thinks stays in the text.

    Args:
        file: the GGUF.
        context: in tokens.

    Raises:
        ModelError: it is not a GGUF.
        ExportError: llama.cpp cannot load it.
    """

    def __init__(self, file: Path, context: int) -> None:
        # llama.cpp gives a model without a template somebody else's.
        self.has_template = bool(read_keys(file).get("tokenizer.chat_template"))
        self._server = LlamaServer(file, context=context)
        self._server.__enter__()

    @property
    def context(self) -> int:
        return self._server.context

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        text = self._server.apply_template(messages) if self.has_template else as_text(messages)
        return self._server.tokenize(text, parse_special=True)

    def answer(
        self, prompt: Sequence[int], *, max_tokens: int | None, seed: int, sampling: Mapping[str, float]
    ) -> Generator[Piece, None, None]:
        return self._server.stream(prompt, max_tokens=max_tokens, seed=seed, sampling=sampling)

    def close(self) -> None:
        self._server.close()
