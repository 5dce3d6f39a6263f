"""YAML to frozen dataclasses: what the blueprint and the list of sources share.

The dataclass is the one definition of a configuration: its fields give the keys, the types and, through `option`, the
meaning and the range. Unknown keys are errors, and all errors of a file come at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import field
from typing import Any, Literal

import yaml

_MISMATCH = object()
_NAMES = {int: "a whole number", float: "a finite number", str: "a string", bool: "true or false", type(None): "null"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "strings"}


def option(default: Any, doc: str, *, minimum: float | None = None, maximum: float | None = None) -> Any:
    """A field with its meaning and its inclusive range; the range of a mapping is that of each of its values."""
    metadata = {"doc": doc, "minimum": minimum, "maximum": maximum}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def required(doc: str) -> Any:
    """A field that must be given, with its meaning."""
    return field(metadata={"doc": doc})


def read_yaml(text: str) -> Any:
    """A YAML text as plain dictionaries, lists and scalars.

    Raises:
        ValueError: it is not YAML, or a key stands twice in one mapping.
    """
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def from_plain(cls: type, value: Any) -> tuple[Any, list[str]]:
    """Build the dataclass `cls` from plain dictionaries, lists and scalars.

    Returns:
        the object and no problems; or None and one line for each problem: path, value and fix.
    """
    problems = _Problems()
    for name, place in _places(cls, ""):
        problems.places.setdefault(name, []).append(place)
    return _section(cls, value, "", problems), list(problems)


def to_plain(value: Any) -> Any:
    """A dataclass, or what one holds, as plain dictionaries, lists and scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


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


class _Problems(list[str]):
    """What is wrong with a file.

    Attributes:
        places: where a key belongs, for keys that stand in a wrong section.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, list[str]] = {}


def _places(cls: type, path: str) -> Iterator[tuple[str, str]]:
    """Names of the fields below a section, and the sections' own, with their paths."""
    hints = typing.get_type_hints(cls)
    for name in (item.name for item in dataclasses.fields(cls) if item.init):
        hint = hints[name]
        yield name, f"{path}{name}"
        if dataclasses.is_dataclass(hint):
            yield from _places(typing.cast(type, hint), f"{path}{name}.")


def _section(cls: type, value: Any, path: str, problems: _Problems) -> Any:
    """Build a dataclass from a mapping; what is wrong goes to `problems`."""
    if value is None:
        value = {}
    if not isinstance(value, dict):
        problems.append(f"{path or 'the file'}: expected a mapping of fields, got {value!r}")
        return None
    fields = {item.name: item for item in dataclasses.fields(cls) if item.init}
    hints = typing.get_type_hints(cls)
    arguments = {}
    before = len(problems)
    for key, item in value.items():
        at = f"{path}.{key}" if path else str(key)
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            near = problems.places.get(key, near)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known here: {', '.join(fields)}"
            problems.append(f"{at}: unknown key; {hint}")
        else:
            arguments[key] = _field(hints[key], item, at, fields[key].metadata, problems)
    for name, item in fields.items():
        if name not in value and item.default is item.default_factory is dataclasses.MISSING:
            problems.append(f"{path + '.' if path else ''}{name}: missing; it is {item.metadata['doc']}")
    return None if len(problems) > before else cls(**arguments)


def _field(hint: Any, value: Any, path: str, limits: Mapping[str, Any], problems: _Problems) -> Any:
    if dataclasses.is_dataclass(hint):
        return _section(typing.cast(type, hint), value, path, problems)
    entry = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
    if dataclasses.is_dataclass(entry):
        return _entries(typing.cast(type, entry), value, path, problems)
    if typing.get_origin(hint) is dict:
        return _mapping(hint, value, path, limits, problems)
    converted = _convert(hint, value)
    if converted is _MISMATCH:
        problems.append(f"{path}: {value!r} is not {describe_type(hint)}")
        return None
    if isinstance(converted, (int, float)) and not isinstance(converted, bool):
        minimum, maximum = limits.get("minimum"), limits.get("maximum")
        if not (minimum is None or converted >= minimum) or not (maximum is None or converted <= maximum):
            problems.append(f"{path}: {value!r} is out of range; it must be {describe_range(minimum, maximum)}")
    return converted


def _entries(cls: type, value: Any, path: str, problems: _Problems) -> Any:
    """A list of sections; one that is only a text is the section whose first field it is."""
    items = [value] if isinstance(value, (str, dict)) else value
    if not isinstance(items, list):
        problems.append(f"{path}: {value!r} is not a list")
        return None
    first = dataclasses.fields(cls)[0].name
    return tuple(
        _section(cls, {first: item} if isinstance(item, str) else item, f"{path}[{index}]", problems)
        for index, item in enumerate(items)
    )


def _mapping(hint: Any, value: Any, path: str, limits: Mapping[str, Any], problems: _Problems) -> Any:
    """A mapping whose keys are the user's own; the limits are those of each of its values."""
    if not isinstance(value, dict):
        problems.append(f"{path}: {value!r} is not {describe_type(hint)}")
        return None
    entry = typing.get_args(hint)[1]
    for key in value:
        if not isinstance(key, str):
            problems.append(f"{path}: the key {key!r} is not a string; put it in quotes")
    return {key: _field(entry, item, f"{path}[{key!r}]", limits, problems) for key, item in value.items()}


def _convert(hint: Any, value: Any) -> Any:
    """`value` as the type that `hint` asks for, or _MISMATCH."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        choices = (_convert(part, value) for part in arguments)
        return next((choice for choice in choices if choice is not _MISMATCH), _MISMATCH)
    if origin is Literal:
        return value if any(value is a or (value == a and type(value) is type(a)) for a in arguments) else _MISMATCH
    if origin is tuple:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            return _MISMATCH
        converted = tuple(_convert(arguments[0], item) for item in items)
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


def describe_range(minimum: float | None, maximum: float | None) -> str:
    """An inclusive range in the same words: "at least 1"; empty without limits."""
    if minimum is None or maximum is None:
        return f"at least {minimum}" if minimum is not None else f"at most {maximum}" if maximum is not None else ""
    return f"between {minimum} and {maximum}"


def describe_type(hint: Any) -> str:
    """A type in the words of errors and of `blueprint show --schema`: "a whole number or null"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(describe_type(part) for part in arguments)
    if origin is Literal:
        return "one of " + ", ".join(str(value) for value in arguments)
    if origin is tuple:
        return f"a list of {_PLURALS[arguments[0]]}"
    if origin is dict:
        return f"a mapping of {_PLURALS[arguments[0]]} to {_PLURALS[arguments[1]]}"
    return _NAMES[hint]
