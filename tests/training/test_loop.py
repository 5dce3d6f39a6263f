"""The loop, on an engine that a test can foresee."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.errors import TrainingError
from chrysalis_mlx.progress import Bar
from chrysalis_mlx.training.power import Battery, BatteryWatch
from chrysalis_mlx.training.schedule import learning_rate
from tests.training.engines import CountingEngine
from tests.training.runs import PER_STEP, SECTION, Training

NAN = math.nan


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path / "training")


def uninterrupted(tmp_path: Path, **engine: Any) -> tuple[Training, CountingEngine]:
    training, whole = Training(tmp_path / "whole"), CountingEngine(**engine)
    training(whole)
    return training, whole


def test_steps_validations_and_checkpoints_come_when_the_blueprint_says(training: Training) -> None:
    engine = CountingEngine()
    result = training(engine)
    assert engine.rates == [learning_rate(step, SECTION) for step in range(7)]
    assert training.saved == [0, 2, 3, 4, 6, 7]  # at 3 because that validation was the best so far
    assert training.standing == [4, 6, 7]
    assert (training.steps("train"), training.steps("valid")) == ([1, 2, 3, 4, 5, 6, 7], [0, 3, 6, 7])
    last = training.events[-2]
    assert last.keys() == {
        *("step", "kind", "loss", "learning_rate", "grad_norm", "tokens"),
        *("seconds", "tokens_per_second", "peak_memory"),
    }
    assert (last["tokens"], last["peak_memory"], last["grad_norm"]) == (PER_STEP, 7, 1.0)
    assert (result.steps, result.resumed_at, result.targets) == (7, 0, 7 * PER_STEP)
    assert result.train_loss == last["loss"]
    assert result.valid_loss == result.best_loss == pytest.approx(10 - engine.x)
    assert (result.best_step, result.rollbacks, result.stopped_early, result.paused) == (7, 0, False, False)


@pytest.mark.parametrize("stop_at", [0, 2, 3, 4, 7])
def test_a_resumed_training_ends_like_one_that_never_stopped(training: Training, tmp_path: Path, stop_at: int) -> None:
    expected, whole = uninterrupted(tmp_path)

    def stop(step: int) -> None:
        if step == stop_at:
            raise OSError("killed")

    training.on_save = stop
    with pytest.raises(OSError, match="killed"):
        training(CountingEngine())
    training.on_save = lambda _: None
    engine = CountingEngine()
    result = training(engine)
    assert (result.resumed_at, result.targets) == (stop_at, (7 - stop_at) * PER_STEP)
    assert (engine.x, engine.steps) == (whole.x, 7)
    assert training.timeless == expected.timeless
    assert training.standing == expected.standing


@pytest.mark.parametrize(
    ("planned", "reason"),
    [
        ({"losses": {4: [NAN, 9.0]}}, "the loss is nan"),
        ({"losses": {4: [math.inf, 9.0]}}, "the loss is inf"),
        ({"norms": {4: [NAN, 1.0]}}, "the norm of the gradient is nan"),
    ],
)
def test_a_step_that_is_not_finite_is_undone_and_the_learning_rate_halved(
    training: Training, planned: dict[str, Any], reason: str
) -> None:
    training.section = replace(SECTION, checkpoint_every=3)
    engine = CountingEngine(**planned)
    result = training(engine)
    rates = [learning_rate(step, SECTION) for step in range(7)]
    # Steps 1 to 4, back to the checkpoint of step 3, and from there on half as fast.
    assert engine.rates == [*rates[:4], *(rate / 2 for rate in rates[3:])]
    assert (result.rollbacks, result.steps) == (1, 7)
    assert training.steps("train") == [1, 2, 3, 4, 5, 6, 7]
    events = [event for event in training.events if event["kind"] == "rollback"]
    assert events == [{"step": 3, "kind": "rollback", "reason": reason, "undone": 5, "rate_factor": 0.5}]


def test_a_spike_is_undone(training: Training) -> None:
    training.section = replace(SECTION, steps=12)
    engine = CountingEngine(losses={9: [30.0, 9.0]})
    assert training(engine).rollbacks == 1
    [event] = [event for event in training.events if event["kind"] == "rollback"]
    assert (event["step"], event["undone"]) == (9, 10)
    assert event["reason"] == "the loss is 30, 3.3 times the median before it"
    calm = Training(training.directory.parent / "calm", replace(SECTION, steps=12, spike=None))
    assert calm(CountingEngine(losses={9: [30.0, 9.0]})).rollbacks == 0


def test_a_spike_of_the_rows_is_taken_as_it_is_and_costs_no_rollback(training: Training) -> None:
    training.section = replace(SECTION, steps=16, checkpoint_every=4)
    spikes = {step: [30.0] for step in (9, 10, 11, 12, 13)}
    engine = CountingEngine(losses=spikes)
    result = training(engine)
    assert (result.steps, result.rollbacks) == (16, 0)
    rates = [learning_rate(step, training.section) for step in range(16)]
    # Step 10 is refused; from the checkpoint of step 9 it is taken, at half the rate, which then is whole again.
    assert engine.rates[:10] == [*rates[:9], rates[9] / 2]
    assert engine.rates[-1] == rates[-1]


def test_the_fourth_time_ends_the_training_with_its_reason_and_a_whole_checkpoint(training: Training) -> None:
    engine = CountingEngine(losses={4: [NAN]})
    with pytest.raises(TrainingError, match=r"step 5: the loss is nan; after 3 rollbacks(.|\n)*lower "):
        training(engine)
    factors = [event["rate_factor"] for event in training.events if event["kind"] == "rollback"]
    assert factors == [0.5, 0.25, 0.125]
    assert training.standing == [2, 3, 4]
    assert (engine.steps, training.steps("train")) == (4, [1, 2, 3, 4])


def test_a_first_step_that_fails_goes_back_to_the_beginning(training: Training) -> None:
    engine = CountingEngine(losses={0: [NAN, NAN, 10.0]})
    assert training(engine).rollbacks == 2
    assert engine.rates[0] == learning_rate(0, SECTION) / 4


def test_killed_after_a_rollback_it_rolls_back_again_and_ends_the_same(training: Training, tmp_path: Path) -> None:
    # Steps 5 and 6 fail at their first try; both go back to the checkpoint of step 4. Then it is killed in step 6.
    planned = {4: [NAN, 9.0], 5: [NAN, 9.0]}
    expected, whole = uninterrupted(tmp_path, losses=planned)
    doomed = CountingEngine(losses=planned)
    applied: list[int] = []

    def kill(steps: int) -> None:
        applied.append(steps)
        if applied.count(6) == 1:
            raise OSError("killed")

    doomed.after_step = kill
    with pytest.raises(OSError, match="killed"):
        training(doomed)
    assert len([event for event in training.events if event["kind"] == "rollback"]) == 2
    engine = CountingEngine(losses=planned)
    result = training(engine)
    assert (result.resumed_at, result.rollbacks) == (4, 2)
    assert engine.x == whole.x
    assert training.timeless == expected.timeless


def test_the_best_adapter_is_what_stays(training: Training) -> None:
    engine = CountingEngine(valid={3: 2.0, 6: 1.0, 7: 3.0})
    at: dict[int, float] = {}
    engine.after_step = lambda steps: at.update({steps: engine.x})
    training.section = replace(SECTION, keep=1)
    result = training(engine)
    assert (result.best_step, result.best_loss, result.valid_loss, result.steps) == (6, 1.0, 3.0, 7)
    assert engine.x == at[6]
    assert training.standing == [6, 7]


def test_it_stops_when_the_validations_have_been_no_better_for_so_long(training: Training) -> None:
    training.section = replace(SECTION, steps=20, validate_every=1, checkpoint_every=5, patience=3)
    engine = CountingEngine(valid={1: 5.0, 2: 4.0, 3: 4.0, 4: NAN, 5: 4.5})
    result = training(engine)
    assert (result.steps, result.stopped_early, result.best_step, engine.steps) == (5, True, 2, 2)
    again = CountingEngine()
    assert training(again).targets == 0  # it knows that it was over
    assert again.steps == 2


def test_the_minutes_end_it_at_a_checkpoint_and_every_call_moves_on(training: Training, tmp_path: Path) -> None:
    expected, whole = uninterrupted(tmp_path)
    results = []
    while not results or results[-1].paused:
        engine = CountingEngine()
        results.append(training(engine, max_minutes=0))
    assert [result.steps for result in results] == [1, 2, 3, 4, 5, 6, 7]
    assert [result.resumed_at for result in results] == [0, 1, 2, 3, 4, 5, 6]
    assert not any(result.stopped_early for result in results)
    assert (engine.x, training.timeless) == (whole.x, expected.timeless)


def test_the_first_ctrl_c_finishes_the_step_and_saves_it(training: Training, tmp_path: Path) -> None:
    expected, whole = uninterrupted(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    engine = CountingEngine()
    engine.after_step = lambda steps: steps == 5 and os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="saved at step 5"):
        training(engine)
    assert signal.getsignal(signal.SIGINT) is before
    assert training.standing[-1] == training.steps("train")[-1] == 5
    engine = CountingEngine()
    assert training(engine).resumed_at == 5
    assert (engine.x, training.timeless) == (whole.x, expected.timeless)


def test_ctrl_c_in_the_last_step_is_not_forgotten(training: Training) -> None:
    engine = CountingEngine()
    engine.after_step = lambda steps: steps == 7 and os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        training(engine)
    assert training.standing[-1] == 7


def test_the_second_ctrl_c_stops_at_once(training: Training) -> None:
    engine = CountingEngine()

    def twice(steps: int) -> None:
        if steps == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    engine.after_step = twice
    with pytest.raises(KeyboardInterrupt):
        training(engine)
    assert training.standing == [2, 3, 4]
    assert training.steps("train")[-1] == 4


class Shown:
    """What the bars were told."""

    def __init__(self) -> None:
        self.updates: list[tuple[int, dict[str, object]]] = []

    def update(self, advance: int = 1, **fields: object) -> None:
        self.updates.append((advance, fields))

    def __call__(self, description: str, total: int, *, completed: int = 0, unit: str = "") -> Shown:
        return self

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_on_a_low_battery_it_waits_and_says_so(training: Training) -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    watch = BatteryWatch(20, lambda: Battery(12, now[0] < 100), clock=lambda: now[0], sleep=sleep)
    shown = Shown()
    assert training(CountingEngine(), battery=watch, progress=shown).steps == 7
    assert sum(slept) == 120
    assert [fields for advance, fields in shown.updates if not advance] == [{"battery": "12 %, waiting for power"}] * 2
    fields = shown.updates[-1][1]
    assert (list(fields), fields["memory"]) == (["loss", "valid", "speed", "memory"], "0.0 GiB")


def test_ctrl_c_ends_the_waiting(training: Training) -> None:
    watch = BatteryWatch(20, lambda: Battery(12, True), sleep=lambda _: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="saved at step 0"):
        training(CountingEngine(), battery=watch)


def test_the_minutes_end_the_waiting_too(training: Training) -> None:
    watch = BatteryWatch(20, lambda: Battery(12, True), sleep=lambda _: pytest.fail("there is no time to sleep"))
    result = training(CountingEngine(), battery=watch, max_minutes=0)
    assert (result.paused, result.steps) == (True, 0)


def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(training: Training, tmp_path: Path) -> None:
    expected, whole = uninterrupted(tmp_path)
    training(CountingEngine())
    (training.directory / "checkpoints/step-000007/optimizer.safetensors").write_bytes(b"")
    engine = CountingEngine()
    assert training(engine).resumed_at == 6
    assert training.warnings == [
        "missing or damaged: step-000007/optimizer.safetensors; the training goes on from step 6"
    ]
    assert (engine.x, training.timeless) == (whole.x, expected.timeless)


def test_a_checkpoint_damaged_before_a_rollback_is_told_too(training: Training) -> None:
    def spoil(step: int) -> None:
        if step == 4:
            (training.directory / "checkpoints/step-000004/state.json").write_text("{}")

    training.on_save = spoil
    assert training(CountingEngine(losses={4: [NAN, 9.0]})).rollbacks == 1
    assert training.warnings == ["missing or damaged: step-000004/state.json; the training goes on from step 3"]
    assert training.steps("train") == [1, 2, 3, 4, 5, 6, 7]
