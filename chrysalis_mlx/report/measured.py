"""The perplexities of an evaluation that are told again and again: of the test texts and of the general text."""

from __future__ import annotations

from dataclasses import dataclass

from chrysalis_mlx.evaluation.results import Change, Evaluation, Score


@dataclass(frozen=True)
class Measured:
    """The perplexity of the same texts before and after the training.

    Attributes:
        name: what the texts are called where they are told, or the run that they are of; a name of our own.
        change: after / before.
    """

    name: str
    before: Score
    after: Score
    change: Change | None = None


def of_test(evaluation: Evaluation, name: str) -> Measured:
    """The test texts, under this name."""
    before, after = evaluation.base.test.overall, evaluation.tuned.test.overall
    return Measured(name, before, after, evaluation.changes.get("test"))


def of_general(evaluation: Evaluation, name: str) -> Measured | None:
    """The general text, under this name; None where it was not measured."""
    before, after = evaluation.base.general, evaluation.tuned.general
    return Measured(name, before, after, evaluation.changes.get("general")) if before and after else None
