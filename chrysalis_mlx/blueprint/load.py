"""YAML to `Blueprint` and back. Unknown keys are errors, and all errors of a file come at once."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Literal

import yaml

from chrysalis_mlx.blueprint.schema import Blueprint
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
        value = yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        raise BlueprintError("the blueprint is not valid YAML", [str(error)], where=where) from error
    problems: list[str] = []
    blueprint = _section(Blueprint, value, "", problems)
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
    return typing.cast(dict[str, Any], _plain(dataclasses.asdict(blueprint)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


class _UniqueKeys(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands here twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _section(cls: type, value: Any, path: str, problems: list[str]) -> Any:
    """Build a dataclass from a mapping; what is wrong goes to `problems`."""
    if value is None:
        value = {}
    if not isinstance(value, dict):
        problems.append(f"{path or 'the file'}: expected a mapping of fields, got {value!r}")
        return None
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, item in value.items():
        at = f"{path}.{key}" if path else str(key)
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(fields)}"
            problems.append(f"{at}: unknown key; {hint}")
        elif dataclasses.is_dataclass(hints[key]):
            arguments[key] = _section(typing.cast(type, hints[key]), item, at, problems)
        else:
            arguments[key] = _value(hints[key], item, at, fields[key].metadata, problems)
    return None if problems else cls(**arguments)


def _value(hint: Any, value: Any, path: str, limits: Any, problems: list[str]) -> Any:
    converted = _convert(hint, value)
    if converted is _MISMATCH:
        problems.append(f"{path}: {value!r} is not {_describe(hint)}")
        return None
    if isinstance(converted, (int, float)) and not isinstance(converted, bool):
        minimum, maximum = limits.get("minimum"), limits.get("maximum")
        if not (minimum is None or converted >= minimum) or not (maximum is None or converted <= maximum):
            span = f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
            problems.append(f"{path}: {value!r} is out of range; it must be {span}")
    return converted


_MISMATCH = object()


def _convert(hint: Any, value: Any) -> Any:
    """`value` as the type that `hint` asks for, or _MISMATCH."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        choices = (_convert(part, value) for part in typing.get_args(hint))
        return next((choice for choice in choices if choice is not _MISMATCH), _MISMATCH)
    if origin is Literal:
        return (
            value
            if any(value is a or (value == a and type(value) is type(a)) for a in typing.get_args(hint))
            else _MISMATCH
        )
    if origin is tuple:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            return _MISMATCH
        converted = tuple(_convert(typing.get_args(hint)[0], item) for item in items)
        return _MISMATCH if _MISMATCH in converted else converted
    if hint is float:
        return _float(value)
    return value if type(value) is hint or (hint is type(None) and value is None) else _MISMATCH


def _float(value: Any) -> Any:
    """A float; YAML 1.1 reads 1e-4 as a string, people mean a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return _MISMATCH
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return _MISMATCH
    return number if math.isfinite(number) else _MISMATCH


def _describe(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_describe(part) for part in typing.get_args(hint))
    if origin is Literal:
        return "one of " + ", ".join(str(value) for value in typing.get_args(hint))
    if origin is tuple:
        return "a list of strings"
    return {int: "a whole number", float: "a finite number", str: "a string", type(None): "null"}[hint]


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
