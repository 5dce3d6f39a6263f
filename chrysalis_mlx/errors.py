"""Every mistake a user can make is one of these exceptions.

    ChrysalisError
    ├── UsageError        options that contradict each other or the run     (exit status 2)
    ├── GenomeError       a genome or one of its sources
    ├── BlueprintError    a blueprint file; carries all its problems at once
    ├── ModelError        a model directory, Hub id or GGUF file
    ├── CorpusError       nothing left to train on, or rows that do not fit
    ├── RunError          a run directory of something else, or a stage out of order
    ├── BackendError      a framework that is missing or cannot do what is asked
    ├── TrainingError     a training run that cannot go on
    ├── ExportError       fusing, quantizing or writing a model
    │   └── VerificationError   the exported file does not do what the trained model does
    └── HubError          the Hugging Face Hub, which does not take what is sent

Anything else that escapes is a bug in chrysalis-mlx and is shown with its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence


class ChrysalisError(Exception):
    """What is wrong, where, and what to do about it.

    Args:
        what: one sentence naming the problem.
        where: file, line, YAML path or tensor, when there is one.
        fix: what the user can do next.
    """

    exit_status = 1

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  to do: {self.fix}")
        return "\n".join(lines)


class UsageError(ChrysalisError):
    """Options that contradict each other or the run they are used on."""

    exit_status = 2


class GenomeError(ChrysalisError):
    """A genome file that cannot be read or built."""


class BlueprintError(ChrysalisError):
    """A blueprint that cannot be used.

    Args:
        problems: one line each: YAML path, value and fix.
    """

    def __init__(
        self, what: str, problems: Sequence[str] = (), *, where: object = None, fix: str | None = None
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  - {problem}" for problem in self.problems)])


class ModelError(ChrysalisError):
    """A model directory, Hub id or GGUF file that cannot be used."""


class CorpusError(ChrysalisError):
    """A corpus that is empty, damaged or does not fit the model."""


class RunError(ChrysalisError):
    """A run directory that belongs to something else, or a stage called too early."""


class BackendError(ChrysalisError):
    """A framework that is missing or cannot do what is asked."""


class TrainingError(ChrysalisError):
    """A training run that cannot go on."""


class ExportError(ChrysalisError):
    """Fusing, quantizing or writing a model failed."""


class VerificationError(ExportError):
    """An exported file does not behave like the model that was trained."""


class HubError(ChrysalisError):
    """The Hub cannot be reached, or does not take what is sent."""
