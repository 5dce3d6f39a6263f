"""What can be asked: an engine of a backend, or a GGUF in llama.cpp, each with the same three abilities."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.batches.packing import assemble, unpack
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.evaluation.prompts import Prompt
from chrysalis_mlx.llamacpp.server import LlamaServer

Array = npt.NDArray[np.float32]


class Predictor(Protocol):
    """A model that can be asked.

    Attributes:
        cut: why a text was cut short; None where none was so far.
    """

    cut: str | None

    def target_logprobs(self, rows: Sequence[Sequence[Segment]]) -> list[list[Array]]:
        """Log p, in nats, of every supervised token of every segment of packed rows: (n,) each."""

    def continuations(self, beginnings: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
        """How it goes on, greedily, from each of some beginnings of one length: at most `limit` tokens, without an end
        token."""

    def answers(self, prompt: Prompt) -> tuple[list[int], list[int]]:
        """Its greedy answer, and one that is drawn; without an end token."""


class EnginePredictor:
    """An engine of a backend.

    Args:
        engine: the model.
        row_length: tokens of a packed row.
        ends: ids of the tokens that end a text or an answer.
        temperature, seed: of drawn answers.
    """

    def __init__(
        self, engine: Engine, row_length: int, ends: Collection[int], *, temperature: float, seed: int
    ) -> None:
        self._engine, self._row_length, self._ends = engine, row_length, frozenset(ends)
        self._temperature, self._seed = temperature, seed
        self.cut: str | None = None

    def target_logprobs(self, rows: Sequence[Sequence[Segment]]) -> list[list[Array]]:
        return unpack(self._engine.target_logprobs(assemble(rows, self._row_length)), rows)

    def continuations(self, beginnings: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
        steps = self._engine.continued(np.asarray(beginnings, np.int32), likeliest)
        return self._until_the_end(steps, len(beginnings), limit)

    def answers(self, prompt: Prompt) -> tuple[list[int], list[int]]:
        generator = np.random.Generator(np.random.PCG64(self._seed))

        def choose(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
            return np.array([likeliest(logits[:1])[0], drawn(logits[1], self._temperature, generator)], np.int32)

        # Both at once: a batch of two takes hardly longer than one of one.
        steps = self._engine.continued(np.array([prompt.tokens] * 2, np.int32), choose)
        greedy, sampled = self._until_the_end(steps, 2, prompt.limit)
        return greedy, sampled

    def _until_the_end(self, steps: Iterable[npt.NDArray[np.int32]], count: int, limit: int) -> list[list[int]]:
        """What is generated of each text before its first end token, or before it outgrows what the engine can do."""
        found: list[list[int]] = [[] for _ in range(count)]
        going = set(range(count))
        try:
            for tokens in itertools.islice(steps, limit):
                for text in tuple(going):
                    if int(tokens[text]) in self._ends:
                        going.remove(text)
                    else:
                        found[text].append(int(tokens[text]))
                if not going:
                    break
        except ModelError as error:  # of a sliding window; the texts that were predicted are none the worse for it
            self.cut = error.what
        return found


class FilePredictor:
    """A GGUF in llama.cpp, with llama.cpp's own sampler.

    Args:
        server: with the file loaded.
        vocabulary: its size.
        ends: ids of the tokens that end a text or an answer.
        temperature, seed: of drawn answers.
    """

    def __init__(
        self, server: LlamaServer, vocabulary: int, ends: Collection[int], *, temperature: float, seed: int
    ) -> None:
        self._server, self._vocabulary, self._ends = server, vocabulary, frozenset(ends)
        self._temperature, self._seed = temperature, seed
        self.cut: str | None = None

    def target_logprobs(self, rows: Sequence[Sequence[Segment]]) -> list[list[Array]]:
        return [[self._of_segment(segment) for segment in row] for row in rows]

    def continuations(self, beginnings: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
        return [self._generated(beginning, limit, 0.0) for beginning in beginnings]

    def answers(self, prompt: Prompt) -> tuple[list[int], list[int]]:
        greedy, sampled = (
            self._generated(prompt.tokens, prompt.limit, temperature) for temperature in (0.0, self._temperature)
        )
        return greedy, sampled

    def _of_segment(self, segment: Segment) -> Array:
        tokens = segment.tokens.tolist()
        self._server.forget()  # what is found depends on the text alone, also after a new start
        return np.array(
            [
                self._server.target_logprobs(tokens[:place], 1, tokens[place], self._vocabulary)[2]
                for place in np.flatnonzero(segment.supervised).tolist()
            ],
            np.float32,
        )

    def _generated(self, tokens: Sequence[int], limit: int, temperature: float) -> list[int]:
        self._server.forget()
        found = self._server.complete(tokens, max_tokens=limit, temperature=temperature, seed=self._seed).tokens
        end = next((number for number, token in enumerate(found) if token in self._ends), len(found))
        return found[:end]


def likeliest(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """(B, V) logits to the (B,) most probable tokens, of equals the first."""
    found: npt.NDArray[np.int32] = logits.argmax(axis=-1).astype(np.int32)
    return found


def drawn(logits: npt.NDArray[np.float32], temperature: float, generator: np.random.Generator) -> int:
    """A token of softmax(logits / temperature), of (V,) logits; takes one number from the generator."""
    scaled = logits.astype(np.float64) / temperature
    summed = np.exp(scaled - scaled.max()).cumsum()
    return min(int(np.searchsorted(summed, generator.random() * summed[-1], side="right")), len(logits) - 1)
