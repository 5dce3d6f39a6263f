"""What a name decides: in or out, where in the curriculum, how often."""

import pytest

from chrysalis_mlx.blueprint.schema import CopiesSection, ExpressionSection
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.select.patterns import (
    curriculum_key,
    in_curriculum_order,
    is_backup,
    pattern_rule,
    weight_of,
)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("garden/notes/soil.md", (True, "include: garden/*")),
        ("garden/notes/soil.log", (False, "exclude: *.log")),
        ("kitchen/README.md", (True, "include: */README.md")),
        ("kitchen/bread.md", (False, "not included")),
        ("Garden/soil.md", (False, "not included")),
    ],
)
def test_exclude_wins_over_include_and_what_matches_neither_stays_out(name: str, verdict: tuple[bool, str]) -> None:
    section = ExpressionSection(include=("garden/*", "*/README.md"), exclude=("*.tmp", "*.log"))
    assert pattern_rule(name, section) == verdict


def test_the_default_includes_everything() -> None:
    assert pattern_rule("any/thing", ExpressionSection()) == (True, "include: *")


def names(documents: list[Document]) -> list[str]:
    return [document.name for document in documents]


def test_the_curriculum_is_first_then_genome_order_then_last_then_backups() -> None:
    genome = [
        Document("old", "intro.md", "", backup=True),
        Document("logs", "b.md", ""),
        Document("app", "main.md", ""),
        Document("app", "README.md", ""),
        Document("lib", "z.md", ""),
        Document("old", "README.md", "", backup=True),
        Document("intro", "2.md", ""),
        Document("annex", "a.md", ""),
        Document("lib", "README.md", ""),
        Document("intro", "1.md", ""),
    ]
    section = ExpressionSection(first=("intro", "*/README.md"), last=("logs", "annex/*"))
    assert names(in_curriculum_order(genome, section)) == [
        "intro/2.md",
        "intro/1.md",
        "app/README.md",
        "lib/README.md",
        "app/main.md",
        "lib/z.md",
        "logs/b.md",
        "annex/a.md",
        "old/README.md",
        "old/intro.md",
    ]
    assert curriculum_key(genome[2], section) == (False, 2)
    assert curriculum_key(genome[7], section) == (False, 4)


def test_what_is_named_first_and_last_comes_first() -> None:
    section = ExpressionSection(first=("a/*",), last=("a",))
    assert names(in_curriculum_order([Document("b", "1", ""), Document("a", "1", "")], section)) == ["a/1", "b/1"]


def test_without_patterns_the_genome_order_stays() -> None:
    genome = [Document("b", "2", ""), Document("a", "1", ""), Document("b", "1", "")]
    assert in_curriculum_order(genome, ExpressionSection()) == genome


def test_the_first_weight_that_matches_counts() -> None:
    section = ExpressionSection(weights={"core-*": 3.0, "core-old": 0.5, "*-lab": 0.0})
    assert [weight_of(name, section) for name in ("core-old", "x-lab", "core", "lab")] == [3.0, 0.0, 1.0, 1.0]


def test_backups_are_told_by_the_repository_alone() -> None:
    found = {name: is_backup(name, CopiesSection()) for name in ("my-backups", "x-backup", "backup", "backup-tool")}
    assert found == {"my-backups": True, "x-backup": True, "backup": True, "backup-tool": False}
