"""Runs side by side."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from chrysalis_mlx.errors import UsageError
from chrysalis_mlx.evaluation.results import Change, Interval
from chrysalis_mlx.report.compare import comparison_page, differences
from chrysalis_mlx.report.curves import training_of
from chrysalis_mlx.report.facts import Facts, read_facts
from tests.report import cases
from tests.report.test_page import Page


@pytest.fixture(scope="module")
def first(grown: Path) -> Facts:
    return read_facts(grown / "run")


@pytest.fixture(scope="module")
def second(first: Facts) -> Facts:
    """The same with another learning rate, another end and one exported file."""
    evaluation = dataclasses.replace(
        cases.evaluation(),
        tuned=cases.subject("tuned", 13.6, 13.9, 3, "I am a moth."),
        changes={"test": Change(0.791, Interval(0.77, 0.81)), "general": Change(1.149, Interval(1.1, 1.2))},
    )
    assert first.exports is not None
    return dataclasses.replace(
        first,
        name="faster",
        settings={**first.settings, "training.learning_rate": 2e-3},
        training=training_of(cases.events(40), planned=40, report={}),
        evaluation=evaluation,
        exports=dataclasses.replace(first.exports, files=first.exports.files[:1]),
    )


def rows(page: Page, section: int) -> str:
    return " ".join(page.texts["section"][section].split())


def test_only_settings_that_differ_are_told(first: Facts, second: Facts) -> None:
    assert differences([first, second]) == {"training.learning_rate": (1e-3, 2e-3)}
    assert differences([first, first, first]) == {}


def test_both_runs_stand_beside_each_other(first: Facts, second: Facts) -> None:
    page = Page(comparison_page([first, second]))
    assert " ".join(page.texts["h1"][0].split()) == "A run against B faster"
    head = page.texts["header"][0]
    assert "Test perplexity fell from 17.20 to 14.70" in head
    assert "Test perplexity fell from 17.20 to 13.60" in head
    assert "Not the same measure" not in head
    figures = rows(page, 0)
    assert "optimizer steps 60 40" in figures
    assert "test perplexity after 14.7014.11 to 15.29 13.6013.06 to 14.14" in figures
    assert "general, after / before 1.020.998 to 1.05 1.151.10 to 1.20" in figures
    assert "copies of training texts 1 of 16longest 84 3 of 16longest 172" in figures
    assert "files verified 1 of 2 1 of 1" in figures
    assert "training.learning_rate 0.001 0.002" in rows(page, 1)
    assert "The corpora hold the same number of tokens" in rows(page, 1)
    assert "I am a butterfly." in rows(page, 4)
    assert "I am a moth." in rows(page, 4)
    assert "F16 KL 1.0e-62.0 MB, verified KL 1.0e-62.0 MB, verified" in rows(page, 5)
    assert "Q4_K_M KL 0.0500.7 MB, failed –" in rows(page, 5)


def test_one_drawing_holds_the_curves_of_both(first: Facts, second: Facts) -> None:
    page = Page(comparison_page([first, second]))
    assert len(page.texts["svg"]) == 6
    told = page.texts["desc"][0]
    assert "A: 4.000 at step 0" in told
    assert "at step 60" in told
    assert "B: 4.000 at step 0" in told
    assert "at step 40" in told
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert "A: before 17.20 (16.51 to 17.89), after 14.70 (14.11 to 15.29); B: before 17.20" in page.texts["desc"][4]


def test_what_cannot_be_compared_is_told(first: Facts, second: Facts) -> None:
    other = dataclasses.replace(second, tests=("other texts", "other tokenizer"))
    head = Page(comparison_page([first, other])).texts["header"][0]
    assert "The runs have different test texts" in head
    assert "The models have different tokenizers" in head


def test_corpora_that_differ_are_told_by_repository(first: Facts, second: Facts) -> None:
    assert first.material is not None
    docs, notes = first.material.parts
    less = dataclasses.replace(first.material, parts=(dataclasses.replace(docs, tokens=77), notes))
    told = rows(Page(comparison_page([first, dataclasses.replace(second, material=less)])), 1)
    assert f"docs {docs.tokens:,} 77" in told
    assert "no_te|s" not in told


def test_unfinished_runs_can_be_compared(first: Facts) -> None:
    bare = dataclasses.replace(first, material=None, training=None, evaluation=None, exports=None, settings={})
    page = Page(comparison_page([bare, bare, bare]))
    assert "No run has trained yet." in rows(page, 2)
    assert "No run has been evaluated yet." in rows(page, 3)
    assert "state done done done" in rows(page, 0)
    assert "optimizer steps" not in rows(page, 0)


def test_a_hostile_run_is_compared(first: Facts, hostile: Facts) -> None:
    page = Page(comparison_page([hostile, first]))
    assert not {"script", "img"} & {tag for tag, _ in page.elements}


@pytest.mark.parametrize("number", [1, 7])
def test_one_run_or_too_many_are_refused(first: Facts, number: int) -> None:
    with pytest.raises(UsageError, match=rf"^{number} runs cannot be compared"):
        comparison_page([first] * number)
