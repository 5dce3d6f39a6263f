"""One rule after another: which decides, what it measured, and what is left in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from chrysalis_mlx.blueprint.schema import BudgetSection, CopiesSection, ExpressionSection, GatesSection
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.select.select import Selection, select
from tests.corpus.genomes import prose

NOISE = "the same words stand in this line again\n" * 30


def in_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def chosen(documents: Sequence[Document], **section: Any) -> Selection:
    return select(documents, ExpressionSection(**section), in_words)


def rules(selection: Selection) -> dict[str, str]:
    return {verdict.document.name: verdict.rule for verdict in selection.verdicts}


def names(selection: Selection) -> list[str]:
    return [item.document.name for item in selection.selected]


def test_verdicts_stand_in_the_order_given_and_what_is_selected_in_the_curriculums() -> None:
    documents = [Document("b", "1.md", prose(1), backup=True), *(Document("a", f"{n}.md", prose(n)) for n in (4, 3, 2))]
    selection = chosen(documents, first=("a/2.md",), last=("a/4.md",), weights={"a": 2.5})
    assert [verdict.document for verdict in selection.verdicts] == documents
    assert names(selection) == ["a/2.md", "a/3.md", "a/4.md", "b/1.md"]
    assert [(item.weight, item.tokens) for item in selection.selected] == [(2.5, 80)] * 3 + [(1.0, 80)]
    assert [item.family for item in selection.selected] == [0, 1, 2, 3]


def test_the_first_rule_that_speaks_decides() -> None:
    """A copy that is also noise, excluded, of weight 0 and beyond the budget is judged by the first of these."""
    documents = [Document("a", "0.md", NOISE), Document("a", "1.md", NOISE)]
    everything: dict[str, Any] = {"exclude": ("a/1*",), "weights": {"a": 0}, "budget": BudgetSection(total=1)}
    assert rules(chosen(documents, **everything)) == {"a/0.md": "weight 0", "a/1.md": "exclude: a/1*"}
    everything = {"budget": BudgetSection(total=1)}
    assert rules(chosen(documents, **everything)) == dict.fromkeys(("a/0.md", "a/1.md"), "gate: zlib_ratio")
    open_gates = replace(GatesSection(), min_zlib_ratio=None, max_repeated_lines=None, max_repeated_ngrams=None)
    found = chosen(documents, gates=open_gates, **everything)
    assert rules(found) == {"a/0.md": "budget: total", "a/1.md": "copy of a/0.md"}
    assert [verdict.score for verdict in found.verdicts] == [240.0, 1.0]
    assert found.selected == []


def test_what_several_repositories_share_is_left_out_though_each_adds_something() -> None:
    shared = "".join(f"{prose(n, 10)}" for n in range(20))
    documents = [Document(name, "GUIDE.md", shared + prose(100 + n, 30)) for n, name in enumerate("abc")]
    documents.append(Document("a", "own.md", prose(7)))
    found = chosen(documents)
    assert rules(found) == {**{f"{name}/GUIDE.md": "gate: boilerplate" for name in "abc"}, "a/own.md": "include: *"}
    assert 0.8 < found.verdicts[0].scores["boilerplate"] < 0.95
    assert names(chosen(documents, gates=GatesSection(max_boilerplate=0.95))) == [item.name for item in documents]
    assert names(chosen(documents[1:], gates=GatesSection())) == [item.name for item in documents[1:]]


def test_of_equal_backups_the_first_of_the_curriculum_stays() -> None:
    documents = [Document("x-backup", f"{n}.md", prose(1), backup=True) for n in range(3)]
    assert names(chosen(documents, first=("x-backup/2.md",))) == ["x-backup/2.md"]


def test_scores_are_there_for_what_came_before_the_gates() -> None:
    documents = [Document("a", "in.md", prose(1)), Document("a", "out.md", NOISE), Document("x", "x.md", prose(2))]
    within, closed, excluded = chosen(documents, exclude=("x/*",)).verdicts
    assert (within.expressed, within.score) == (True, None)
    assert list(within.scores)[-1] == "boilerplate"
    assert (closed.expressed, closed.score) == (False, closed.scores["zlib_ratio"])
    assert list(closed.scores)[-1] == "zlib_ratio"  # the gates after it were not asked
    assert (excluded.scores, excluded.score) == ({}, None)


def test_what_an_earlier_rule_left_out_has_no_copies() -> None:
    documents = [Document("x", "1.md", prose(1)), Document("a", "1.md", prose(1)), Document("a", "2.md", prose(1))]
    assert rules(chosen(documents, exclude=("x/*",))) == {
        "x/1.md": "exclude: x/*",
        "a/1.md": "include: *",
        "a/2.md": "copy of a/1.md",
    }


@pytest.mark.parametrize("live", ["exclude: live/*", "include: *"])
def test_backups_are_compared_with_all_live_files_in_or_out(live: str) -> None:
    documents = [Document("live", "1.md", prose(1)), Document("backup", "1.md", prose(1)[:300], backup=True)]
    documents.append(Document("backup", "2.md", prose(2), backup=True))
    found = chosen(documents, exclude=("live/*",) if live.startswith("exclude") else ())
    assert rules(found) == {"live/1.md": live, "backup/1.md": "backup of known text", "backup/2.md": "include: *"}


def test_a_live_file_stays_before_its_backup_wherever_it_stands() -> None:
    documents = [Document("backup", "1.md", prose(1), backup=True), Document("live", "1.md", prose(1))]
    found = chosen(documents, copies=CopiesSection(backups="keep"), first=("backup",))
    assert rules(found) == {"backup/1.md": "copy of live/1.md", "live/1.md": "include: *"}
    assert names(found) == ["live/1.md"]


def test_tokens_are_counted_of_what_is_left_alone() -> None:
    asked: list[str] = []

    def count(texts: Sequence[str]) -> list[int]:
        asked.extend(texts)
        return in_words(texts)

    documents = [Document("a", "1.md", prose(1)), Document("a", "2.md", prose(1)), Document("a", "3.md", NOISE)]
    select(documents, ExpressionSection(), count)
    assert asked == [prose(1)]


def test_nothing_gives_nothing() -> None:
    assert chosen([]) == Selection([], [])
