"""YAML to `Blueprint` and back. Unknown keys are errors, and all errors of a file come at once."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import yaml

from chrysalis_mlx.blueprint.schema import Blueprint
from chrysalis_mlx.config import from_plain, read_yaml, to_plain
from chrysalis_mlx.errors import BlueprintError

_YAML_LINE_ENDS = "\x85\u2028\u2029"


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
        blueprint, problems = from_plain(Blueprint, read_yaml(text))
    except ValueError as error:
        raise BlueprintError("the blueprint is not valid YAML", [str(error)], where=where) from error
    if not problems:
        problems = _contradictions(blueprint)
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


def _contradictions(blueprint: Blueprint) -> list[str]:
    """What no single field shows."""
    training, split = blueprint.training, blueprint.split
    problems = []
    if training.warmup_steps >= training.steps:
        problems.append(
            f"training.warmup_steps: {training.warmup_steps} leaves none of training.steps {training.steps}; lower it"
        )
    if training.min_learning_rate > training.learning_rate:
        problems.append(
            f"training.min_learning_rate: {training.min_learning_rate} is above training.learning_rate "
            f"{training.learning_rate}; lower it"
        )
    if split.valid + split.test > 0.5:
        problems.append(f"split: valid {split.valid} + test {split.test} leave less than half to train on; lower them")
    if not blueprint.expression.include:
        problems.append("expression.include: an empty list expresses nothing; use ['*'] for everything")
    if not blueprint.adapter.modules:
        problems.append("adapter.modules: an empty list trains nothing; use ['all-linear']")
    try:
        blueprint.framing.header.format(repository="r", path="p")
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        problems.append(f"framing.header: {error} cannot be filled in; only {{repository}} and {{path}} can")
    return problems
