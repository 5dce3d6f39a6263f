"""What of the backups stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chrysalis_mlx.blueprint.schema import CopiesSection
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.select.backups import judge_backups
from chrysalis_mlx.corpus.select.copies import Finding
from tests.corpus.select.test_copies import prose

UNIQUE = CopiesSection(backups="unique-only")


def judged(live: list[str], backups: list[str], section: CopiesSection = UNIQUE) -> dict[int, Finding]:
    documents = [Document("old", f"{n}.md", text, backup=True) for n, text in enumerate(backups)]
    documents += [Document("new", f"{n}.md", text) for n, text in enumerate(live)]
    return judge_backups(documents, range(len(documents)), section)


def test_a_version_that_has_grown_threefold_is_known() -> None:
    old = prose(1)
    assert judged([f"{old} {prose(2, 120)}"], [old]) == {0: Finding("backup of known text", 1.0)}


def test_what_was_divided_among_live_files_is_known() -> None:
    (finding,) = judged([prose(1), prose(2)], [f"{prose(1)} {prose(2)}"]).values()
    assert finding.score == pytest.approx(112 / 116)


def test_half_is_enough_and_less_stays() -> None:
    whole = prose(1, 104)  # 100 shingles
    words = whole.split()
    assert judged([" ".join(words[:54])], [whole]) == {0: Finding("backup of known text", 0.5)}
    assert judged([" ".join(words[:53])], [whole]) == {}


def test_of_backups_that_say_the_same_the_first_stays() -> None:
    texts = [prose(seed) for seed in (2, 3, 4, 5, 3, 2, 5)]
    assert judged([prose(1)], texts) == {number: Finding("backup of known text", 1.0) for number in (4, 5, 6)}


def test_a_backup_that_another_rule_left_out_makes_nothing_known() -> None:
    documents = [Document("old", f"{n}.md", prose(1), backup=True) for n in range(2)]
    assert judge_backups(documents, [0, 1], UNIQUE) == {1: Finding("backup of known text", 1.0)}
    assert judge_backups(documents, [1], UNIQUE) == {}


def test_numbers_make_nothing_new() -> None:
    snapshot = '{{"repository": "r", "taken": "2025-11-{0:02} 10:34:25", "clones": {0}, "unique": {1}}}'
    found = judged([prose(1)], [snapshot.format(day, 31 - day) for day in range(1, 30)])
    assert found == {number: Finding("backup of known text", 1.0) for number in range(1, 29)}


def test_what_has_no_words_is_left_to_the_other_rules() -> None:
    assert judged([prose(1)], ["---"]) == {}
    assert judged([], [prose(1)]) == {}


def test_the_other_policies() -> None:
    assert judged([prose(1)], [prose(1), prose(2)], replace(UNIQUE, backups="keep")) == {}
    dropped = judged([prose(1)], [prose(1), prose(2)], replace(UNIQUE, backups="drop"))
    assert dropped == {0: Finding("backup", None), 1: Finding("backup", None)}
