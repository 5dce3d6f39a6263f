"""A backend's engine that talks: the base model, with its adapter or without, as it was trained."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import cast

import numpy as np

from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.export.gate.ends import end_tokens
from chrysalis_mlx.inference.chat_models.protocol import as_text
from chrysalis_mlx.inference.conversation import Message
from chrysalis_mlx.inference.decoding import Decoder
from chrysalis_mlx.inference.sampling import Sampler
from chrysalis_mlx.llamacpp.server import Piece
from chrysalis_mlx.models.directory import ModelDirectory


class EngineChatModel:
    """See `ChatModel`.

    Args:
        engine: the model.
        directory: its tokenizer, chat template and end tokens.
        context: in tokens.
    """

    def __init__(self, engine: Engine, directory: ModelDirectory, context: int) -> None:
        self.context = context
        self._engine: Engine | None = engine
        self._tokenizer = directory.tokenizer
        self._ends = {end.id for end in end_tokens(directory)}

    @property
    def has_template(self) -> bool:
        return self._tokenizer.chat is not None

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        chat = self._tokenizer.chat
        if chat is None:
            return self._tokenizer.encode(as_text(messages))
        return self._tokenizer.encode(chat.render(messages, add_generation_prompt=True), special=False)

    def answer(
        self, prompt: Sequence[int], *, max_tokens: int | None, seed: int, sampling: Mapping[str, float]
    ) -> Generator[Piece, None, None]:
        assert self._engine is not None
        sampler, decoder = Sampler(sampling, seed, prompt), Decoder(self._tokenizer, prompt)
        room = self.context - len(prompt)
        # An iterator by its type, a generator in every engine: closed, it frees its cache at once.
        tokens = cast(
            Generator[np.ndarray, None, None], self._engine.continued(np.array([prompt], np.int32), sampler.choose)
        )
        with closing(tokens):
            for number, (token,) in enumerate(tokens, 1):
                if int(token) in self._ends:
                    yield Piece(decoder.rest(), number, "eos")
                    return
                text, finish = decoder.add(int(token)), None
                if number == max_tokens:
                    finish = "limit"
                elif number >= room:
                    finish = "context"
                yield Piece(text + (decoder.rest() if finish else ""), number, finish)
                if finish:
                    return

    def close(self) -> None:
        self._engine = None
