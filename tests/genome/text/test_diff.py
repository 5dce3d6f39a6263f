"""Two genomes compared: what came, went, changed and moved."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.text.diff import (
    ChangedFile,
    FileSize,
    GenomeDiff,
    MovedFile,
    RepositoryDiff,
    Totals,
    diff_genomes,
)
from chrysalis_mlx.genome.text.format import GenomeFile, write_genome

Parts = list[tuple[str, str, str]]


def compare(tmp_path: Path, before: Parts, after: Parts) -> GenomeDiff:
    for name, parts in (("a.txt", before), ("b.txt", after)):
        write_genome([GenomeFile(*part) for part in parts], tmp_path / name)
    return diff_genomes(tmp_path / "a.txt", tmp_path / "b.txt")


def test_every_kind_of_difference(tmp_path: Path) -> None:
    before = [
        ("zoo", "same.md", "same"),
        ("zoo", "edited.md", "ä"),
        ("zoo", "gone.md", "gone"),
        ("zoo", "old/name.md", "moves here"),
        ("zoo", "emigrant.md", "moves there"),
        ("left", "x.md", "x"),
    ]
    after = [
        ("new", "emigrant.md", "moves there"),
        ("new", "y.md", "yy"),
        ("zoo", "same.md", "same"),
        ("zoo", "edited.md", "ä!"),
        ("zoo", "new/name.md", "moves here"),
        ("zoo", "fresh.md", "fresh"),
    ]
    found = compare(tmp_path, before, after)
    assert found.by_repository == [
        RepositoryDiff(
            "new",
            "came",
            came=[FileSize("y.md", 2)],
            moved=[MovedFile("emigrant.md", 11, "zoo", "emigrant.md")],
        ),
        RepositoryDiff(
            "zoo",
            "stayed",
            came=[FileSize("fresh.md", 5)],
            went=[FileSize("gone.md", 4)],
            changed=[ChangedFile("edited.md", 2, 3)],
            moved=[MovedFile("new/name.md", 10, "zoo", "old/name.md")],
            unchanged=1,
        ),
        RepositoryDiff("left", "went", went=[FileSize("x.md", 1)]),
    ]
    assert found.totals == Totals(
        came=2, went=2, changed=1, moved=2, unchanged=1, repositories_came=1, repositories_went=1
    )
    assert (found.identical, found.reordered) == (False, False)
    assert (found.before.files, found.before.content_bytes) == (6, 4 + 2 + 4 + 10 + 11 + 1)
    assert (found.after.files, found.after.content_bytes) == (6, 11 + 2 + 4 + 3 + 10 + 5)
    assert found.before.bytes == (tmp_path / "a.txt").stat().st_size
    shown = json.loads(json.dumps(found.as_dict(), default=str))
    assert shown["after"]["path"] == str(tmp_path / "b.txt")
    assert shown["by_repository"][2]["went"] == [{"path": "x.md", "bytes": 1}]
    assert shown["totals"]["moved"] == 2


def test_same_text_packed_otherwise_is_identical(tmp_path: Path) -> None:
    files = [GenomeFile("r", "a", "x"), GenomeFile("s", "a", "x")]
    write_genome(files, tmp_path / "a.txt")
    write_genome(files, tmp_path / "b.txt.xz")
    found = diff_genomes(tmp_path / "a.txt", tmp_path / "b.txt.xz")
    assert found.identical
    assert not any(entry.differs for entry in found.by_repository)
    assert found.totals == Totals(0, 0, 0, 0, 2, 0, 0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([("r", "1", "x")], [("r", "2", "x"), ("r", "3", "x")]),
        ([("r", "1", "x"), ("r", "2", "x")], [("r", "3", "x")]),
        ([("r", "1", "x"), ("r", "2", "x")], [("r", "3", "x"), ("s", "1", "x")]),
        ([("r", "1", "")], [("r", "2", "")]),  # any two empty files are alike
    ],
)
def test_ambiguous_move_is_none(tmp_path: Path, before: Parts, after: Parts) -> None:
    found = compare(tmp_path, before, after)
    assert (found.totals.moved, found.totals.went, found.totals.came) == (0, len(before), len(after))


def test_copy_that_stays_does_not_hide_a_move(tmp_path: Path) -> None:
    found = compare(tmp_path, [("r", "1", "x"), ("r", "2", "x")], [("r", "1", "x"), ("s", "3", "x")])
    assert found.by_repository[1].moved == [MovedFile("3", 1, "r", "2")]
    assert (found.totals.went, found.totals.unchanged) == (0, 1)


def test_order_of_files_and_of_repositories(tmp_path: Path) -> None:
    before = [("r", "1", "x"), ("r", "2", "y"), ("s", "1", "z"), ("s", "9", "9")]
    files = compare(tmp_path, before, [("r", "2", "y"), ("r", "1", "x"), ("s", "0", "0"), ("s", "1", "z")])
    assert [(entry.repository, entry.reordered) for entry in files.by_repository] == [("r", True), ("s", False)]
    assert not files.reordered
    repositories = compare(tmp_path, before, [*before[2:], ("new", "n", "n"), *before[:2]])
    assert repositories.reordered
    assert [(entry.repository, entry.reordered) for entry in repositories.by_repository] == [
        ("s", False),
        ("new", False),
        ("r", False),
    ]


def test_path_that_stands_twice_is_compared_in_order(tmp_path: Path) -> None:
    """Only genomes of other scripts have such."""
    found = compare(
        tmp_path,
        [("r", "p", "first"), ("r", "p", "second"), ("r", "q", "1")],
        [("r", "p", "first"), ("r", "p", "second!"), ("r", "p", "third"), ("r", "q", "1")],
    )
    assert found.by_repository == [
        RepositoryDiff("r", "stayed", came=[FileSize("p", 5)], changed=[ChangedFile("p", 6, 7)], unchanged=2)
    ]


def test_empty_lines_between_parts_are_no_difference_of_files(tmp_path: Path) -> None:
    one = "<|repo_start|>r\n<|file_start|>p\nx\n<|file_end|>\n<|repo_end|>\n\n"
    (tmp_path / "a.txt").write_text(one)
    (tmp_path / "b.txt").write_text(one.replace("<|repo_end|>", "\n\n<|repo_end|>"))
    found = diff_genomes(tmp_path / "a.txt", tmp_path / "b.txt")
    assert not found.identical
    assert found.by_repository == [RepositoryDiff("r", "stayed", unchanged=1)]


def test_either_genome_may_be_damaged(tmp_path: Path) -> None:
    write_genome([GenomeFile("r", "p", "x")], tmp_path / "sound.txt")
    (tmp_path / "bad.txt").write_text("<|repo_start|>r\n")
    for pair in (("sound.txt", "bad.txt"), ("bad.txt", "sound.txt")):
        with pytest.raises(GenomeError, match="it ends before the") as caught:
            diff_genomes(*(tmp_path / name for name in pair))
        assert caught.value.where == f"{tmp_path / 'bad.txt'}, line 1"


few = st.sampled_from("abc")
some_files = st.lists(st.tuples(few, few, few), min_size=1, max_size=8)


@settings(deadline=None, max_examples=100)
@given(some_files, some_files)
def test_every_file_of_both_is_accounted_for_and_the_way_back_mirrors(
    tmp_path_factory: pytest.TempPathFactory, before: Parts, after: Parts
) -> None:
    place = tmp_path_factory.mktemp("genomes")
    there, back = compare(place, before, after), diff_genomes(place / "b.txt", place / "a.txt")
    totals = there.totals
    assert totals.went + totals.changed + totals.moved + totals.unchanged == len(before)
    assert totals.came + totals.changed + totals.moved + totals.unchanged == len(after)
    assert (back.totals.came, back.totals.went) == (totals.went, totals.came)
    assert (back.totals.changed, back.totals.moved, back.totals.unchanged) == (
        totals.changed,
        totals.moved,
        totals.unchanged,
    )
    assert {entry.repository for entry in back.by_repository if entry.reordered} == {
        entry.repository for entry in there.by_repository if entry.reordered
    }
