"""Dataclasses to JSON and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chrysalis_mlx.records import read_record


@dataclass(frozen=True)
class Wing:
    span: float
    spots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moth:
    name: str
    left: Wing
    right: Wing | None = None
    others: Mapping[str, Wing] = field(default_factory=dict)
    row: tuple[Wing, ...] = ()
    file: Path | None = None


MOTHS = [
    Moth("plain", Wing(1.5)),
    Moth("all", Wing(1.5, ("a", "b")), Wing(2.0), {"hind": Wing(3.0, ("c",))}, (Wing(4.0), Wing(5.0, ("d",)))),
]


@pytest.mark.parametrize("moth", MOTHS, ids=lambda moth: moth.name)
def test_what_asdict_took_apart_comes_back_equal(moth: Moth) -> None:
    assert read_record(Moth, json.loads(json.dumps(dataclasses.asdict(moth)))) == moth


def test_a_path_comes_back_as_a_path_and_more_keys_are_passed_over() -> None:
    found = read_record(Moth, {"name": "m", "left": {"span": 1.0, "colour": "red"}, "file": "a/b", "legs": 6})
    assert found == Moth("m", Wing(1.0), file=Path("a/b"))


def test_a_missing_field_is_an_error() -> None:
    with pytest.raises(TypeError, match="left"):
        read_record(Moth, {"name": "m"})
