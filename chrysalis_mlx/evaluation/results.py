"""What an evaluation says: the content of evaluation.json, typed.

A *subject* is what was measured: `base`, `tuned`, and every GGUF file, by its type. All of them answer the same
questions; a file is asked fewer tokens, because llama.cpp tells one position at a time.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import RunError
from chrysalis_mlx.records import read_record

FORMAT = "1"
"""Of evaluation.json; raise it with every change to it that a reader of an older one does not understand."""


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of the bootstrap's resamples."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}"


@dataclass(frozen=True)
class Score:
    """How well a set of texts is predicted.

    Attributes:
        perplexity: exp(loss).
        loss: mean −log p per target, in nats.
        targets: how many tokens were predicted.
        documents: how many documents they come from; the bootstrap draws whole documents.
        interval: of the perplexity; None of fewer than two documents.
    """

    perplexity: float
    loss: float
    targets: int
    documents: int
    interval: Interval | None = None


@dataclass(frozen=True)
class Change:
    """Perplexity of a subject over that of another on the same tokens; below 1 it predicts better.

    Attributes:
        ratio: of the perplexities.
        interval: of the ratio, from the same resamples of both; None of fewer than two documents.
    """

    ratio: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Texts:
    """Scores of one set of texts, as a whole and by where they come from."""

    overall: Score
    repositories: Mapping[str, Score] = field(default_factory=dict)
    framings: Mapping[str, Score] = field(default_factory=dict)


@dataclass(frozen=True)
class Continuation:
    """How a subject goes on from the beginning of a text, greedily.

    Attributes:
        source: train or held_out, where the beginning is from.
        repository, path: of the text.
        prompt: the beginning.
        text: what the subject wrote.
        expected: how the text itself goes on, about as far.
        copied: longest run of characters, in `text` and verbatim in the corpus of `source`, that the prompt lacks.
    """

    source: str
    repository: str
    path: str
    prompt: str
    text: str
    expected: str
    copied: int


@dataclass(frozen=True)
class Copying:
    """Which share of the continuations of one source copies `COPIED` or more characters of it verbatim."""

    continuations: int
    copies: int
    longest: int

    @property
    def share(self) -> float:
        return self.copies / self.continuations if self.continuations else 0.0


@dataclass(frozen=True)
class Answer:
    """A fixed prompt, answered greedily and drawn with the seed."""

    prompt: str
    greedy: str
    sampled: str


@dataclass(frozen=True)
class Subject:
    """What was measured of one model.

    Attributes:
        name: base, tuned or a GGUF type.
        test: held-out texts of the corpus.
        general: the built-in general text; None where the blueprint wants none.
        copying: by source, train and held_out; empty where nothing was continued.
        continuations: behind `copying`.
        answers: to the blueprint's prompts.
        against: of a file: against the tuned model on the very tokens that the file was measured on, `test` and
            `general`.
        file: of a file: its path in the run.
    """

    name: str
    test: Texts
    general: Score | None = None
    copying: Mapping[str, Copying] = field(default_factory=dict)
    continuations: tuple[Continuation, ...] = ()
    answers: tuple[Answer, ...] = ()
    against: Mapping[str, Change] = field(default_factory=dict)
    file: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """evaluation.json.

    Attributes:
        backend: that base and tuned ran on.
        base, tuned: before and after the training.
        files: GGUF type -> what llama.cpp makes of the file.
        changes: tuned over base, of `test` and `general`.
        settings: the blueprint's section `evaluation`.
    """

    backend: str
    base: Subject
    tuned: Subject
    files: Mapping[str, Subject] = field(default_factory=dict)
    changes: Mapping[str, Change] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Base, tuned, and the files."""
        return (self.base, self.tuned, *self.files.values())

    def as_dict(self) -> dict[str, Any]:
        """As evaluation.json has it."""
        return dataclasses.asdict(self)


def read_evaluation(path: Path) -> Evaluation:
    """The content of an evaluation.json.

    Raises:
        RunError: it is not there, damaged, or of another version.
    """
    fix = f"measure again: chrysalis-mlx eval {path.parent}"
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError("evaluation.json is missing", where=path, fix=fix) from None
    try:
        return read_record(Evaluation, json.loads(content))
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(
            "evaluation.json is damaged, or of another version", where=f"{path}: {error}", fix=fix
        ) from error
