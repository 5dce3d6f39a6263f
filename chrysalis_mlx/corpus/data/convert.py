"""Files of one's own rows, to rows of the corpus: read, converted, compared, divided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chrysalis_mlx.batches.rows import Row
from chrysalis_mlx.blueprint.schema import DataSection, SplitSection
from chrysalis_mlx.corpus.data.conversation import BadRowError
from chrysalis_mlx.corpus.data.files import DataFile, find_files
from chrysalis_mlx.corpus.data.formats import read_records
from chrysalis_mlx.corpus.data.forms import FormName, convert, known_keys, tell_form, why_no_form
from chrysalis_mlx.corpus.data.report import DataReport, FileReport, Remark, listed, writable
from chrysalis_mlx.corpus.document import Document, Selected
from chrysalis_mlx.corpus.split import SIDES, split_documents
from chrysalis_mlx.errors import CorpusError

# A line that this share of the prompts has, and at least so many of them, tells nothing about likeness.
_COMMON_SHARE, _COMMON_ROWS = 0.05, 5
_NOTHING: tuple[object, ...] = (None, "", [], {})


@dataclass(frozen=True)
class DataSet:
    """Rows of one's own in the forms of batches/rows.py, in the order of the files.

    Attributes:
        rows: with `repository` (the file's name), `path` (the row's number) and `framing` (the form it came in).
        sides: of each row, the side that its file's name says; None where it says nothing.
    """

    rows: list[Row]
    sides: list[str | None]
    report: DataReport

    def documents(self) -> list[Document]:
        """What the gates, the search for copies and the split compare: each row's prompt and answers as one text.

        What many rows have in common is left away, or all of them would be alike: system messages, tools, and the
        lines of prompts that at least 5% of the rows repeat.
        """
        lines = Counter(line for row in self.rows for line in set(_asked(row).split("\n")))
        often = max(_COMMON_ROWS, _COMMON_SHARE * len(self.rows))
        common = {line for line, rows in lines.items() if rows >= often}
        return [_document(row, common) for row in self.rows]

    def kept(self, indices: Iterable[int]) -> DataSet:
        """The same with only these rows."""
        places = list(indices)
        return DataSet([self.rows[i] for i in places], [self.sides[i] for i in places], self.report)


def read_data(path: Path, section: DataSection, *, chat: bool) -> DataSet:
    """The rows of a file or directory; what is wrong with a row goes to the report, and the other rows go on.

    Args:
        chat: whether the model has a chat template, so that questions and answers become conversations.

    Raises:
        CorpusError: a file cannot be read, or none of the rows (none of those to train on) can be learned from.
    """
    files, passed_over = find_files(path)
    data = DataSet([], [], DataReport(passed_over=passed_over))
    for file in files:
        _read(file, None if section.form == "auto" else section.form, chat, data)
    needed: str | None = "train" if any(file.side for file in files) else None
    if needed not in data.sides:
        left_out = data.report.left_out
        raise CorpusError(
            f"none of the rows{' to train on' if needed else ''} can be learned from"
            + (f":\n{listed(left_out)}" if left_out else "; there are none"),
            where=path,
            fix="mend the rows, or name their form: messages, sharegpt, alpaca, completion or text (data.form)",
        )
    return data


def missing_sides(data: DataSet, section: DataSection) -> list[str]:
    """The sides that have to be taken from the rows to train on; those need families, the others do not.

    Raises:
        CorpusError: the blueprint asks for the files' own sides, and there are none.
    """
    own = any(data.sides)
    if section.split == "own" and not own:
        raise CorpusError(
            "the rows have no sides of their own",
            where="data.split",
            fix="name the files train.jsonl, valid.jsonl and test.jsonl, or set data.split: families",
        )
    if section.split == "families" or not own:
        return list(SIDES)
    return [side for side in SIDES if side not in data.sides]


def divide(
    data: DataSet, section: DataSection, split: SplitSection, select: Callable[[], Sequence[Selected]]
) -> list[str]:
    """The side of each row: its file's own, or by families as documents of a genome are divided.

    A side that no file has is taken from the rows to train on.

    Args:
        select: the rows with their families; called only where rows have to be divided.

    Raises:
        CorpusError: too few rows to divide.
    """
    missing = missing_sides(data, section)
    sides = [side or "train" for side in data.sides]
    if not missing:
        return sides
    selected = select()
    if len(missing) == len(SIDES):
        return split_documents(selected, split)
    train = [index for index, side in enumerate(sides) if side == "train"]
    for index, side in zip(train, split_documents([selected[i] for i in train], split), strict=True):
        if side in missing:
            sides[index] = side
    return sides


def _read(file: DataFile, form: FormName | None, chat: bool, data: DataSet) -> None:
    report = FileReport(file.name, file.side, form)
    data.report.files.append(report)
    for record in read_records(file.path, alone=file.alone):
        report.rows += 1
        try:
            if record.value is None:
                raise BadRowError(record.reason, record.detail)
            row = known_keys(record.value)
            report.form = form = form or tell_form(row)
            if form is None:
                raise why_no_form(row)
            converted = convert(row, form, chat=chat)
        except BadRowError as error:
            data.report.left_out.append(Remark(file.name, record.number, error.reason, writable(error.detail)))
            continue
        report.kept += 1
        data.report.unused.update(
            writable(key) for key, value in row.items() if key not in converted.used and value not in _NOTHING
        )
        data.report.changed += [Remark(file.name, record.number, note) for note in converted.notes]
        data.rows.append(converted.row | {"repository": file.name, "path": str(record.number), "framing": form})
        data.sides.append(file.side)


def _asked(row: Row) -> str:
    """What the answer is learned to, of a text nothing."""
    if "messages" in row:
        return "\n\n".join(turn["content"] for turn in row["messages"] if turn["role"] == "user")
    return str(row.get("prompt", ""))


def _answered(row: Row) -> str:
    if "messages" in row:
        return "\n\n".join(turn["content"] for turn in row["messages"] if turn["role"] == "assistant")
    return str(row["completion"] if "completion" in row else row["text"])


def _document(row: Row, common: set[str]) -> Document:
    asked = "\n".join(line for line in _asked(row).split("\n") if line not in common)
    text = f"{asked}\n\n{_answered(row)}".strip("\n").removeprefix("\ufeff").replace("\r\n", "\n")
    return Document(row["repository"], row["path"], text)
