"""Several runs side by side: what is different in them, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chrysalis_mlx.errors import UsageError
from chrysalis_mlx.evaluation.results import Evaluation, Score
from chrysalis_mlx.export.results import ExportedFile
from chrysalis_mlx.report import plots, samples, tables
from chrysalis_mlx.report.curves import Training
from chrysalis_mlx.report.facts import Facts
from chrysalis_mlx.report.measured import Measured, of_general, of_test
from chrysalis_mlx.report.page import render, telling_damage
from chrysalis_mlx.report.samples import Answered
from chrysalis_mlx.report.svg import Plot
from chrysalis_mlx.report.tables import Cell, Table
from chrysalis_mlx.report.verdict import verdict
from chrysalis_mlx.report.words import NONE, count, duration, figure, gibibytes, megabytes, share

LETTERS = "ABCDEF"


@dataclass(frozen=True)
class Compared:
    """A run in a comparison: the letter it is called by, what is known of it, and its verdict."""

    letter: str
    facts: Facts
    verdict: str


@telling_damage()
def comparison_page(runs: Sequence[Facts], *, live: bool = False, state: str = "") -> str:
    """The page of several runs.

    Raises:
        UsageError: fewer than two, or more than there are letters.
        RunError: a record holds what cannot be shown.
    """
    if not 2 <= len(runs) <= len(LETTERS):
        raise UsageError(f"{len(runs)} runs cannot be compared", fix=f"name from 2 to {len(LETTERS)} of them")
    compared = [Compared(letter, facts, verdict(facts)) for letter, facts in zip(LETTERS, runs, strict=False)]
    return render(
        "comparison.html.jinja",
        live=live,
        state=state,
        compared=compared,
        warnings=list(_warnings(runs)),
        summary=_summary(compared),
        settings=_settings(compared),
        curves=_curves(compared),
        measured=_measured(compared),
        files=_files(compared),
        parts=_parts(compared),
        answered=_answered(compared),
    )


def differences(runs: Sequence[Facts]) -> dict[str, tuple[Any, ...]]:
    """Settings of the blueprints that are not the same in all runs: dotted path to the value of each."""
    names = dict.fromkeys(name for facts in runs for name in facts.settings)
    found = {name: tuple(facts.settings.get(name) for facts in runs) for name in names}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}


def _warnings(runs: Sequence[Facts]) -> Iterator[str]:
    """What stands against comparing the figures."""
    texts, tokenizers = ({facts.tests[place] for facts in runs} for place in (0, 1))
    if len(texts) > 1:
        yield "The runs have different test texts: their test perplexities are of different tasks."
    if len(tokenizers) > 1:
        yield "The models have different tokenizers: losses and perplexities, which are per token, cannot be compared."


def _heads(compared: Sequence[Compared]) -> tuple[str, ...]:
    return tuple(f">{run.letter}" for run in compared)


def _summary(compared: Sequence[Compared]) -> Table:
    """Every figure that at least one run has."""
    rows = [(name, *(read(run.facts) for run in compared)) for name, read in _FIGURES]
    told = tuple(row for row in rows if any(cell not in (NONE, "") for cell in row[1:]))
    return Table("The runs in figures", ("", *_heads(compared)), told)


def _settings(compared: Sequence[Compared]) -> Table:
    found = differences([run.facts for run in compared])
    rows = tuple((name, *map(tables.written, values)) for name, values in found.items())
    return Table("Settings that differ", ("setting", *(run.letter for run in compared)), rows)


def _curves(compared: Sequence[Compared]) -> list[Plot]:
    trained = [(run.letter, run.facts.training) for run in compared if run.facts.training]

    def of(read: Callable[[Training], Any]) -> list[tuple[str, Any]]:
        return [(letter, read(training)) for letter, training in trained]

    drawn = (
        plots.compared_curves("valid", "Validation loss (nats per token)", of(lambda t: t.curve("valid")), marked=True),
        plots.compared_curves("train", "Training loss, smoothed (nats per token)", of(_smoothed)),
        plots.compared_curves("rate", "Learning rate", of(lambda t: t.curve("learning_rate")), figure_of=plots.rate),
        plots.compared_curves(
            "speed", "Speed (tokens per second)", of(lambda t: t.curve("tokens_per_second")), figure_of=count
        ),
    )
    return [plot for plot in drawn if plot]


def _smoothed(training: Training) -> Any:
    return training.curve("train_mean") or training.curve("train")


def _measured(compared: Sequence[Compared]) -> list[tuple[str, Plot]]:
    """Perplexity of test and general texts, where they were measured."""
    evaluated = [(run.letter, run.facts.evaluation) for run in compared if run.facts.evaluation]

    def plot(of: Callable[[Evaluation, str], Measured | None], key: str) -> Plot | None:
        return plots.perplexity_plot([row for letter, found in evaluated if (row := of(found, letter))], key)

    drawn = (
        ("Test texts", plot(of_test, "perplexity-test")),
        ("General text", plot(of_general, "perplexity-general")),
    )
    return [(name, plot) for name, plot in drawn if plot]


def _files(compared: Sequence[Compared]) -> Table:
    """KL and size of every type of file."""
    exports = [{file.type: file for file in run.facts.exports.files} if run.facts.exports else {} for run in compared]
    types = dict.fromkeys(name for files in exports for name in files)

    def cell(file: ExportedFile | None) -> Cell:
        return (f"KL {figure(file.kl, 2)}", f"{megabytes(file.bytes)}, {file.verdict}") if file else NONE

    rows = tuple((name, *(cell(files.get(name)) for files in exports)) for name in types)
    return Table("Exported files", ("file", *_heads(compared)), rows)


def _parts(compared: Sequence[Compared]) -> Table:
    """Tokens of every repository or file of which the runs have not the same."""
    tokens = [
        {part.name: part.tokens for part in run.facts.material.parts} if run.facts.material else {} for run in compared
    ]
    names = dict.fromkeys(name for found in tokens for name in found)
    rows = tuple(
        (name, *(count(found.get(name)) for found in tokens))
        for name in names
        if any(found.get(name) != tokens[0].get(name) for found in tokens)
    )
    return Table("Tokens that differ", ("repository or file", *_heads(compared)), rows)


def _answered(compared: Sequence[Compared]) -> list[Answered]:
    """What the trained models answer to the prompts that at least two runs have."""
    tuned = ((run.letter, run.facts.evaluation.tuned) for run in compared if run.facts.evaluation)
    return [item for item in samples.answered(tuned) if len(item.answers) > 1]


def _score(read: Callable[[Evaluation], Score | None]) -> Callable[[Facts], Cell]:
    return lambda facts: tables.scored(read(facts.evaluation)) if facts.evaluation else NONE


def _change(name: str) -> Callable[[Facts], Cell]:
    return lambda facts: tables.ratio(facts.evaluation.changes.get(name)) if facts.evaluation else NONE


def _copies(source: str) -> Callable[[Facts], Cell]:
    def cell(facts: Facts) -> Cell:
        found = facts.evaluation.tuned.copying.get(source) if facts.evaluation else None
        return (f"{found.copies:,} of {found.continuations:,}", f"longest {found.longest:,}") if found else NONE

    return cell


def _training(write: Callable[[Training], str]) -> Callable[[Facts], Cell]:
    return lambda facts: write(facts.training) if facts.training else NONE


_FIGURES: tuple[tuple[str, Callable[[Facts], Cell]], ...] = (
    ("state", lambda facts: facts.state),
    ("model", lambda facts: facts.model),
    ("blueprint", lambda facts: facts.blueprint),
    ("texts expressed", lambda facts: count(facts.material.expressed) if facts.material else NONE),
    ("tokens to train on", lambda facts: count(facts.material.sides[0].tokens) if facts.material else NONE),
    ("optimizer steps", _training(lambda training: count(training.done))),
    ("tokens learned from", _training(lambda training: count(training.tokens))),
    ("time of the steps", _training(lambda training: duration(training.seconds or None))),
    ("tokens per second", _training(lambda training: count(training.speed))),
    ("peak memory", _training(lambda training: gibibytes(training.peak_memory))),
    ("trained parameters", _training(lambda training: count(training.report.get("adapter_parameters")))),
    ("last validation loss", _training(lambda training: figure(training.last("valid")))),
    ("test perplexity before", _score(lambda evaluation: evaluation.base.test.overall)),
    ("test perplexity after", _score(lambda evaluation: evaluation.tuned.test.overall)),
    ("test, after / before", _change("test")),
    ("general perplexity before", _score(lambda evaluation: evaluation.base.general)),
    ("general perplexity after", _score(lambda evaluation: evaluation.tuned.general)),
    ("general, after / before", _change("general")),
    ("copies of training texts", _copies("train")),
    ("copies of held-out texts", _copies("held_out")),
    (
        "files verified",
        lambda facts: f"{facts.exports.verified} of {len(facts.exports.files)}" if facts.exports else NONE,
    ),
    ("overlap of the test texts", lambda facts: share(_overlap(facts))),
)


def _overlap(facts: Facts) -> float | None:
    sides = facts.material.sides if facts.material else ()
    return next((side.contaminated for side in sides if side.name == "test"), None)
