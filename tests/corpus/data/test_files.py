"""Which files of a path hold rows, and on which side of the split."""

from __future__ import annotations

from pathlib import Path

import pytest

from chrysalis_mlx.corpus.data.files import find_files
from chrysalis_mlx.errors import CorpusError


def put(path: Path) -> Path:
    path.touch()
    return path


def test_mlx_lm_directories_have_sides_and_other_files_are_passed_over(tmp_path: Path) -> None:
    names = ["train.jsonl", "valid.jsonl", "test.jsonl", "extra.jsonl", "README.md", ".hidden.jsonl", "trainer.json"]
    for name in names:
        put(tmp_path / name)
    (tmp_path / "sub.jsonl").mkdir()
    files, passed_over = find_files(tmp_path)
    assert [(file.name, file.side) for file in files] == [
        ("test.jsonl", "test"),
        ("valid.jsonl", "valid"),
        ("train.jsonl", "train"),
    ]
    assert passed_over == ["README.md", "extra.jsonl", "sub.jsonl/", "trainer.json"]


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("TRAIN.JSONL", "train"),
        ("validation-00000-of-00001.parquet", "valid"),
        ("val.csv", "valid"),
        ("dev.json", "valid"),
        ("eval-00001-of-00002-0a1b2c.parquet", "valid"),
        ("test.jsonl.gz", "test"),
    ],
)
def test_a_side_is_told_by_the_whole_name(tmp_path: Path, name: str, side: str) -> None:
    put(tmp_path / name)
    put(tmp_path / "train.txt")
    assert {file.name: file.side for file in find_files(tmp_path)[0]}[name] == side


@pytest.mark.parametrize("name", ["dev-notes.jsonl", "test_v2.jsonl", "train.v2.jsonl", "validate.csv", "train-1.json"])
def test_a_name_that_only_begins_like_a_side_has_none(tmp_path: Path, name: str) -> None:
    put(tmp_path / name)
    assert [file.side for file in find_files(tmp_path)[0]] == [None]


def test_first_words_tell_the_sides_where_there_is_something_to_train_and_to_test(tmp_path: Path) -> None:
    for name in ("train_sft-00000-of-00002.parquet", "train_sft-00001-of-00002.parquet", "notes.jsonl"):
        put(tmp_path / name)
    assert {file.side for file in find_files(tmp_path)[0]} == {None}
    put(tmp_path / "test_sft-00000-of-00001.parquet")
    files, passed_over = find_files(tmp_path)
    assert [(file.name, file.side) for file in files] == [
        ("test_sft-00000-of-00001.parquet", "test"),
        ("train_sft-00000-of-00002.parquet", "train"),
        ("train_sft-00001-of-00002.parquet", "train"),
    ]
    assert passed_over == ["notes.jsonl"]


def test_a_directory_without_such_names_is_read_whole_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.jsonl", "notes.pdf"):
        put(tmp_path / name)
    files, passed_over = find_files(tmp_path)
    assert [(file.name, file.side) for file in files] == [("a.txt", None), ("b.txt", None), ("c.jsonl", None)]
    assert passed_over == ["notes.pdf"]


def test_a_single_file_has_no_side(tmp_path: Path) -> None:
    assert [file.side for file in find_files(put(tmp_path / "train.jsonl"))[0]] == [None]


def test_paths_that_hold_nothing_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such file or directory"):
        find_files(tmp_path / "missing")
    with pytest.raises(CorpusError, match=r"holds no file of rows\n[^;]*to do: give one of \.jsonl"):
        find_files(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(CorpusError, match=r"subfolders are not entered[\s\S]*give a subfolder, for instance data/"):
        find_files(tmp_path)
    with pytest.raises(CorpusError, match=r"'\.docx' is no format"):
        find_files(put(tmp_path / "rows.docx"))
    with pytest.raises(CorpusError, match=r"'\.gz' is no format"):
        find_files(put(tmp_path / "rows.parquet.gz"))
    put(tmp_path / "test.jsonl")
    put(tmp_path / "valid.jsonl")
    with pytest.raises(CorpusError, match="test and valid rows, but none to train on"):
        find_files(tmp_path)
