"""What the models write, side by side: answers to the same prompts, continuations of the same texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chrysalis_mlx.evaluation.results import Answer, Continuation, Subject
from chrysalis_mlx.report.tables import name_of


@dataclass(frozen=True)
class Answered:
    """A prompt and what each model answers, by its name on the page."""

    prompt: str
    answers: tuple[tuple[str, Answer], ...]


@dataclass(frozen=True)
class Continued:
    """The beginning of a text, how it goes on, and how each model goes on.

    Attributes:
        copied: longest copied run of each model's, in characters.
    """

    source: str
    origin: str
    prompt: str
    expected: str
    written: tuple[tuple[str, Continuation], ...]

    @property
    def copied(self) -> dict[str, int]:
        return {name: continuation.copied for name, continuation in self.written}


def answered(named: Iterable[tuple[str, Subject]]) -> list[Answered]:
    """Every prompt, in order, with what each of these models, by its name on the page, answers."""
    found: dict[str, list[tuple[str, Answer]]] = {}
    for name, subject in named:
        for answer in subject.answers:
            found.setdefault(answer.prompt, []).append((name, answer))
    return [Answered(prompt, tuple(answers)) for prompt, answers in found.items()]


def continued(subjects: Sequence[Subject]) -> list[Continued]:
    """Every beginning; those that a model copies most from first."""
    found: dict[tuple[str, str, str, str], list[tuple[str, Continuation]]] = {}
    for subject in subjects:
        for item in subject.continuations:
            found.setdefault((item.source, item.repository, item.path, item.prompt), []).append(
                (name_of(subject), item)
            )
    told = [
        Continued(source, "/".join(filter(None, (repository, path))), prompt, written[0][1].expected, tuple(written))
        for (source, repository, path, prompt), written in found.items()
    ]
    return sorted(told, key=lambda item: (item.source != "train", -max(item.copied.values())))
