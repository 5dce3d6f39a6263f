"""Dataclasses out of the plain JSON that `dataclasses.asdict` makes of them."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def read_record(cls: type[T], value: Mapping[str, Any]) -> T:
    """The dataclass whose `asdict` is `value`: fields that are dataclasses, mappings, tuples, optional or plain.

    Keys that the class does not have are passed over, so that a record may tell more than a reader knows.

    Raises:
        TypeError: a field without a default is missing.
    """
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(typing.cast(Any, cls))}
    return cls(**{name: _value(hints[name], item) for name, item in value.items() if name in names})


def _value(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return read_record(typing.cast(type, hint), value)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _value(next(item for item in arguments if item is not type(None)), value)
    if origin is tuple:
        return tuple(_value(arguments[0], item) for item in value)
    if origin is Mapping:
        return {key: _value(arguments[1], item) for key, item in value.items()}
    return Path(value) if hint is Path else value
