"""What `eval` tells people: the figures of every subject in one table, and where the training changed most."""

from __future__ import annotations

import math
from collections.abc import Mapping

from chrysalis_mlx.cli.output import out, say, table
from chrysalis_mlx.evaluation.copying import COPIED
from chrysalis_mlx.evaluation.results import Change, Evaluation, Interval, Score, Subject
from chrysalis_mlx.report.words import plural

_SHOWN = 10  # repositories, or framings, of which each is told


def show_evaluation(evaluation: Evaluation) -> None:
    """Print an evaluation; all of it fits into 80 columns."""
    changed = {"tuned": evaluation.changes, **{name: item.against for name, item in evaluation.files.items()}}
    rows = [_row(item, changed.get(item.name, {}).get("test")) for item in evaluation.subjects]
    out().print(table("model", ">test perplexity", ">ratio", ">general", ">copies", rows=rows))
    whole = evaluation.tuned.test.overall
    documents = plural(whole.documents, "document")
    say(f"test: {whole.targets:,} tokens of {documents}; ratio: tuned over base; in brackets: 95 %")
    few = next(iter(evaluation.files.values()), None)
    if few:
        say(f"files: {few.test.overall.targets:,} of these tokens; ratio: over tuned on the very same")
    general = evaluation.changes.get("general")
    if general:
        times = f"{_figure(general.ratio)} times the base's{_brackets(general.interval)}"
        say(f"forgetting: general English at {times}")
    if evaluation.tuned.copying:
        say(f"copies: {COPIED} characters and more verbatim from train, and from held-out texts")
    base, tuned = evaluation.base.test, evaluation.tuned.test
    _show_changes("repository", base.repositories, tuned.repositories)
    _show_changes("framing", base.framings, tuned.framings)
    if evaluation.tuned.answers or evaluation.tuned.continuations:
        say("answers before and after, continuations and all figures: evaluation.json")


def _row(subject: Subject, change: Change | None) -> tuple[str, ...]:
    score = subject.test.overall
    copies = (f"{found.copies}/{found.continuations}" for found in subject.copying.values())
    return (
        subject.name,
        f"{_figure(score.perplexity)}{_brackets(score.interval)}",
        f"{_figure(change.ratio)}{_brackets(change.interval)}" if change else "",
        _figure(subject.general.perplexity) if subject.general else "",
        " ".join(copies),
    )


def _show_changes(what: str, base: Mapping[str, Score], tuned: Mapping[str, Score]) -> None:
    """Perplexities before and after of each of several parts, the largest change first; of a single one nothing."""
    names = [name for name in tuned if name in base]
    if len(names) < 2:
        return
    ratios = {name: tuned[name].perplexity / base[name].perplexity for name in names}
    names.sort(key=lambda name: -_size(ratios[name]))
    rows = [
        (name, *(_figure(score[name].perplexity) for score in (base, tuned)), _figure(ratios[name]), base[name].targets)
        for name in names[:_SHOWN]
    ]
    out().print(table(what, ">base", ">tuned", ">ratio", ">tokens", rows=rows))
    if len(names) > _SHOWN:
        say(f"and {len(names) - _SHOWN:,} more, see evaluation.json")


def _size(ratio: float) -> float:
    """How far a ratio is from 1, either way; what is no number is farthest."""
    return abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf


def _brackets(interval: Interval | None) -> str:
    return f" [{_figure(interval.low)}, {_figure(interval.high)}]" if interval else ""


def _figure(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= value < 1e6 else f"{value:.4g}"
