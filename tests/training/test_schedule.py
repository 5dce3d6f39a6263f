"""The learning rate of every step."""

from __future__ import annotations

import math

import pytest

from chrysalis_mlx.blueprint.schema import TrainingSection
from chrysalis_mlx.training.schedule import learning_rate

SECTION = TrainingSection(steps=21, warmup_steps=4, learning_rate=1e-3, min_learning_rate=1e-4)


def test_warm_up_is_linear_and_reaches_the_peak() -> None:
    assert [learning_rate(step, SECTION) for step in range(4)] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3])


def test_then_half_a_cosine_down_to_exactly_the_minimum() -> None:
    assert learning_rate(4, SECTION) == 1e-3
    assert learning_rate(12, SECTION) == pytest.approx((1e-3 + 1e-4) / 2)
    assert learning_rate(8, SECTION) == pytest.approx(1e-4 + 9e-4 * (1 + math.cos(math.pi / 4)) / 2)
    assert learning_rate(20, SECTION) == 1e-4
    rates = [learning_rate(step, SECTION) for step in range(4, 21)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 1), (3, 2)])
def test_short_trainings_have_a_rate_at_every_step(steps: int, warmup: int) -> None:
    section = TrainingSection(steps=steps, warmup_steps=warmup, learning_rate=1e-3)
    rates = [learning_rate(step, section) for step in range(steps)]
    assert max(rates) == 1e-3
    assert all(0 <= rate <= 1e-3 for rate in rates)
    assert rates[: warmup + 1] == pytest.approx([1e-3 * (step + 1) / max(warmup, 1) for step in range(warmup)] + [1e-3])
