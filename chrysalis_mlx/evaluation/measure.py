"""Every question put to one subject, piece by piece, so that it can stop and go on anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.evaluation.journal import Journal
from chrysalis_mlx.evaluation.predictors import Array, Predictor
from chrysalis_mlx.evaluation.prompts import Prompt
from chrysalis_mlx.evaluation.texts import Questions, Text
from chrysalis_mlx.progress import Progress, silent

_TOGETHER = 8  # continuations that run as one batch

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
    """

    test: LogProbs
    general: LogProbs
    continuations: Sequence[Sequence[int]]
    answers: Sequence[tuple[Sequence[int], Sequence[int]]]


def ask(
    questions: Questions,
    opened: Opened,
    journal: Journal,
    *,
    batch_size: int,
    limit: int,
    description: str,
    progress: Progress = silent,
) -> Found:
    """Put to a subject what its journal does not know yet; the model is opened only if there is something.

    Args:
        batch_size: packed rows that are predicted together.
        limit: tokens of a continuation.
        description: of the subject, for the progress bar.
    """
    works = dict(_works(questions, batch_size, limit))
    left = [work for work in works if work not in journal]
    with contextlib.ExitStack() as stack:
        predictor = stack.enter_context(opened()) if left else None
        if predictor is not None:
            bar = stack.enter_context(progress(description, len(works), completed=len(works) - len(left), unit="part"))
            for work in left:
                journal.get(work, partial(works[work], predictor))
                bar.update()
    return _found(works, journal)


def _works(questions: Questions, batch_size: int, limit: int) -> Iterator[tuple[str, Callable[[Predictor], Any]]]:
    """Every piece of work by its name, in the order in which it is done."""
    for name, rows in (("test", questions.test), ("general", questions.general)):
        for at in range(0, len(rows), batch_size):
            part = rows[at : at + batch_size]
            yield f"{name} {at}", partial(_predicted, rows=part)
    for at in range(0, len(questions.beginnings), _TOGETHER):
        tokens = [beginning.tokens for beginning in questions.beginnings[at : at + _TOGETHER]]
        yield f"continuations {at}", partial(_continued, beginnings=tokens, limit=limit)
    for number, prompt in enumerate(questions.prompts):
        yield f"answers {number}", partial(_answered, prompt=prompt)


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


def _found(works: Mapping[str, object], journal: Journal) -> Found:
    def of(kind: str) -> list[Any]:
        return [journal[work] for work in works if work.split()[0] == kind]

    test, general = (
        {int(number): np.array(values, np.float64) for part in of(kind) for number, values in part.items()}
        for kind in ("test", "general")
    )
    continuations = [tokens for part in of("continuations") for tokens in part]
    return Found(test, general, continuations, [(greedy, sampled) for greedy, sampled in of("answers")])
