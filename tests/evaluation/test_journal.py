"""What was answered is kept line by line, and nothing that is not whole or was asked of something else."""

from __future__ import annotations

import errno
import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from chrysalis_mlx.errors import RunError
from chrysalis_mlx.evaluation.journal import Journal, exclusive


def never() -> object:
    raise AssertionError("asked again")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A journal of three answers."""
    journal = Journal(tmp_path / "run/evaluation/base.jsonl", "k")
    for number in range(3):
        assert journal.get(f"test {number}", lambda number=number: {"1": [number, -0.5]}) == {"1": [number, -0.5]}
    return tmp_path / "run/evaluation/base.jsonl"


def test_what_was_answered_is_not_asked_again(file: Path) -> None:
    before = file.read_bytes()
    journal = Journal(file, "k")
    assert [journal.get(f"test {number}", never) for number in range(3)] == [{"1": [n, -0.5]} for n in range(3)]
    assert ("test 2" in journal, "test 3" in journal) == (True, False)
    assert file.read_bytes() == before


def test_an_answer_is_what_reading_it_gives(file: Path) -> None:
    """Otherwise a run that was stopped would compute with something else than one that was not."""
    assert Journal(file, "k").get("answers 0", lambda: ((1, 2), {3: float("-inf")})) == [[1, 2], {"3": float("-inf")}]
    assert Journal(file, "k")["answers 0"] == [[1, 2], {"3": float("-inf")}]


@pytest.mark.parametrize("cut", range(1, 45, 4))
def test_a_line_that_is_not_whole_is_cut_off(file: Path, cut: int) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    journal = Journal(file, "k")
    lines = whole.splitlines(keepends=True)
    left = len([line for line in lines[1:] if whole.index(line) + len(line) <= len(whole) - cut])
    assert [f"test {number}" in journal for number in range(3)] == [number < left for number in range(3)]
    assert file.read_bytes() == b"".join(lines[: left + 1])
    for number in range(left, 3):
        journal.get(f"test {number}", lambda number=number: {"1": [number, -0.5]})
    assert file.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"{}\n", b"nonsense\n", b"[1]\n", b"\xff\xfe\n"])
def test_nothing_is_read_after_a_damaged_line(file: Path, damage: bytes) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], damage, *lines[2:]]))
    journal = Journal(file, "k")
    assert [f"test {number}" in journal for number in range(3)] == [True, False, False]
    assert file.read_bytes() == b"".join(lines[:2])


@pytest.mark.parametrize("head", [json.dumps({"key": "other"}) + "\n", '{"key": "k"', "", "\n", "nonsense\n"])
def test_with_another_key_or_none_it_begins_anew(file: Path, head: str) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(head + "".join(lines[1:]) if head.endswith("\n") else head)
    journal = Journal(file, "k")
    assert "test 0" not in journal
    assert file.read_text() == json.dumps({"key": "k"}) + "\n"


def test_an_answer_that_fails_is_not_kept(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(AssertionError):
        Journal(file, "k").get("test 3", never)
    assert file.read_bytes() == before


HOLDS = """
import sys
from pathlib import Path
from chrysalis_mlx.evaluation.journal import exclusive

with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_of_journals_is_one_process_s_until_it_ends_or_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run/evaluation"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDS, folder], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another process is evaluating this run"), exclusive(folder):
            pass
        other.kill()
    with exclusive(folder):
        pass
    with exclusive(folder):  # an end lets go, too
        assert list(folder.iterdir()) == []


def test_a_file_system_without_locks_is_no_reason_not_to_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with exclusive(tmp_path / "evaluation"):
        assert (tmp_path / "evaluation").is_dir()
