"""Curves from metrics.jsonl."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from chrysalis_mlx.report.curves import POINTS, Curve, Rollback, read_training, thinned, training_of
from chrysalis_mlx.run import Run
from tests.report import cases


def test_a_short_training_is_told_point_by_point() -> None:
    training = training_of(cases.events(8, every=4), planned=8, report={"best_step": 4})
    assert training.done == 8
    assert training.curve("train").steps == tuple(range(1, 9))
    assert training.curve("valid").steps == (0, 4, 8)
    assert training.curve("valid").values[0] == 4.0
    assert training.curve("learning_rate").values == pytest.approx([1e-3 * (8 - n) / 8 for n in range(8)])
    assert (training.tokens, training.seconds, training.speed) == (800, 4.0, 200.0)
    assert training.peak_memory == 2**30 + 2**20 * 8
    assert (training.mean_of, training.not_finite) == (1, ())


def test_the_mean_is_of_the_steps_before() -> None:
    events = cases.events(100)
    training = training_of(events, planned=100, report={})
    losses = [event["loss"] for event in events if event["kind"] == "train"]
    mean = training.curve("train_mean")
    assert training.mean_of == 10
    assert mean.steps == tuple(range(10, 101))
    assert mean.values == pytest.approx([math.fsum(losses[end - 10 : end]) / 10 for end in range(10, 101)], rel=1e-12)


def test_a_long_curve_keeps_its_extremes_and_ends() -> None:
    points = [(step, math.sin(step / 50)) for step in range(1, 100_001)]
    points[54_321] = (54_322, 99.0)
    points[77_777] = (77_778, -99.0)
    curve = thinned(points)
    assert len(curve.steps) <= POINTS + 2
    assert curve.steps == tuple(sorted(set(curve.steps)))
    assert (curve.steps[0], curve.steps[-1]) == (1, 100_000)
    assert (max(curve.values), min(curve.values)) == (99.0, -99.0)
    assert all(points[step - 1][1] == value for step, value in zip(curve.steps, curve.values, strict=True))


def test_losses_that_are_no_number_are_counted_and_not_drawn() -> None:
    strange = {"step_3": {"loss": math.nan}, "step_5": {"loss": math.inf}}
    training = training_of([*cases.events(6), {"step": 6, "kind": "valid", "loss": -math.inf}], planned=6, report={})
    assert training.not_finite == (6,)
    training = training_of(cases.events(6, **strange), planned=6, report={})
    assert training.not_finite == (3, 5)
    assert training.curve("train").steps == (1, 2, 4, 6)


def test_rollbacks_are_told() -> None:
    event = {"step": 5, "kind": "rollback", "reason": "a spike", "undone": 7, "rate_factor": 0.5}
    assert training_of([event], planned=9, report={}).rollbacks == (Rollback(5, 7, "a spike", 0.5),)


def test_events_of_few_figures_give_few_curves() -> None:
    events = [{"step": 1, "kind": "train", "loss": 2.5, "tokens": 7}]
    training = training_of(events, planned=None, report={})
    assert training.curves == {"train": Curve((1,), (2.5,)), "train_mean": Curve((1,), (2.5,))}
    assert (training.tokens, training.speed, training.peak_memory) == (7, None, None)


def test_a_training_without_metrics_has_no_curves(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {})
    assert read_training(run) is None
    run.record["stages"]["train"] = {"status": "failed", "steps": 20}
    for write in (False, True):
        if write:
            run.path("training").mkdir()
            run.path("training/metrics.jsonl").write_text("")
        training = read_training(run)
        assert training is not None
        assert (training.planned, training.done, training.curves) == (20, 0, {})


@pytest.mark.parametrize(("status", "told"), [("done", True), ("paused", True), ("running", False), ("failed", False)])
def test_the_report_is_that_of_this_call(tmp_path: Path, status: str, told: bool) -> None:
    run = Run.create(tmp_path / "run", {})
    run.record["stages"]["train"] = {"status": status, "report": {"best_step": 3}}
    training = read_training(run)
    assert training is not None
    assert training.report == ({"best_step": 3} if told else {})


def test_a_line_that_a_crash_cut_is_passed_over(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {})
    run.record["stages"]["train"] = {"status": "running"}
    run.path("training").mkdir()
    lines = [json.dumps(event) for event in cases.events(4)]
    run.path("training/metrics.jsonl").write_text("\n".join(lines)[:-9])
    training = read_training(run)
    assert training is not None
    assert (training.done, training.curve("valid").steps) == (4, (0,))
