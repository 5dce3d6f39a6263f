"""Which files are expressed, and by which rule."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from chrysalis_mlx.blueprint.library import library
from chrysalis_mlx.blueprint.load import load_blueprint
from chrysalis_mlx.blueprint.schema import ExpressionSection
from chrysalis_mlx.corpus.express import content_digest, express
from chrysalis_mlx.genome.text.format import GenomeFile, read_genome

REAL_GENOME = Path(__file__).parents[2] / "../shared/data/ecosystem-genome.txt.xz"


def rules(files: list[tuple[str, str]], section: ExpressionSection) -> dict[str, str]:
    genome = [GenomeFile(name.split("/", 1)[0], name.split("/", 1)[1], text) for name, text in files]
    return {f"{verdict.file.repository}/{verdict.file.path}": verdict.rule for verdict in express(genome, section)}


def test_patterns_decide_in_their_order_and_exclude_wins() -> None:
    section = ExpressionSection(include=("*.md", "docs/*"), exclude=("*/old/*", "*.bak.md"))
    files = [("docs/a.txt", "1"), ("src/b.md", "2"), ("docs/old/c.md", "3"), ("src/d.bak.md", "4"), ("src/e.py", "5")]
    assert rules(files, section) == {
        "docs/a.txt": "include: docs/*",
        "src/b.md": "include: *.md",
        "docs/old/c.md": "exclude: */old/*",
        "src/d.bak.md": "exclude: *.bak.md",
        "src/e.py": "not included",
    }


def test_patterns_mind_the_case_on_every_system() -> None:
    assert rules([("r/README.md", "1")], ExpressionSection(include=("*/readme.md",))) == {"r/README.md": "not included"}


def test_short_texts_are_counted_without_white_space() -> None:
    section = ExpressionSection(min_characters=3)
    assert rules([("r/a", "  ab \n\n"), ("r/b", " abc"), ("r/c", "")], section) == {
        "r/a": "too short: under 3 characters",
        "r/b": "include: *",
        "r/c": "too short: under 3 characters",
    }


def test_of_equal_texts_the_first_expressed_one_survives() -> None:
    files = [("bak/a", "same\n"), ("live/a", "same\n"), ("live/b", "other"), ("live/c", "same"), ("live/d", "SAME")]
    assert rules(files, ExpressionSection(exclude=("bak/*",))) == {
        "bak/a": "exclude: bak/*",
        "live/a": "include: *",
        "live/b": "include: *",
        "live/c": "duplicate of live/a",
        "live/d": "include: *",
    }


@pytest.mark.parametrize("copy", ["a\r\nb\n", "\ufeffa\nb", "\n\na  \nb\n", "a\t\r\nb"])
def test_a_copy_may_differ_in_line_ends_and_outer_white_space(copy: str) -> None:
    assert content_digest(copy) == content_digest("a\nb")


@pytest.mark.parametrize("other", ["a\n\nb", "a b", "a\n b", "A\nb"])
def test_what_differs_otherwise_is_another_document(other: str) -> None:
    assert content_digest(other) != content_digest("a\nb")


@pytest.mark.skipif(
    not REAL_GENOME.is_file(), reason="needs ../shared/data/ecosystem-genome.txt.xz beside the checkout"
)
def test_the_shipped_blueprints_leave_out_logs_and_backups_of_the_real_genome_and_the_code_does_not() -> None:
    files = list(read_genome(REAL_GENOME))
    assert len(files) == 1450
    unwanted = [file for file in files if file.repository == "asi-backups" or "/game-logs/" in f"/{file.path}"]
    logs = [file for file in unwanted if file.repository != "asi-backups"]
    assert (len(unwanted) - len(logs), len(logs)) == (1039, 78)
    for name in ("demo", "smollm2-135m-instruct", "qwen3-0.6b"):
        verdicts = list(express(files, load_blueprint(library()[name]).expression))
        said = Counter(verdict.rule for verdict in verdicts if verdict.file in unwanted)
        assert said == {"exclude: *-backups/*": 1039, "exclude: */game-logs/*": 78}
        assert sum(verdict.expressed for verdict in verdicts) > 200
    expressed = [verdict.file for verdict in express(files, ExpressionSection()) if verdict.expressed]
    assert any(file.repository == "asi-backups" for file in expressed)
    assert sum(file in expressed for file in logs) > 0
