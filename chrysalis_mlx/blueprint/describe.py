"""What can stand in a blueprint: every field with type, default, range and meaning, made from the dataclasses.

Twice the same: as commented YAML for people, which is itself the default blueprint, and as a JSON Schema for editors.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from chrysalis_mlx.blueprint.schema import VERSION, Blueprint
from chrysalis_mlx.config import describe_range, describe_type, to_plain

_WIDTH = 100
_JSON_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}


def schema_text() -> str:
    """Every field as commented YAML, in the order of the sections; it parses to the default blueprint."""
    head = [f"# Every field of a blueprint, version {VERSION}, with its default.", *_fields(Blueprint(), "")]
    return "\n".join(head) + "\n"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a blueprint: editors complete and check YAML files with it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"chrysalis-mlx blueprint, version {VERSION}",
        **_object(Blueprint()),
    }


def section_doc(section: type) -> str:
    """What a section is for, as its class says it, on one line."""
    return " ".join((inspect.getdoc(section) or "").split())


def _fields(section: Any, indent: str) -> Iterator[str]:
    hints = typing.get_type_hints(type(section))
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield ""
            yield from _comment(section_doc(type(value)), indent)
            yield f"{indent}{field.name}:"
            yield from _fields(value, indent + "  ")
        else:
            limits = describe_range(field.metadata["minimum"], field.metadata["maximum"])
            kind = ", ".join(filter(None, [describe_type(hints[field.name]), limits]))
            yield from _comment(field.metadata["doc"], indent)
            # JSON is YAML, on one line, and quotes what YAML would take for something else.
            yield f"{indent}{field.name}: {json.dumps(to_plain(value), ensure_ascii=False)}  # {kind}"


def _comment(text: str, indent: str) -> list[str]:
    prefix = f"{indent}# "
    return textwrap.wrap(text, _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_long_words=False)


def _object(section: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(type(section))
    properties = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            properties[field.name] = _object(value)
        else:
            kind = _json_type(hints[field.name], field.metadata)
            properties[field.name] = {"description": field.metadata["doc"], **kind, "default": to_plain(value)}
    return {
        "description": section_doc(type(section)),
        "type": ["object", "null"],  # `training:` with nothing below it is the defaults
        "properties": properties,
        "additionalProperties": False,
    }


def _json_type(hint: Any, limits: Mapping[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_json_type(part, limits) for part in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:  # one alone needs no list
        entry = _json_type(arguments[0], limits)
        return {"anyOf": [{"type": "array", "items": entry}, entry]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _json_type(arguments[1], limits)}
    kind: dict[str, Any] = {"type": _JSON_TYPES[hint]}
    if hint in (int, float):
        kind |= {name: limits[name] for name in ("minimum", "maximum") if limits[name] is not None}
    return kind
