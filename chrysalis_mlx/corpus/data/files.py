"""Which files of a path hold rows, and on which side of the split."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from chrysalis_mlx.corpus.data.formats import SUFFIXES, is_readable
from chrysalis_mlx.corpus.data.report import writable
from chrysalis_mlx.errors import CorpusError

_SIDES = {
    "train": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "eval": "valid",
    "test": "test",
}
_PART = re.compile(r"-\d+-of-\d+(-[0-9a-f]+)?$")  # of a file that was divided: train-00000-of-00002.parquet


@dataclass(frozen=True)
class DataFile:
    """A file of rows.

    Attributes:
        name: without its directory.
        side: what its name says, as in train.jsonl or validation-00000-of-00002.parquet; None: nothing.
        alone: no other file was given.
    """

    path: Path
    name: str
    side: str | None
    alone: bool = False


def find_files(path: Path) -> tuple[list[DataFile], list[str]]:
    """The files of rows that `path` is or holds, by name; and the names of those passed over.

    Where files of a directory are named train (and valid, test), the others are passed over, and train comes last.
    Subfolders always are passed over.

    Raises:
        CorpusError: nothing there, nothing of a known format, or no train beside a valid or test.
    """
    if path.is_file():
        if not is_readable(path):
            raise CorpusError(
                f"'{path.suffix}' is no format that rows are read from", where=path, fix=f"give {', '.join(SUFFIXES)}"
            )
        return [DataFile(path, writable(path.name), None, alone=True)], []
    if not path.is_dir():
        raise CorpusError("there is no such file or directory", where=path, fix="give --data a file or a directory")
    known: list[DataFile] = []
    others: list[str] = []
    for entry in sorted(path.iterdir()):
        if entry.name.startswith(".") or not (entry.is_file() or entry.is_dir()):
            continue
        if entry.is_dir():
            others.append(f"{writable(entry.name)}/")
        elif is_readable(entry):
            known.append(DataFile(entry, writable(entry.name), _side(entry)))
        else:
            others.append(writable(entry.name))
    if not any(file.side for file in known):
        known = _by_first_words(known)
    sides = {file.side for file in known} - {None}
    if not known:
        folders = [name for name in others if name.endswith("/")]
        raise CorpusError(
            "the directory holds no file of rows" + ("; subfolders are not entered" if folders else ""),
            where=path,
            fix=f"give a subfolder, for instance {folders[0]}" if folders else f"give one of {', '.join(SUFFIXES)}",
        )
    if not sides:
        return [DataFile(file.path, file.name, None) for file in known], others
    if "train" not in sides:
        raise CorpusError(
            f"the directory has {' and '.join(sorted(filter(None, sides)))} rows, but none to train on",
            where=path,
            fix="name the file to train on train.jsonl, or give that file alone",
        )
    passed_over = others + [file.name for file in known if file.side is None]
    # Of copies the first one stays: not that on which the model is trained.
    ordered = sorted((file for file in known if file.side), key=lambda file: file.side == "train")
    return ordered, sorted(passed_over)


def _side(path: Path) -> str | None:
    """By the whole name, train.jsonl or train-00000-of-00002.parquet: dev-notes.jsonl is no validation set."""
    return _SIDES.get(_stem(path))


def _by_first_words(files: list[DataFile]) -> list[DataFile]:
    """The sides of train_sft.parquet beside test_sft.parquet; a single word, dev-notes.jsonl, says nothing."""
    words = [_SIDES.get(re.split(r"[-_.]", _stem(file.path))[0]) for file in files]
    if "train" not in words or not {"valid", "test"} & {*words}:
        return files
    return [replace(file, side=word) for file, word in zip(files, words, strict=True)]


def _stem(path: Path) -> str:
    return _PART.sub("", path.name.lower().removesuffix(".gz").rpartition(".")[0])
