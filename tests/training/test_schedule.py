"""The learning rate of every step."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from chrysalis_mlx.blueprint.schema import TrainingSection
from chrysalis_mlx.training.schedule import learning_rate

SECTION = TrainingSection(steps=21, warmup_steps=4, learning_rate=1e-3, min_learning_rate=1e-4)
SCHEDULES = ["cosine", "linear", "constant", "wsd"]


def rates(**changes: object) -> list[float]:
    section = replace(SECTION, **changes)  # type: ignore[arg-type]
    return [learning_rate(step, section) for step in range(section.steps)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_is_linear_and_reaches_the_peak(schedule: str) -> None:
    assert rates(schedule=schedule)[:5] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])


def test_half_a_cosine_down_to_exactly_the_minimum() -> None:
    found = rates()
    assert found[12] == pytest.approx((1e-3 + 1e-4) / 2)
    assert found[8] == pytest.approx(1e-4 + 9e-4 * (1 + math.cos(math.pi / 4)) / 2)
    assert found[20] == 1e-4
    assert found[4:] == sorted(found[4:], reverse=True)


def test_a_line_down_to_exactly_the_minimum() -> None:
    found = rates(schedule="linear")
    assert found[4:] == pytest.approx([1e-3 - 9e-4 * n / 16 for n in range(17)])
    assert found[20] == 1e-4


def test_constant_stays_at_the_peak_to_the_end() -> None:
    assert rates(schedule="constant")[4:] == [1e-3] * 17


def test_wsd_stays_at_the_peak_and_decays_in_the_share_that_it_is_given() -> None:
    found = rates(schedule="wsd", decay_share=0.2)  # 0.2 of 21 steps: the last four
    assert found[4:17] == [1e-3] * 13
    assert found[16:] == pytest.approx([1e-3 - 9e-4 * n / 4 for n in range(5)])
    assert found[20] == 1e-4
    assert rates(schedule="wsd", decay_share=1.0) == rates(schedule="linear")
    assert rates(schedule="wsd", decay_share=0.0) == [*rates(schedule="constant")[:20], 1e-4]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 1), (3, 2), (4, 9), (1, 5)])
def test_short_trainings_have_a_rate_at_every_step(schedule: str, steps: int, warmup: int) -> None:
    found = rates(schedule=schedule, steps=steps, warmup_steps=warmup, min_learning_rate=0.0)
    assert all(0 <= rate <= 1e-3 for rate in found)
    assert found[0] > 0
    if schedule != "constant" and steps > 1:
        assert found[-1] == 0.0


def test_the_last_step_gets_the_minimum_even_in_the_warm_up() -> None:
    assert rates(steps=3, warmup_steps=9)[-1] == 1e-4
