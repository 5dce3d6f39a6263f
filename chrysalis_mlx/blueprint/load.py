"""YAML to `Blueprint` and back. Unknown keys are errors, and all errors of a file come at once."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from chrysalis_mlx.blueprint.schema import (
    VERSION,
    AdapterSection,
    Blueprint,
    ExportSection,
    ExpressionSection,
    FramingSection,
    MatchSection,
    SplitSection,
    TrainingSection,
)
from chrysalis_mlx.config import from_plain, read_yaml, to_plain
from chrysalis_mlx.errors import BlueprintError
from chrysalis_mlx.gguf.quantize import TYPES

_YAML_LINE_ENDS = "\x85\u2028\u2029"

# Fields of version 1 -> where version 2 has them.
_MOVED = {
    ("expression", "min_characters"): "expression.gates.min_characters",
    ("framing", "kind"): "framing.mix ({text: 1} for text)",
}

REPORTERS = ("tensorboard", "wandb", "trackio")
_OF_ADAPTERS = ("rslora", "dropout", "modules", "ranks", "alphas")
_NOT_OF_OPTIMIZER = {"adafactor": ("beta1", "beta2", "epsilon"), "lion": ("epsilon",)}


def load_blueprint(path: Path) -> Blueprint:
    """Read and check one blueprint file.

    Raises:
        BlueprintError: not readable, not YAML, or any number of wrong fields, each with YAML path, value and fix.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BlueprintError(
            f"the blueprint cannot be read: {error}", where=path, fix="see: chrysalis-mlx blueprint list"
        ) from error
    return parse_blueprint(text, where=str(path))


def parse_blueprint(text: str, *, where: str) -> Blueprint:
    """Check a blueprint's YAML text; `where` names it in errors.

    Raises:
        BlueprintError: see `load_blueprint`.
    """
    try:
        plain = read_yaml(text)
    except ValueError as error:
        raise BlueprintError("the blueprint is not valid YAML", [str(error)], where=where) from error
    if moved := _moved(plain):
        raise BlueprintError("the blueprint is of version 1", [moved], where=where)
    blueprint, problems = from_plain(Blueprint, plain)
    problems = [*problems, *_contradictions(plain)]
    if problems:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        raise BlueprintError(f"the blueprint has {count}", problems, where=where)
    return typing.cast(Blueprint, blueprint)


def dump_blueprint(blueprint: Blueprint, *, header: str = "") -> str:
    """The blueprint as YAML with every default explicit; `header` becomes comment lines."""
    comment = "".join(f"# {line}\n" if line else "#\n" for line in header.splitlines())
    plain = to_dict(blueprint)
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    if any(mark in text for mark in _YAML_LINE_ENDS):  # PyYAML writes them as they are and reads line ends
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=False, width=100)
    return comment + text


def to_dict(blueprint: Blueprint) -> dict[str, Any]:
    """The blueprint as plain dictionaries, lists and scalars."""
    return typing.cast(dict[str, Any], to_plain(blueprint))


def _moved(plain: Any) -> str | None:
    """What to change in a file of version 1, in one line; None when it is none.

    A file need not name its version: one with fields that only version 1 had is of version 1.
    """
    if not isinstance(plain, dict):
        return None
    held = [
        f"{section}.{field} is now {now}"
        for (section, field), now in _MOVED.items()
        if isinstance(plain.get(section), dict) and field in plain[section]
    ]
    if plain.get("version") != 1 and (not held or "version" in plain):
        return None
    return "; ".join([f"version: this program reads version {VERSION}; set it to {VERSION}", *held])


def _contradictions(plain: Any) -> Iterator[str]:
    """What no single field shows, in those sections whose every field is right by itself."""
    checks: dict[str, tuple[type, Callable[[Any], Iterator[str]]]] = {
        "match": (MatchSection, _match_contradictions),
        "expression": (ExpressionSection, _expression_contradictions),
        "framing": (FramingSection, _framing_contradictions),
        "split": (SplitSection, _split_contradictions),
        "adapter": (AdapterSection, _adapter_contradictions),
        "training": (TrainingSection, _training_contradictions),
        "export": (ExportSection, _export_contradictions),
    }
    right: dict[str, Any] = {}
    for name, (cls, check) in checks.items():
        section, problems = from_plain(cls, plain.get(name) if isinstance(plain, dict) else None)
        if not problems:
            right[name] = section
            yield from check(section)
    if "adapter" in right and "training" in right and right["adapter"].kind == "full":
        yield from _without_effect("training", right["training"], ["b_ratio"], "with adapter.kind full, which has no B")


