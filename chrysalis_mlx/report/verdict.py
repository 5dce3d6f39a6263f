"""What a report says first: how a run turned out, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from chrysalis_mlx.evaluation.results import Evaluation
from chrysalis_mlx.export.results import Exports
from chrysalis_mlx.report.facts import Facts
from chrysalis_mlx.report.measured import Measured, of_general, of_test
from chrysalis_mlx.report.words import figure, interval, listed, plural

_STAGES = {"corpus": "corpus", "train": "training", "eval": "evaluation", "fuse": "export"}


def verdict(facts: Facts) -> str:
    """Perplexity, general text, copying, files: as far as they are known; else how far the run has come."""
    parts = [*_standing(facts)]
    if facts.evaluation:
        parts += _measured(facts.evaluation)
    elif facts.training:
        parts += _trained(facts)
    if facts.exports:
        parts.append(_files(facts.exports))
    return listed(parts)


def stage_title(name: str) -> str:
    """What a stage is called in a sentence."""
    return _STAGES[name]


def _standing(facts: Facts) -> Iterator[str]:
    """Where a run stands that is not done."""
    title = stage_title(facts.stage)
    if facts.state == "begun":
        done = facts.stages.index(facts.stage_of(facts.stage))
        yield f"the {title} comes next" if done else "nothing has been done yet"
    elif facts.state == "failed":
        reason = (facts.reason or "").strip().split("\n")[0]
        yield f"the {title} failed" + (f": {reason}" if reason else "")
    elif facts.state == "interrupted":
        yield f"the {title} was interrupted"
    elif facts.state in ("running", "paused"):
        yield f"the {title} is {'paused' if facts.state == 'paused' else 'under way'}"


def _measured(evaluation: Evaluation) -> Iterator[str]:
    yield _moved(of_test(evaluation, "test perplexity"))
    if general := of_general(evaluation, "perplexity of general text"):
        yield _moved(general)
    if found := evaluation.tuned.copying.get("train"):
        copies = f"{found.copies:,} of {plural(found.continuations, 'continuation')} of training texts"
        yield f"{copies} {'copies' if found.copies == 1 else 'copy'} a long passage of them"


def _moved(measured: Measured) -> str:
    """Whether a perplexity fell or rose; where the interval holds 1, that it cannot be told."""
    what, before, after, change = measured.name, measured.before, measured.after, measured.change
    first, last = figure(before.perplexity), figure(after.perplexity)
    told = f"fell from {first} to {last}" if after.perplexity < before.perplexity else f"rose from {first} to {last}"
    if first == last:
        told = f"stayed at {first}"
    if change is None:
        return f"{what} {told}"
    spread = change.interval
    ratio = f"ratio {figure(change.ratio, 3)}" + (f", 95 % {interval(spread, 3)}" if spread else "")
    if spread and spread.low <= 1 <= spread.high:
        told = told if first == last else f"went from {first} to {last}"
        return f"{what} {told} ({ratio}: no change that could be told from chance)"
    return f"{what} {told} ({ratio})"


def _trained(facts: Facts) -> Iterator[str]:
    training = facts.training
    assert training is not None
    of = f" of {training.planned:,}" if training.is_unfinished else ""
    losses = training.curve("valid").values
    told = f", validation loss from {figure(losses[0])} to {figure(losses[-1])}" if len(losses) > 1 else ""
    yield f"{training.done:,}{of} steps are trained{told}"


def _files(exports: Exports) -> str:
    number = len(exports.files)
    if number == exports.verified:
        return f"all {number:,} files verified" if number > 1 else f"{plural(number, 'file')} verified"
    failed = sum(file.verdict == "failed" for file in exports.files)
    return f"{exports.verified:,} of {plural(number, 'file')} verified" + (f", {failed:,} failed" if failed else "")
