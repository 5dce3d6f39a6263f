"""Engines and files answer the same questions; the drawn answers follow the softmax."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from chrysalis_mlx.backends.base import Choose
from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.evaluation.predictors import EnginePredictor, FilePredictor, drawn, likeliest
from chrysalis_mlx.evaluation.prompts import Prompt
from chrysalis_mlx.llamacpp.server import Completion
from tests.evaluation.engines import BigramEngine, cycle, random_table, segment

V = 12


def predictor(
    engine: BigramEngine, ends: Sequence[int] = (), *, temperature: float = 1.0, seed: int = 0
) -> EnginePredictor:
    return EnginePredictor(engine, 16, ends, temperature=temperature, seed=seed)  # type: ignore[arg-type]


def test_every_text_gets_its_own_log_probabilities_back() -> None:
    engine = BigramEngine(random_table(V))
    texts = [segment([1, 2, 3, 4]), segment([5, 6], 2), segment([7, 8, 9, 10, 11], 3)]
    found = predictor(engine).target_logprobs([texts[:2], texts[2:]])
    assert engine.batches == 1
    assert [[len(values) for values in row] for row in found] == [[3, 0], [2]]
    np.testing.assert_allclose(found[0][0], [engine.log_p[a, a + 1] for a in (1, 2, 3)], rtol=1e-6)
    np.testing.assert_allclose(found[1][0], [engine.log_p[a, a + 1] for a in (9, 10)], rtol=1e-6)


def test_continuations_stop_at_their_limit_or_before_an_end_token() -> None:
    engine = BigramEngine(cycle(V))
    assert predictor(engine).continuations([[0, 1], [0, 4]], 3) == [[2, 3, 4], [5, 6, 7]]
    assert engine.steps == 6
    assert predictor(engine, (4, 6)).continuations([[0, 1], [0, 4], [0, 6]], 5) == [[2, 3], [5], [7, 8, 9, 10, 11]]


def test_nothing_more_is_generated_when_every_text_has_ended() -> None:
    engine = BigramEngine(cycle(V))
    assert predictor(engine, (3, 6)).continuations([[0, 1], [0, 4]], 99) == [[2], [5]]
    assert engine.steps == 4


class Windowed(BigramEngine):
    """It refuses texts of more than `window` tokens, as MLX does of models whose sliding window mlx-lm lacks."""

    window = 4

    def continued(self, prompts: npt.NDArray[np.int32], choose: Choose) -> Iterator[npt.NDArray[np.int32]]:
        for length, tokens in enumerate(super().continued(prompts, choose), prompts.shape[1]):
            if length > self.window:
                raise ModelError(f"texts of {length} tokens exceed the window")
            yield tokens


def test_a_text_ends_where_it_outgrows_the_engine() -> None:
    asked = predictor(Windowed(cycle(V)))
    assert asked.continuations([[0, 1]], 3) == [[2, 3, 4]]
    assert asked.cut is None
    assert asked.continuations([[0, 1], [0, 4]], 9) == [[2, 3, 4], [5, 6, 7]]
    assert asked.cut == "texts of 5 tokens exceed the window"
    assert asked.answers(Prompt("?", (0, 1, 2, 3, 4), 9)) == ([], [])


def test_an_answer_is_greedy_and_another_one_drawn() -> None:
    engine = BigramEngine(random_table(V))
    greedy, sampled = predictor(engine, seed=3).answers(Prompt("?", (1, 2), 9))
    assert greedy == predictor(engine).continuations([[1, 2]], 9)[0]
    generator, expected = np.random.Generator(np.random.PCG64(3)), [2]
    for _ in range(9):
        p = np.exp(engine.log_p[expected[-1]])
        expected.append(int(np.argmax(p.cumsum() > generator.random())))
    assert sampled == expected[1:]
    assert sampled != greedy
    assert predictor(engine, seed=3).answers(Prompt("?", (1, 2), 9)) == (greedy, sampled)
    assert predictor(engine, seed=4).answers(Prompt("?", (1, 2), 9)) != (greedy, sampled)
    cold = predictor(engine, temperature=0.01, seed=3).answers(Prompt("?", (1, 2), 9))
    assert cold == (greedy, greedy)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    logits = np.array([0.0, 1.0, 3.0, -2.0], np.float32)
    generator = np.random.Generator(np.random.PCG64(0))
    counts = np.bincount([drawn(logits, temperature, generator) for _ in range(20_000)], minlength=4) / 20_000
    weights = np.exp(logits / temperature)
    assert np.abs(counts - weights / weights.sum()).max() < 4 * math.sqrt(0.25 / 20_000)


def test_draws_of_extreme_logits() -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    assert {drawn(np.array([-1e9, 3e38, 0], np.float32), 0.01, generator) for _ in range(50)} == {1}
    assert {drawn(np.array([-np.inf, 0, -np.inf], np.float32), 1.0, generator) for _ in range(50)} == {1}
    assert likeliest(np.array([[1, 5, 5], [9, 0, 0]], np.float32)).tolist() == [1, 0]


class Server:
    """What llama.cpp's server would say of a bigram model; it notes how it was asked."""

    def __init__(self, engine: BigramEngine) -> None:
        self.engine = engine
        self.asked: list[tuple[object, ...]] = []

    def forget(self) -> None:
        self.asked.append(("forget",))

    def target_logprobs(
        self, token_ids: Sequence[int], top: int, target: int, vocabulary: int
    ) -> tuple[object, object, float]:
        self.asked.append((list(token_ids), top, target, vocabulary))
        return None, None, float(self.engine.log_p[token_ids[-1], target])

    def complete(self, prompt: Sequence[int], *, max_tokens: int, temperature: float, seed: int) -> Completion:
        self.asked.append((list(prompt), max_tokens, temperature, seed))
        found = [(prompt[-1] + 1 + number) % V for number in range(max_tokens)]
        return Completion("", found, "limit")


def test_a_file_answers_as_an_engine_does() -> None:
    engine = BigramEngine(random_table(V))
    server = Server(engine)
    file = FilePredictor(server, V, (6,), temperature=0.5, seed=7)  # type: ignore[arg-type]
    texts = [[segment([1, 2, 3, 4], 2)], [segment([5, 6])]]
    for own, other in zip(file.target_logprobs(texts), predictor(engine).target_logprobs(texts), strict=True):
        np.testing.assert_array_equal(own[0], other[0])
    first, second = [([1, 2], 1, 3, V), ([1, 2, 3], 1, 4, V)], [([5], 1, 6, V)]
    assert server.asked == [("forget",), *first, ("forget",), *second]  # each text is by itself
    assert file.continuations([[0, 1], [0, 4]], 3) == [[2, 3, 4], [5]]
    assert file.answers(Prompt("?", (1, 2), 2)) == ([3, 4], [3, 4])
    assert server.asked[-4:] == [("forget",), ([1, 2], 2, 0.0, 7), ("forget",), ([1, 2], 2, 0.5, 7)]