def _without_effect(path: str, section: Any, names: Sequence[str], why: str) -> Iterator[str]:
    """Those of a section's fields that are set to something, and mean nothing where `why` says so."""
    defaults = type(section)()
    for name in names:
        value = to_plain(getattr(section, name))
        if value != to_plain(getattr(defaults, name)):
            yield f"{path}.{name}: {value!r} has no effect {why}; leave it out"


def _match_contradictions(match: MatchSection) -> Iterator[str]:
    for what in ("parameters", "memory"):
        low, high = getattr(match, f"min_{what}"), getattr(match, f"max_{what}")
        if high is not None and low >= high:
            yield f"match.max_{what}: {high} is not above match.min_{what} {low}, so that nothing matches; raise it"


def _expression_contradictions(expression: ExpressionSection) -> Iterator[str]:
    if not expression.include:
        yield "expression.include: an empty list expresses nothing; use ['*'] for everything"
    near, family = expression.copies.near, expression.copies.family
    if near is not None and near < family:
        yield (
            f"expression.copies.near: {near} is below expression.copies.family {family}, and copies are one family; "
            "raise it, or lower family"
        )


def _framing_contradictions(framing: FramingSection) -> Iterator[str]:
    if not any(to_plain(framing.mix).values()):
        yield "framing.mix: nothing above 0 frames nothing; use {text: 1}"
    try:
        framing.header.format(repository="r", path="p")
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        yield f"framing.header: {error} cannot be filled in; only {{repository}} and {{path}} can"


def _training_contradictions(training: TrainingSection) -> Iterator[str]:
    if training.warmup_steps >= training.steps:
        yield f"training.warmup_steps: {training.warmup_steps} leaves none of training.steps {training.steps}; lower it"
    if training.min_learning_rate > training.learning_rate:
        yield (
            f"training.min_learning_rate: {training.min_learning_rate} is above training.learning_rate "
            f"{training.learning_rate}; lower it"
        )
    if training.b_ratio == 0:
        yield "training.b_ratio: 0.0 never trains B, and with B as it begins nothing is learned; raise it"
    unused = _NOT_OF_OPTIMIZER.get(training.optimizer, ())
    yield from _without_effect("training", training, unused, f"with training.optimizer {training.optimizer}")
    yield from _schedule_contradictions(training)
    if training.patience is not None and training.patience * training.validate_every >= training.steps:
        yield (
            f"training.patience: {training.patience} validations, one every {training.validate_every} steps, are not "
            f"over before training.steps {training.steps} are, so that nothing stops early; lower patience or "
            "training.validate_every"
        )
    for name in training.report_to:
        if name not in REPORTERS:
            near = difflib.get_close_matches(name.lower(), REPORTERS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(REPORTERS)}"
            yield f"training.report_to: {name!r} is unknown; {hint}"


def _schedule_contradictions(training: TrainingSection) -> Iterator[str]:
    if training.schedule == "constant":
        yield from _without_effect("training", training, ["min_learning_rate"], "with training.schedule constant")
    if training.schedule != "wsd":
        why = f"with training.schedule {training.schedule}; wsd alone has it"
        yield from _without_effect("training", training, ["decay_share"], why)
        return
    decay = round(training.decay_share * training.steps)
    if training.warmup_steps < training.steps < training.warmup_steps + decay:
        yield (
            f"training.decay_share: {training.decay_share} of training.steps {training.steps} and "
            f"training.warmup_steps {training.warmup_steps} overlap; lower one of them"
        )


def _split_contradictions(split: SplitSection) -> Iterator[str]:
    if split.valid + split.test > 0.5:
        yield f"split: valid {split.valid} + test {split.test} leave less than half to train on; lower them"


def _adapter_contradictions(adapter: AdapterSection) -> Iterator[str]:
    if not adapter.modules:
        yield "adapter.modules: an empty list trains nothing; use ['all-linear']"
    elif adapter.kind == "full":
        yield from _without_effect("adapter", adapter, _OF_ADAPTERS, "with adapter.kind full, which trains the weights")
    if adapter.layers == "all":
        yield from _without_effect("adapter", adapter, ["side"], "with adapter.layers all")


def _export_contradictions(export: ExportSection) -> Iterator[str]:
    for name in export.quantize:
        if name not in TYPES:
            yield f"export.quantize: no GGUF type is called {name!r}; the types are {', '.join(TYPES)}"
