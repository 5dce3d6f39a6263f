"""Commits as rows: every part is a diff by itself, and together they are the whole one."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.corpus.frame.history import commit_rows, occurrences
from chrysalis_mlx.genome.git.patch import FileDiff, read_patch
from chrysalis_mlx.genome.history import Commit
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests.genome.repositories import git, make_repository

SHA = "0123456789abcdef0123456789abcdef01234567"
MESSAGE = "Count the sheep anew\n\nThe old figures were wrong."
PROMPT = f"Write the diff of this commit to farm:\n\n{MESSAGE}\n\n"


def commit_of(root: Path, before: dict[str, str], after: dict[str, str], message: str = MESSAGE) -> Commit:
    """The commit that turns some files into others, as git tells it."""
    make_repository(root, before)
    make_repository(root, after)
    patch = git(root, "diff-tree", "-r", "-p", "--full-index", "HEAD~1", "HEAD") + "\n"
    files = read_patch((line.encode() + b"\n" for line in patch.split("\n")[:-1]), 1 << 20)
    return Commit("farm", SHA, message, tuple(file for file in files if file))


def sheep(count: int, word: str = "sheep") -> str:
    return "".join(f"{n} {word}\n" for n in range(count))


BEFORE = {"a.md": sheep(200), "b.md": "old\n", "c.md": "one"}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Commit:
    """Many hunks, one long hunk, one line, and a new file."""
    root = tmp_path_factory.mktemp("large") / "r"
    many = sheep(200).replace("0 sheep\n", "0 black sheep\n")
    return commit_of(
        root,
        BEFORE,
        {"a.md": many, "b.md": sheep(80, "goats"), "c.md": "two", "d e.md": sheep(70, "lambs")},
    )


def test_a_short_commit_is_one_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
    commit = commit_of(tmp_path / "r", {"a.md": "1 sheep\n"}, {"a.md": "2 sheep\n"})
    assert commit_rows(commit, tokenizer, 512) == [
        {
            "prompt": PROMPT,
            "completion": "--- a/a.md\n+++ b/a.md\n@@ -1 +1 @@\n-1 sheep\n+2 sheep\n",
            "repository": "farm",
            "path": "commit 0123456789ab",
            "framing": "history",
            "part": 1,
            "parts": 1,
        }
    ]


@pytest.mark.parametrize("row_length", [160, 200, 333, 512, 1024, 4096])
@pytest.mark.parametrize("name", ["tokenizer", "spm_tokenizer"])
def test_parts_fit_and_apply(
    tmp_path: Path, large: Commit, row_length: int, name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    rows = commit_rows(large, tokenizer, row_length)
    assert [(row["part"], row["parts"]) for row in rows] == [(n, len(rows)) for n in range(1, len(rows) + 1)]
    for row, before in zip(rows, ["", *(row["completion"] for row in rows)], strict=False):
        shown = row["prompt"].removeprefix(PROMPT)
        assert before.endswith(shown)
        assert (row["part"] > 1) == (len(shown) > 0)
        assert len(shown) <= row_length // 4
    lengths = [len(segment.tokens) for segment in segments(rows, tokenizer)]
    assert max(lengths) <= row_length
    if len(rows) > 1:
        assert sum(lengths) > len(rows) * row_length * 0.4
    root = tmp_path / "r"
    make_repository(root, BEFORE)
    for row in rows:  # git reads every part and finds its place, one after the other
        patch = row["completion"].encode()
        subprocess.run(["git", "-C", str(root), "apply", "--unidiff-zero", "-"], input=patch, check=True)
    assert (root / "a.md").read_text() == sheep(200).replace("0 sheep\n", "0 black sheep\n")
    assert (root / "b.md").read_text() == sheep(80, "goats")
    assert (root / "c.md").read_text() == "two"
    assert (root / "d e.md").read_text() == sheep(70, "lambs")


def test_a_whole_diff_is_what_git_wrote(large: Commit, tokenizer: Tokenizer) -> None:
    [row] = commit_rows(large, tokenizer, 1 << 14)
    assert row["completion"] == large.diff


def test_parts_end_between_files_and_hunks_where_they_can(large: Commit, tokenizer: Tokenizer) -> None:
    rows = commit_rows(replace(large, files=large.files[:1]), tokenizer, 512)
    hunks = {hunk for file in large.files for hunk in file.hunks}
    for row in rows:
        assert row["completion"].startswith("--- a/a.md\n+++ b/a.md\n@@ ")
        parts = row["completion"].split("\n@@ ")[1:]
        assert {f"@@ {part}".strip("\n") + "\n" for part in parts} <= hunks
    assert sum(row["completion"].count("\n@@ ") for row in rows) == len(large.files[0].hunks)


def test_a_line_and_what_replaces_it_stay_together(tmp_path: Path, tokenizer: Tokenizer) -> None:
    before = "".join(f"{n} sheep\n" + "grass\n" * 8 for n in range(40))
    commit = commit_of(tmp_path / "r", {"a.md": before}, {"a.md": before.replace(" sheep\n", " goats\nand bells\n")})
    rows = commit_rows(replace(commit, files=(replace(commit.files[0]),)), tokenizer, 256)
    assert len(rows) > 4
    for row in rows:
        changes = re.findall(r"^[-+].*", row["completion"], re.MULTILINE)[2:]
        assert [re.sub(r"\d+", "0", line) for line in changes] == ["-0 sheep", "+0 goats", "+and bells"] * (
            len(changes) // 3
        )


def test_a_long_message_gives_way_to_its_subject(tmp_path: Path, tokenizer: Tokenizer) -> None:
    commit = commit_of(tmp_path / "r", {"a.md": "1\n"}, {"a.md": "2\n"}, f"Count the sheep\n\n{sheep(200)}".strip())
    [row] = commit_rows(commit, tokenizer, 256)
    assert row["prompt"] == "Write the diff of this commit to farm:\n\nCount the sheep\n\n"
    [row] = commit_rows(commit, tokenizer, 1 << 13)
    assert row["prompt"].endswith("199 sheep\n\n")


def test_what_cannot_be_framed_has_no_rows(tmp_path: Path, tokenizer: Tokenizer) -> None:
    long = "baa " * 300
    commit = commit_of(tmp_path / "r", {"a.md": "1\n2\n"}, {"a.md": f"1\n{long}\n"})
    assert commit_rows(commit, tokenizer, 200) == []
    assert len(commit_rows(commit, tokenizer, 2048)) == 1
    assert commit_rows(replace(commit, message=long), tokenizer, 256) == []


def test_how_often() -> None:
    commits = [Commit("farm", f"{n:040x}", "", ()) for n in range(2000)]
    for weight in (0.0, 0.3, 1.0, 2.5):
        counts = [occurrences(weight, 7, commit) for commit in commits]
        assert set(counts) <= {int(weight), -int(-weight // 1)}
        assert abs(sum(counts) - weight * 2000) < 80  # more than three standard deviations
    assert [occurrences(0.5, 7, commit) for commit in commits[:8]] == [0, 1, 0, 1, 1, 1, 1, 1]
    assert [occurrences(0.5, 8, commit) for commit in commits] != [occurrences(0.5, 7, commit) for commit in commits]


def test_a_new_file(tokenizer: Tokenizer) -> None:
    file = FileDiff("a.md", None, "100644", "--- /dev/null\n+++ b/a.md\n", ("@@ -0,0 +1,2 @@\n+1\n+2\n",))
    [row] = commit_rows(Commit("farm", SHA, "Count two sheep", (file,)), tokenizer, 512)
    assert row["completion"] == file.text
