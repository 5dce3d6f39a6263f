"""Every question put to one subject, piece by piece, so that it can stop and go on anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.evaluation.journal import Journal
from chrysalis_mlx.evaluation.predictors import Array, Predictor
from chrysalis_mlx.evaluation.prompts import Prompt
from chrysalis_mlx.evaluation.texts import Questions, Text
from chrysalis_mlx.progress import Progress, silent

# What is told of in one progress bar: a token that is read takes much less time than one that is written.
_BARS = {"reads": ("test", "general"), "writes": ("continuations", "answers")}
_CUT = "cut"  # where a journal keeps why a text was cut short

LogProbs = Mapping[int, npt.NDArray[np.float64]]
"""Number of a text -> (n,) log p, in nats, of its targets."""


Opened = Callable[[], AbstractContextManager[Predictor]]
"""Gives the model to ask; what it holds is let go of at the end."""


@dataclass(frozen=True)
class Found:
    """What a subject answered.

    Attributes:
        test, general: of the texts.
        continuations: token ids, by beginning.
        answers: token ids of the greedy and of the drawn answer, by prompt.
        cut: why a continuation or an answer was cut short; None where none was.
    """

    test: LogProbs
    general: LogProbs
    continuations: Sequence[Sequence[int]]
    answers: Sequence[tuple[Sequence[int], Sequence[int]]]
    cut: str | None = None


@dataclass(frozen=True)
class _Work:
    """A piece of work.

    Attributes:
        name: in the journal; its first word is the kind.
        tokens: that are read, or written at most.
        answer: does it.
    """

    name: str
    tokens: int
    answer: Callable[[Predictor], Any]

    @property
    def kind(self) -> str:
        return self.name.split()[0]


def ask(
    questions: Questions,
    opened: Opened,
    journal: Journal,
    *,
    rows_together: int,
    texts_together: int,
    limit: int,
    description: str,
    progress: Progress = silent,
) -> Found:
    """Put to a subject what its journal does not know yet; the model is opened only if there is something.

    Args:
        rows_together: packed rows that are predicted together.
        texts_together: texts that are continued together.
        limit: tokens of a continuation.
        description: of the subject, for the progress bars.
    """
    works = list(_works(questions, rows_together, texts_together, limit))
    if any(work.name not in journal for work in works):
        with opened() as predictor:
            for verb, kinds in _BARS.items():
                own = [work for work in works if work.kind in kinds]
                _do(own, predictor, journal, f"{description} {verb}", progress)
    return _found(works, journal)


def _do(works: Sequence[_Work], predictor: Predictor, journal: Journal, description: str, progress: Progress) -> None:
    left = [work for work in works if work.name not in journal]
    if not left:
        return
    total, to_do = (sum(work.tokens for work in some) for some in (works, left))
    with progress(description, total, completed=total - to_do, unit="token") as bar:
        for work in left:
            journal.get(work.name, partial(work.answer, predictor))
            if predictor.cut:
                journal.get(_CUT, lambda: predictor.cut)
            bar.update(work.tokens)


def _works(questions: Questions, rows_together: int, texts_together: int, limit: int) -> Iterator[_Work]:
    """Every piece of work, in the order in which it is done."""
    for name, rows in (("test", questions.test), ("general", questions.general)):
        for at in range(0, len(rows), rows_together):
            part = rows[at : at + rows_together]
            tokens = sum(len(text.segment.tokens) for row in part for text in row)
            yield _Work(f"{name} {at}", tokens, partial(_predicted, rows=part))
    for at in range(0, len(questions.beginnings), texts_together):
        begun = [beginning.tokens for beginning in questions.beginnings[at : at + texts_together]]
        yield _Work(f"continuations {at}", len(begun) * limit, partial(_continued, beginnings=begun, limit=limit))
    for number, prompt in enumerate(questions.prompts):
        yield _Work(f"answers {number}", 2 * prompt.limit, partial(_answered, prompt=prompt))


def _continued(predictor: Predictor, *, beginnings: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
    return predictor.continuations(beginnings, limit)


def _answered(predictor: Predictor, *, prompt: Prompt) -> tuple[list[int], list[int]]:
    return predictor.answers(prompt)


def _predicted(predictor: Predictor, *, rows: Sequence[Sequence[Text]]) -> dict[int, list[float]]:
    found = predictor.target_logprobs([[text.segment for text in row] for row in rows])
    return {
        text.number: _shortest(values)
        for row, own in zip(rows, found, strict=True)
        for text, values in zip(row, own, strict=True)
    }


def _shortest(values: Array) -> list[float]:
    """Numbers whose decimals are as few as say which float32 each is."""
    return [float(str(value)) for value in values]


def _found(works: Sequence[_Work], journal: Journal) -> Found:
    def of(kind: str) -> list[Any]:
        return [journal[work.name] for work in works if work.kind == kind]

    test, general = (
        {int(number): np.array(values, np.float64) for part in of(kind) for number, values in part.items()}
        for kind in ("test", "general")
    )
    continuations = [tokens for part in of("continuations") for tokens in part]
    answers = [(greedy, sampled) for greedy, sampled in of("answers")]
    found = Found(test, general, continuations, answers)
    return replace(found, cut=journal[_CUT]) if _CUT in journal else found
