"""The sentence that a report begins with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from chrysalis_mlx.evaluation.results import Change, Copying, Interval
from chrysalis_mlx.report.curves import training_of
from chrysalis_mlx.report.facts import Facts, Stage, read_facts
from chrysalis_mlx.report.verdict import verdict
from tests.report import cases


@pytest.fixture
def facts(grown: Path) -> Facts:
    return read_facts(grown / "run")


def test_a_finished_run(facts: Facts) -> None:
    assert verdict(facts) == (
        "Test perplexity fell from 17.20 to 14.70 (ratio 0.855, 95 % 0.832 to 0.877); "
        "perplexity of general text went from 12.10 to 12.40 "
        "(ratio 1.02, 95 % 0.998 to 1.05: no change that could be told from chance); "
        "1 of 16 continuations of training texts copies a long passage of them; "
        "1 of 2 files verified, 1 failed."
    )


def test_what_was_not_measured_is_not_told(facts: Facts) -> None:
    whole = cases.evaluation()
    base, tuned = (dataclasses.replace(item, general=None, copying={}) for item in (whole.base, whole.tuned))
    bare = dataclasses.replace(whole, base=base, tuned=tuned, changes={})
    told = verdict(dataclasses.replace(facts, evaluation=bare, exports=None))
    assert told == "Test perplexity fell from 17.20 to 14.70."


def test_a_rise_is_called_so(facts: Facts) -> None:
    whole = cases.evaluation()
    changes = {"test": Change(1.2, Interval(1.1, 1.3)), "general": Change(1.1)}
    tuned = dataclasses.replace(cases.subject("tuned", 20.64, 13.31, 0, ""), copying={"train": Copying(16, 0, 12)})
    told = verdict(
        dataclasses.replace(facts, exports=None, evaluation=dataclasses.replace(whole, tuned=tuned, changes=changes))
    )
    assert told == (
        "Test perplexity rose from 17.20 to 20.64 (ratio 1.20, 95 % 1.10 to 1.30); "
        "perplexity of general text rose from 12.10 to 13.31 (ratio 1.10); "
        "0 of 16 continuations of training texts copy a long passage of them."
    )


def test_what_nobody_sees_is_no_change(facts: Facts) -> None:
    whole = cases.evaluation()
    changes = {"test": Change(1.00001, Interval(1.000005, 1.00002)), "general": Change(0.99999, Interval(0.9, 1.1))}
    base, tuned = (
        dataclasses.replace(cases.subject("", test, general, 0, ""), copying={})
        for test, general in ((17.2, 12.1), (17.2001, 12.0999))
    )
    same = dataclasses.replace(whole, base=base, tuned=tuned, changes=changes)
    assert verdict(dataclasses.replace(facts, exports=None, evaluation=same)) == (
        "Test perplexity stayed at 17.20 (ratio 1.00, 95 % 1.00 to 1.00); perplexity of general text stayed at 12.10 "
        "(ratio 1.00, 95 % 0.900 to 1.10: no change that could be told from chance)."
    )


@pytest.mark.parametrize(
    ("state", "stage", "reason", "told"),
    [
        ("begun", "corpus", None, "Nothing has been done yet"),
        ("begun", "train", None, "The training comes next"),
        ("running", "train", None, "The training is under way"),
        ("paused", "train", None, "The training is paused"),
        ("interrupted", "eval", "Ctrl-C", "The evaluation was interrupted"),
        ("failed", "fuse", "a file differs\n  to do: look", "The export failed: a file differs"),
    ],
)
def test_a_run_that_is_not_done(facts: Facts, state: str, stage: str, reason: str | None, told: str) -> None:
    bare = dataclasses.replace(facts, state=state, stage=stage, reason=reason, evaluation=None, exports=None)
    assert verdict(dataclasses.replace(bare, training=None)) == f"{told}."
    training = training_of(cases.events(30, every=15), planned=200, report={})
    losses = f"validation loss from 4.000 to {training.curve('valid').values[-1]:.3f}"
    assert verdict(dataclasses.replace(bare, training=training)) == f"{told}; 30 of 200 steps are trained, {losses}."


def test_all_files_verified(facts: Facts) -> None:
    assert facts.exports is not None
    first = facts.exports.files[0]
    stages = tuple(Stage(name, "done") for name in ("corpus", "train", "eval", "fuse"))
    bare = dataclasses.replace(facts, stages=stages, evaluation=None, training=None)
    for number, told in ((3, "All 3 files verified."), (1, "1 file verified.")):
        exports = dataclasses.replace(facts.exports, files=(first,) * number)
        assert verdict(dataclasses.replace(bare, exports=exports)) == told
