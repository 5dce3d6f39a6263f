"""Drawings that can stand in a page."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable

import matplotlib
import pytest

from chrysalis_mlx.evaluation.results import Interval, Score
from chrysalis_mlx.report import plots
from chrysalis_mlx.report.curves import Training, training_of
from chrysalis_mlx.report.facts import Facts
from chrysalis_mlx.report.material import Part
from chrysalis_mlx.report.measured import Measured
from chrysalis_mlx.report.svg import Plot
from tests.report import cases

PARTS = tuple(Part(f"repository-{number}", 9, 9, 1000 - number) for number in range(30))


@pytest.fixture(scope="module")
def training() -> Training:
    rollback = {"step": 60, "kind": "rollback", "reason": "a spike", "undone": 63, "rate_factor": 0.5}
    return training_of([*cases.events(100), rollback], planned=100, report={"best_step": 80})


@pytest.fixture(scope="module")
def drawn(training: Training) -> list[Plot]:
    rows = [Measured("test texts", cases.score(17.2), cases.score(14.7))]
    found = [
        plots.loss_plot(training),
        plots.rate_plot(training),
        plots.speed_plot(training),
        plots.memory_plot(training),
        plots.tokens_plot(PARTS, "repository"),
        plots.perplexity_plot(rows),
    ]
    return [plot for plot in found if plot]


def texts(plot: Plot) -> list[str]:
    return [element.text or "" for element in element_of(plot).iter("text")]


def element_of(plot: Plot) -> ElementTree.Element:
    return ElementTree.fromstring(plot.svg)


def paths_in(plot: Plot, colour: str) -> Iterable[str]:
    """Lines of a colour that have more than a few points."""
    for path in element_of(plot).iter("path"):
        if f"stroke: var({colour})" in path.get("style", "") and path.get("d", "").count("L") > 3:
            yield path.get("d", "")


def test_each_has_a_box_and_says_in_words_what_it_shows(drawn: list[Plot]) -> None:
    assert len(drawn) == 6
    for plot in drawn:
        svg = element_of(plot)
        assert [float(value) for value in svg.get("viewBox", "").split()][:3] == [0, 0, 374.4]
        assert svg.get("role") == "img"
        title, text = svg.get("aria-labelledby", "").split()
        told = {child.get("id"): child.text for child in svg if child.tag in ("title", "desc")}
        assert told == {title: plot.title, text: plot.alternative}
        assert "width" not in svg.attrib


def test_no_two_share_an_identifier(drawn: list[Plot]) -> None:
    found = [element.get("id") for plot in drawn for element in element_of(plot).iter() if element.get("id")]
    assert len(found) == len(set(found))
    for plot in drawn:
        own = {element.get("id") for element in element_of(plot).iter()}
        used = re.findall(r'(?:url\(#|href="#)([^")]+)', plot.svg)
        assert used
        assert set(used) <= own


def test_every_colour_is_the_pages(drawn: list[Plot]) -> None:
    for plot in drawn:
        assert not re.search(r"#[0-9a-f]{6}\b|rgb\(|black|white|currentColor", re.sub(r"<desc.*?</desc>", "", plot.svg))
        assert "font-family" not in plot.svg
        assert "<style" not in plot.svg
    assert "var(--before)" in drawn[5].svg
    assert "var(--after)" in drawn[5].svg


def test_the_same_figures_give_the_same_bytes(training: Training, drawn: list[Plot]) -> None:
    with matplotlib.rc_context(
        {"font.size": 30, "svg.fonttype": "path", "lines.linewidth": 9, "text.parse_math": True}
    ):
        assert plots.loss_plot(training) == drawn[0]


def test_the_loss_is_told_and_drawn(drawn: list[Plot], training: Training) -> None:
    loss = drawn[0]
    train, valid = training.curve("train"), training.curve("valid")
    assert loss.alternative == (
        f"training loss: {train.values[0]:.3f} at step 1, {train.values[-1]:.3f} at step 100, "
        f"between {min(train.values):.3f} and {max(train.values):.3f}; "
        f"validation loss: 4.000 at step 0, {valid.values[-1]:.3f} at step 100, "
        f"between {min(valid.values):.3f} and 4.000; the adapter is of step 80; 1 rollback."
    )
    assert [text for text in texts(loss) if text.isalpha() or " " in text] == [
        "optimizer step", "train", "mean of 10", "validation", "rollback", "taken",
    ]  # fmt: skip
    (line,) = paths_in(loss, "--after")
    points = [tuple(map(float, point.split())) for point in re.findall(r"[ML] ([\d.]+ [\d.]+)", line)]
    assert len(points) == len(valid.steps)
    # SVG's y grows downwards: a loss that falls is a line that goes down.
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points)


def test_a_curve_of_100000_steps_stays_small() -> None:
    spike = {"step_77777": {"loss": 50.0}}
    plot = plots.loss_plot(training_of(cases.events(100_000, every=100, **spike), planned=None, report={}))
    assert plot is not None
    assert "and 50.00" in plot.alternative
    assert len(plot.svg) < 60_000


def test_a_single_step_is_a_dot() -> None:
    plot = plots.loss_plot(training_of([{"step": 1, "kind": "train", "loss": 2.5, "tokens": 1}], planned=9, report={}))
    assert plot is not None
    assert plot.alternative == "training loss: 2.500 at step 1."
    assert "<use" in plot.svg


@pytest.mark.parametrize("value", [0.0, 1e300, -1e300, 1e-300])
def test_figures_of_any_size_are_drawn(value: float) -> None:
    events = [{"step": step, "kind": "train", "loss": value * step, "learning_rate": value} for step in (1, 2, 3)]
    training = training_of(events, planned=3, report={})
    for plot in (plots.loss_plot(training), plots.rate_plot(training)):
        assert plot is not None
        assert "nan" not in plot.svg.lower()


def test_nothing_is_drawn_of_nothing() -> None:
    empty = training_of([], planned=9, report={})
    for draw in (plots.loss_plot, plots.rate_plot, plots.speed_plot, plots.memory_plot):
        assert draw(empty) is None
    assert plots.tokens_plot((Part("empty", 3, 0, 0),), "repository") is None
    assert plots.perplexity_plot([]) is None


def test_the_largest_repositories_have_bars_of_their_own(drawn: list[Plot]) -> None:
    plot = drawn[4]
    assert texts(plot)[0::2] == [f"repository-{number}" for number in range(12)] + ["the 18 others together"]
    assert texts(plot)[1::2] == [f"{1000 - number:,}" for number in range(12)] + [f"{sum(range(971, 989)):,}"]
    assert len(list(element_of(plot).iterfind(".//path[@clip-path]"))) == 12
    assert plot.alternative == (
        "repository-0 1,000, repository-1 999, repository-2 998, repository-3 997, repository-4 996, and 8 more rows."
    )


def test_names_of_strangers_are_text() -> None:
    parts = [Part(name, 1, 1, 100) for name in cases.HOSTILE]
    plot = plots.tokens_plot(parts, "repository")
    assert plot is not None
    shown = texts(plot)[0::2]
    assert shown[0] == "<script>alert(1)</script>"
    assert shown[2] == "\"'`&amp;{{ 7 * 7 }}$x^2$\\"
    assert shown[3] == "abc\\u202egnp.exe\\u2066\\x1b[31m\\x00\\ud800"
    assert shown[4] == "w" * 24 + "…"
    assert shown[5] == "日本語" * 6 + "…"
    assert {element.tag for element in element_of(plot).iter()} <= {
        "svg", "title", "desc", "defs", "g", "path", "use", "text", "clipPath", "rect",
    }  # fmt: skip


def test_intervals_are_told(drawn: list[Plot]) -> None:
    assert drawn[5].alternative == "test texts: before 17.20 (16.51 to 17.89), after 14.70 (14.11 to 15.29)."
    bare = plots.perplexity_plot([Measured("A", cases.score(5.0, None), cases.score(4.0, None))])
    assert bare is not None
    assert bare.alternative == "A: before 5.000, after 4.000."


@pytest.mark.parametrize("perplexity", [math.inf, math.nan, 1e300])
def test_a_perplexity_that_is_no_number_is_told(perplexity: float) -> None:
    worse = Score(perplexity, math.inf, 10, 2, Interval(perplexity, perplexity))
    plot = plots.perplexity_plot([Measured("A", cases.score(5.0), worse)])
    assert plot is not None
    assert ("after not finite (not finite to not finite)" in plot.alternative) == (perplexity != 1e300)
    assert "before" in texts(plot)


def test_the_hostile_run_is_drawn(hostile: Facts) -> None:
    assert hostile.training is not None
    assert hostile.training.not_finite == (10, 11)
    loss = plots.loss_plot(hostile.training)
    assert loss is not None
    assert "2 losses not finite" in loss.alternative
    assert "and 99.00" in loss.alternative
