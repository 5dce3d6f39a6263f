"""Which steps are refused."""

from __future__ import annotations

import math

import pytest

from chrysalis_mlx.backends.base import StepResult
from chrysalis_mlx.training.guard import objection
from chrysalis_mlx.training.state import TrainingState


def said(loss: float, recent: list[float], norm: float = 1.0, spike: float | None = 2.0) -> str:
    return objection(StepResult(loss, 10, norm), recent, spike)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_always(value: float) -> None:
    assert said(value, [], spike=None) == f"the loss is {value}"
    assert said(1.0, [], norm=value, spike=None) == f"the norm of the gradient is {value}"


def test_a_spike_is_above_so_many_times_the_median_of_at_least_eight() -> None:
    recent = [1.0] * 4 + [3.0] * 4  # median 2
    assert said(4.0, recent) == ""
    assert said(4.01, recent) == "the loss is 4.01, 2 times the median before it"
    assert said(4.01, recent, spike=3.0) == ""
    assert said(1e9, recent, spike=None) == ""
    assert said(1e9, recent[:7]) == ""


def test_a_spike_that_a_rollback_does_not_change_is_the_rows_own() -> None:
    recent = [1.0] * 8
    for loss, refused in ((9.0, False), (8.1, False), (7.9, True), (3.0, True), (1.5, False)):
        assert bool(objection(StepResult(loss, 10, 1.0), recent, 2.0, before=10.0)) == refused
    assert objection(StepResult(math.nan, 10, 1.0), recent, 2.0, before=math.nan) == "the loss is nan"


def test_the_state_remembers_the_last_32_losses_and_the_best_validation() -> None:
    state = TrainingState()
    for number in range(40):
        state.accepted(float(number))
    assert (state.step, state.recent) == (40, [float(number) for number in range(8, 40)])
    assert [state.validated(loss) for loss in (math.nan, 3.0, 3.0, 4.0, 2.5)] == [False, True, False, False, True]
    assert (state.best_step, state.best_loss, state.stale) == (40, 2.5, 0)
    assert TrainingState.from_json(state.to_json() | {"files": {}}) == state
