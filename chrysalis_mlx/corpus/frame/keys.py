"""JSON and YAML that hold prose: mappings whose keys are headings, written out as a reader would note them down."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import yaml

from chrysalis_mlx.corpus.frame.section import Leaf

_LONG = 1500  # characters; a longer mapping is divided at its own keys
_PROSE = 0.5  # share of the characters that values of several words make up
_WORDS = 4
_DEEP = 100  # brackets in brackets; libyaml takes quadratic time for them

# Anchors repeat what they stand for; tags and comments would be lost.
_BEYOND = re.compile(r"(^|[\s:,\[{-])[&*!][^\s*]|(^|\s)#", re.MULTILINE)
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class _Mapping(list[tuple[str, Any]]):
    """Keys and values in order; a key may come twice."""


def json_leaves(text: str) -> list[Leaf] | None:
    """The keys of a JSON object that holds prose; None for anything else."""
    try:
        # Numbers and names of constants stay as they are written.
        value = json.loads(text, object_pairs_hook=_Mapping, parse_float=str, parse_int=str, parse_constant=str)
        return _prose_leaves(value, text)
    except (ValueError, RecursionError):
        return None


def yaml_leaves(text: str) -> list[Leaf] | None:
    """The keys of a YAML mapping that holds prose; None for anything else."""
    depths = accumulate(1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", text))
    if _BEYOND.search(text) or max(depths, default=0) > _DEEP:
        return None
    try:
        return _prose_leaves(_composed(text), text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _composed(text: str) -> Any:
    """The one YAML document of a text. From events, because the loaders overflow the stack on deeply nested ones."""
    documents: list[Any] = []
    inside = [documents]
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.ScalarEvent):
            inside[-1].append(event.value)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            inside.append([])
        elif isinstance(event, yaml.SequenceEndEvent):
            items = inside.pop()
            inside[-1].append(items)
        elif isinstance(event, yaml.MappingEndEvent):
            flat = inside.pop()
            inside[-1].append(_Mapping(zip(map(str, flat[::2]), flat[1::2], strict=True)))
    return documents[0] if len(documents) == 1 else None


def _prose_leaves(value: Any, text: str) -> list[Leaf] | None:
    if not isinstance(value, _Mapping):
        return None
    prose = sum(len(string) for string in _strings(value) if len(string.split()) >= _WORDS)
    return list(_leaves(value, ())) if prose >= _PROSE * len(text) else None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item[1] if isinstance(value, _Mapping) else item)


def _leaves(mapping: _Mapping, trail: tuple[str, ...]) -> Iterator[Leaf]:
    for key, value in mapping:
        body = "\n".join(_written(value)) + "\n"
        if isinstance(value, _Mapping) and len(body) > _LONG:
            yield Leaf(trail, key, f"{key}:\n", "")
            yield from _leaves(value, (*trail, key))
        else:
            yield Leaf(trail, key, f"{key}:" + (" " if isinstance(value, str) else "\n"), body)


def _written(value: Any, indent: str = "") -> Iterator[str]:
    """A value in lines: strings as they are, mappings as `key: value`, lists with dashes."""
    if isinstance(value, _Mapping):
        for key, item in value:
            yield from _entry(f"{indent}{key}:", item, indent)
    elif isinstance(value, list):
        for item in value:
            yield from _entry(f"{indent}-", item, indent)
    else:
        yield indent + (value if isinstance(value, str) else json.dumps(value))


def _entry(label: str, value: Any, indent: str) -> Iterator[str]:
    inner = list(_written(value, indent + "  "))
    if inner and (not isinstance(value, list) or (isinstance(value, _Mapping) and label.endswith("-"))):
        yield f"{label} {inner[0].lstrip(' ')}"
        yield from inner[1:]
    else:
        yield label
        yield from inner
