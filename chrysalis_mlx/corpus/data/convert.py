"""Files of one's own rows, to rows of the corpus: read, converted, divided."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chrysalis_mlx.batches.rows import Row
from chrysalis_mlx.blueprint.schema import DataSection, SplitSection
from chrysalis_mlx.corpus.data.conversation import BadRowError
from chrysalis_mlx.corpus.data.files import DataFile, find_files
from chrysalis_mlx.corpus.data.formats import read_records
from chrysalis_mlx.corpus.data.forms import FORMS, FormName, convert, known_keys, tell_form, why_no_form
from chrysalis_mlx.corpus.data.report import DataReport, FileReport, Remark, listed, writable
from chrysalis_mlx.corpus.document import Selected
from chrysalis_mlx.corpus.split import SIDES, split_documents
from chrysalis_mlx.errors import CorpusError

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
    require_rows(data, path, has_sides=any(file.side for file in files), fix=f"mend them. {FORMS}")
    return data


def require_rows(data: DataSet, where: Path, *, has_sides: bool, fix: str) -> None:
    """Make sure that there is something to train on.

    Raises:
        CorpusError: there is nothing; it lists the first rows that were left out, and why.
    """
    if not data.rows or (has_sides and "train" not in data.sides):
        left_out = data.report.left_out
        raise CorpusError(
            f"none of the rows{' to train on' if has_sides else ''} can be learned from"
            + (f":\n{listed(left_out)}" if left_out else "; there are none"),
            where=where,
            fix=fix,
        )


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
    train = [index for index, side in enumerate(sides) if side == "train" or len(missing) == len(SIDES)]
    selected = select()
    try:
        divided = split_documents([selected[index] for index in train], split)
    except CorpusError as error:
        raise CorpusError(
            f"{len(train)} row(s) to divide are too few, or too much alike: each of {', '.join(missing)} "
            "needs rows that resemble none of the others",
            where="data.split",
            fix="give train.jsonl, valid.jsonl and test.jsonl, or more rows, or raise expression.copies.family",
        ) from error
    for index, side in zip(train, divided, strict=True):
        if side in missing:
            sides[index] = side
    data.report.notes.append(_how_divided(data, missing, sides))
    return sides


def _how_divided(data: DataSet, missing: Sequence[str], sides: Sequence[str]) -> str:
    if len(missing) == len(SIDES):
        why = "the blueprint asks for it" if any(data.sides) else "no sides were given"
        return f"the rows were divided: {why}"
    taken = " and ".join(f"{sides.count(side):,} for {side}" for side in missing)
    return f"no rows were given for {' and '.join(missing)}; of those to train on were taken: {taken}"


def _read(file: DataFile, form: FormName | None, chat: bool, data: DataSet) -> None:
    report = FileReport(file.name, file.side, form)
    data.report.files.append(report)
    first = len(data.rows)
    is_divided = False
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
        is_divided |= not record.ends
        data.report.unused.update(
            writable(key) for key, value in row.items() if key not in converted.used and value not in _NOTHING
        )
        data.report.changed += [Remark(file.name, record.number, note) for note in converted.notes]
        data.rows.append(converted.row | {"repository": file.name, "path": str(record.number), "framing": form})
        data.sides.append(file.side)
    if is_divided:
        parts = range(first, len(data.rows))
        for part, index in enumerate(parts, 1):
            data.rows[index] |= {"part": part, "parts": len(parts)}
