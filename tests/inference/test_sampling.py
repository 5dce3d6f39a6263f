"""Drawing the next token."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from chrysalis_mlx.inference.sampling import Sampler

PROBABILITIES = np.array([0.05, 0.4, 0.01, 0.3, 0.14, 0.1])
LOGITS = np.log(PROBABILITIES)[None].astype(np.float32)
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def shares(**sampling: float) -> npt.NDArray[np.float64]:
    sampler = Sampler({**OFF, **sampling}, 0)
    drawn = [int(sampler.choose(LOGITS)[0]) for _ in range(4000)]
    return np.bincount(drawn, minlength=6) / len(drawn)


def test_zero_is_greedy_and_the_shape_is_the_engines() -> None:
    token = Sampler({"temperature": 0.0}, 0).choose(LOGITS)
    assert (token.tolist(), token.dtype, token.shape) == ([1], np.int32, (1,))


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"top_k": 3}, [1, 3, 4]),
        ({"top_p": 0.69}, [1, 3]),
        ({"top_p": 0.71}, [1, 3, 4]),
        ({"min_p": 0.3}, [1, 3, 4]),
        ({"top_k": 4, "min_p": 0.5}, [1, 3]),
    ],
)
def test_only_the_likely_are_drawn_each_by_its_share(sampling: dict[str, float], kept: list[int]) -> None:
    expected = np.zeros(6)
    expected[kept] = PROBABILITIES[kept] / PROBABILITIES[kept].sum()
    found = shares(**sampling)
    assert found == pytest.approx(expected, abs=0.03)
    assert np.flatnonzero(found[expected == 0]).size == 0


def test_temperature_comes_last_and_sharpens() -> None:
    sharp = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    assert shares(temperature=0.5) == pytest.approx(sharp, abs=0.03)
    # Were it first, top_p 0.71 of the sharp distribution would leave two.
    assert np.flatnonzero(shares(temperature=0.5, top_p=0.71)).tolist() == [1, 3, 4]


def test_the_same_seed_draws_the_same_and_another_one_another() -> None:
    def draw(seed: int) -> list[int]:
        sampler = Sampler(OFF, seed)
        return [int(sampler.choose(LOGITS)[0]) for _ in range(40)]

    assert draw(1) == draw(1) != draw(2)


def test_what_was_said_is_made_less_likely_for_64_tokens() -> None:
    logits = np.array([[3.0, 2.9, -1.0]], np.float32)
    greedy = {"temperature": 0.0, "repeat_penalty": 1.2}
    assert Sampler(greedy, 0).choose(logits).tolist() == [0]
    assert Sampler(greedy, 0, [0]).choose(logits).tolist() == [1]
    assert Sampler(greedy, 0, [0, *[2] * 63]).choose(logits).tolist() == [1]
    assert Sampler(greedy, 0, [0, *[2] * 64]).choose(logits).tolist() == [0]
    negative = np.array([[-1.0, -1.1]], np.float32)
    assert Sampler(greedy, 0, [0]).choose(negative).tolist() == [1]
    sampler = Sampler(greedy, 0)
    assert [sampler.choose(logits).tolist() for _ in range(3)] == [[0], [1], [0]]
    assert logits.tolist() == [[3.0, pytest.approx(2.9), -1.0]]
