"""What a model card says of an evaluation: what was learned, what was forgotten, and what is repeated by heart."""

from __future__ import annotations

from collections.abc import Iterator

from chrysalis_mlx.evaluation.copying import COPIED
from chrysalis_mlx.evaluation.results import Change, Evaluation, Interval, Subject
from chrysalis_mlx.export.lineage.markdown import table

_SOURCES = {"train": "trained on", "held_out": "kept out of the training"}


def told(evaluation: Evaluation | None) -> Iterator[str]:
    """The section `Evaluation`; nothing without one."""
    if evaluation is None:
        return
    base, tuned, whole = evaluation.base, evaluation.tuned, evaluation.tuned.test.overall
    yield "## Evaluation"
    yield ""
    yield f"On {whole.targets:,} tokens of {whole.documents:,} documents that were kept out of the training:"
    yield ""
    rows = [
        (item.name, f"{score.perplexity:.3f}", _interval(score.interval), f"{score.loss:.4f}")
        for item, score in ((base, base.test.overall), (tuned, whole))
    ]
    yield from table(("model", ">perplexity", ">95 % interval", ">nats per token"), rows)
    if base.general and tuned.general and "general" in evaluation.changes:
        yield (
            f"On {tuned.general.targets:,} tokens of general English the perplexity went from "
            f"{base.general.perplexity:.3f} to {tuned.general.perplexity:.3f}, "
            f"{_times(evaluation.changes['general'])}; above 1 it has forgotten."
        )
        yield ""
    if tuned.copying:
        yield f"Continuations of a text's beginning that repeat {COPIED} characters or more of such texts verbatim:"
        yield ""
        copied = [(_SOURCES[source], _copies(base, source), _copies(tuned, source)) for source in tuned.copying]
        yield from table(("texts", ">base", ">tuned"), copied)


def _copies(subject: Subject, source: str) -> str:
    found = subject.copying[source]
    return f"{found.copies} of {found.continuations}"


def _times(change: Change) -> str:
    interval = f" ({_interval(change.interval)})" if change.interval else ""
    return f"{change.ratio:.3f} times{interval}"


def _interval(interval: Interval | None) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}" if interval else ""
