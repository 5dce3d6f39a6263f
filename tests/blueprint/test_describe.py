"""What `blueprint show --schema` says: everything that the dataclasses say."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from chrysalis_mlx.blueprint.describe import json_schema, schema_text, section_doc
from chrysalis_mlx.blueprint.load import parse_blueprint, to_dict
from chrysalis_mlx.blueprint.schema import Blueprint


def walk(section: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Path, field and default of every field of every section."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        yield (*path, field.name), field, value
        if dataclasses.is_dataclass(value):
            yield from walk(value, (*path, field.name))


FIELDS = list(walk(Blueprint()))
LEAVES = [(path, field, value) for path, field, value in FIELDS if not dataclasses.is_dataclass(value)]


def test_every_field_and_every_section_says_what_it_means() -> None:
    assert len(LEAVES) > 60
    for path, field, value in FIELDS:
        doc = section_doc(type(value)) if dataclasses.is_dataclass(value) else field.metadata["doc"]
        assert len(doc) > 5, path
        assert not doc.startswith(f"{type(value).__name__}("), f"{path} has the docstring that dataclass makes"


def test_the_text_is_the_default_blueprint_with_every_meaning() -> None:
    text = schema_text()
    assert parse_blueprint(text, where="schema") == Blueprint()
    said = " ".join(re.sub(r"(?m)^ *# ?", "", text).split())
    for path, field, value in FIELDS:
        doc = section_doc(type(value)) if dataclasses.is_dataclass(value) else field.metadata["doc"]
        assert " ".join(doc.split()) in said, path


@pytest.mark.parametrize(
    "line",
    [
        "  rank: 8  # a whole number, at least 1",
        "  max_parameters: null  # a finite number or null, at least 0.0",
        '  variant: "any"  # one of any, base, instruct',
        '  layers: "all"  # a whole number or one of all, at least 1',
        '  include: ["*"]  # a list of strings',
        "  weights: {}  # a mapping of strings to numbers, at least 0.0",
        '  header: "# {repository}/{path}\\n\\n"  # a string',
        "    generated: true  # true or false",
        "  valid: 0.05  # a finite number, between 0.0 and 0.5",
    ],
)
def test_a_line_has_default_type_and_range(line: str) -> None:
    assert line in schema_text().splitlines()


def test_the_json_schema_has_every_field_with_meaning_and_default() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for path, field, value in FIELDS:
        node = schema
        for name in path[:-1]:
            node = node["properties"][name]
        assert node["additionalProperties"] is False
        entry = node["properties"][path[-1]]
        if dataclasses.is_dataclass(value):
            assert (entry["type"], entry["description"]) == (["object", "null"], section_doc(type(value)))
            assert set(entry["properties"]) == {item.name for item in dataclasses.fields(value)}
        else:
            assert entry["description"] == field.metadata["doc"]
    assert json.loads(json.dumps(schema)) == schema
    assert defaults(schema) == to_dict(Blueprint())


def defaults(node: dict[str, Any]) -> Any:
    if "properties" not in node:
        return node["default"]
    return {name: defaults(child) for name, child in typing.cast(dict[str, Any], node["properties"]).items()}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("training.steps", {"type": "integer", "minimum": 1}),
        ("training.beta1", {"type": "number", "minimum": 0.0, "maximum": 0.9999}),
        ("model.source", {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ("match.variant", {"enum": ["any", "base", "instruct"]}),
        ("adapter.layers", {"anyOf": [{"type": "integer", "minimum": 1}, {"enum": ["all"]}]}),
        (
            "expression.exclude",
            {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]},
        ),
        (
            "expression.weights",
            {"type": "object", "additionalProperties": {"type": "number", "minimum": 0.0}},
        ),
        ("expression.copies.exact", {"type": "boolean"}),
    ],
)
def test_types_and_ranges_of_the_json_schema(path: str, kind: dict[str, Any]) -> None:
    node = json_schema()
    for name in path.split("."):
        node = node["properties"][name]
    assert {key: value for key, value in node.items() if key not in ("description", "default")} == kind
