"""YAML to dataclasses: what the blueprint's tests do not reach (tests/blueprint/test_load.py holds the rest)."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from chrysalis_mlx.config import describe_type, from_plain, option, read_yaml, required, to_plain


@dataclass(frozen=True)
class Entry:
    place: str = required("where it is")
    size: int = option(1, "how large", minimum=1)


@dataclass(frozen=True)
class Whole:
    entries: tuple[Entry, ...] = option((), "many")
    names: dict[str, str] = field(default_factory=dict, metadata={"doc": "old: new"})
    shares: dict[str, float] = option({}, "how much of each", minimum=0, maximum=1)
    below: int = option(0, "how little", maximum=9)
    active: bool = option(False, "whether")
    computed: int = field(default=0, init=False)


def test_an_entry_that_is_only_a_text_is_its_first_field() -> None:
    value, problems = from_plain(Whole, read_yaml("entries: [a, {place: b, size: 2}]\nnames: {x: y}\nactive: true\n"))
    assert problems == []
    assert value == Whole((Entry("a"), Entry("b", 2)), {"x": "y"}, active=True)
    assert to_plain(value) == {
        "entries": [{"place": "a", "size": 1}, {"place": "b", "size": 2}],
        "names": {"x": "y"},
        "shares": {},
        "below": 0,
        "active": True,
        "computed": 0,
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("entries: [{size: 2}]", "entries[0].place: missing; it is where it is"),
        ("entries: [{place: a, siz: 2}]", "entries[0].siz: unknown key; did you mean 'size'?"),
        ("entries: [{place: a, size: 0}]", "entries[0].size: 0 is out of range; it must be at least 1"),
        ("entries: 3", "entries: 3 is not a list"),
        ("entries: [3]", "entries[0]: expected a mapping of fields, got 3"),
        ("names: [a]", "names: ['a'] is not a mapping of strings to strings"),
        ("names: {a: 1}", "names['a']: 1 is not a string"),
        ("names: {1: a}", "names: the key 1 is not a string; put it in quotes"),
        ("shares: [a]", "shares: ['a'] is not a mapping of strings to numbers"),
        ("shares: {a.b: 1.5}", "shares['a.b']: 1.5 is out of range; it must be between 0 and 1"),
        ("below: 10", "below: 10 is out of range; it must be at most 9"),
        ("active: 1", "active: 1 is not true or false"),
        ("computed: 1", "computed: unknown key; known here: entries, names, shares, below, active"),
        ("[]", "the file: expected a mapping of fields, got []"),
    ],
)
def test_each_problem_is_named_with_its_path(text: str, problem: str) -> None:
    assert from_plain(Whole, read_yaml(text)) == (None, [problem])


def test_values_of_a_mapping_are_told_one_by_one() -> None:
    _, problems = from_plain(Whole, read_yaml("shares: {a: 0.5, b: -1, c: x, d: 1e-1}"))
    assert problems == [
        "shares['b']: -1 is out of range; it must be between 0 and 1",
        "shares['c']: 'x' is not a finite number",
    ]
    value, _ = from_plain(Whole, read_yaml("shares: {b: 1e-1, a: 1}"))
    assert list(value.shares.items()) == [("b", 0.1), ("a", 1.0)]


def test_a_default_mapping_is_nobody_elses() -> None:
    assert Whole().shares == {}
    assert Whole().shares is not Whole().shares


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (dict[str, float], "a mapping of strings to numbers"),
        (dict[str, str], "a mapping of strings to strings"),
        (tuple[str, ...], "a list of strings"),
        (tuple[int, ...], "a list of whole numbers"),
        (int | Literal["all"] | None, "a whole number or one of all or null"),
        (bool, "true or false"),
    ],
)
def test_types_in_words(hint: object, words: str) -> None:
    assert describe_type(hint) == words


def test_all_problems_come_at_once() -> None:
    _, problems = from_plain(Whole, read_yaml("entries: [{place: a, size: x}, {}]\nactive: 7\nnew: 1\n"))
    assert [problem.split(":")[0] for problem in problems] == ["entries[0].size", "entries[1].place", "active", "new"]


def test_a_key_that_stands_twice() -> None:
    with pytest.raises(ValueError, match="the key 'active' stands here twice"):
        read_yaml("active: true\nactive: false\n")
