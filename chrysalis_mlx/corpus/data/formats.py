"""Files of one's own data, to the rows that stand in them.

    .jsonl             one JSON object per line
    .json              a list of objects, an object that holds one such list, or JSON Lines after all
    .csv .tsv          a header, then one row per record; delimited by comma, semicolon or tab
    .parquet           one row per row; needs pyarrow
    .txt               the whole file is one text; a file given alone becomes several passages, to keep some back

All but .parquet may be compressed (.jsonl.gz). JSON Lines, CSV and parquet are streamed; .json is read whole.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from chrysalis_mlx.errors import CorpusError

_PASSAGE = 8192  # characters
_LONGEST_FIELD = 2**31 - 1  # the csv module refuses more than 131,072 characters until it is told otherwise


@dataclass(frozen=True)
class Record:
    """What stands in one place of a file: a JSON object, or why it is none.

    Attributes:
        number: the line where it begins in JSON Lines, CSV and text, else its place among the rows; the first is 1.
        detail: more of the reason, which differs from row to row.
    """

    number: int
    value: dict[str, Any] | None
    reason: str = ""
    detail: str = ""


def is_readable(path: Path) -> bool:
    """Whether the name of a file is that of a format that rows are read from."""
    return _suffix(path) in _READERS and not (_compressed(path) and _suffix(path) == ".parquet")


def read_records(path: Path, *, alone: bool = False) -> Iterator[Record]:
    """What stands in a file, place by place; blank lines are passed over.

    Args:
        alone: divide a .txt file at blank lines into passages of 8,192 characters or a little more.

    Raises:
        CorpusError: the file as a whole cannot be read: another encoding than UTF-8, broken JSON, CSV or compression,
            or parquet without pyarrow.
    """
    reader = _READERS[_suffix(path)]
    if alone and reader is _text:
        reader = _passages
    try:
        yield from reader(path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(f"the compressed file is damaged: {error}", where=path, fix="copy it again") from error


def _compressed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if _compressed(path) else path).suffix.lower()


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if _compressed(path) else path.open("rb")


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file with their ends, without a byte order mark."""
    with _open(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                wide = number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff"))
                raise CorpusError(
                    "the file is UTF-16, not UTF-8" if wide else f"the file is not UTF-8: {error.reason}",
                    where=f"{path}, line {number}, byte {error.start + 1} (0x{line[error.start]:02x})",
                    fix="save it as UTF-8",
                ) from error
            yield text.removeprefix("\ufeff") if number == 1 else text


def _object(value: Any, number: int) -> Record:
    if isinstance(value, dict):
        return Record(number, value)
    return Record(number, None, "not a JSON object", f"it is {json.dumps(value, ensure_ascii=False)[:40]}")


def _json_lines(path: Path) -> Iterator[Record]:
    for number, line in enumerate(_lines(path), 1):
        if not line.isspace():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Record(number, None, "not valid JSON", str(error))
            else:
                yield _object(value, number)


def _json(path: Path) -> Iterator[Record]:
    try:
        value = json.loads("".join(_lines(path)))
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":  # a second value follows the first: JSON Lines under another name
            where = f"{path}, line {error.lineno}, column {error.colno}"
            raise CorpusError(f"the file is not valid JSON: {error.msg}", where=where) from error
        yield from _json_lines(path)
        return
    except RecursionError as error:
        raise CorpusError("the JSON is nested too deeply to be read", where=path) from error
    if isinstance(value, dict):
        lists = [key for key, item in value.items() if isinstance(item, list)]
        if len(lists) != 1:
            raise CorpusError(
                f"the JSON object holds {len(lists)} lists; the rows must be one list",
                where=path,
                fix="give a list of objects, an object with one such list, or JSON Lines",
            )
        value = value[lists[0]]
    if not isinstance(value, list):
        raise CorpusError("the JSON is neither a list nor an object", where=path, fix="give a list of objects")
    for number, item in enumerate(value, 1):
        yield _object(item, number)


def _table(path: Path) -> Iterator[Record]:
    csv.field_size_limit(_LONGEST_FIELD)
    lines = _lines(path)
    first = next(lines, "")
    delimiter = "\t" if _suffix(path) == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(_from(first, lines), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start = 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise CorpusError(
                    "a quote is opened and never closed", where=f"{path}, line {start}", fix="close it, or double it"
                ) from error
            fields, problem = [], str(error)
        else:
            problem = ""
        if fields is None:
            return
        if header is None:
            header = _header(fields, path, problem)
        elif problem:
            yield Record(start, None, "not valid CSV", problem)
        elif fields and len(fields) != len(header):
            yield Record(start, None, "not as many fields as the header", f"{len(fields)} for {len(header)}")
        elif fields:
            yield Record(start, dict(zip(header, (field.replace("\r\n", "\n") for field in fields), strict=True)))
        start = reader.line_num + 1


def _from(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _header(fields: list[str], path: Path, problem: str) -> list[str]:
    header = [field.strip() for field in fields]
    if not problem and not any(header):
        problem = "it is empty"
    if not problem and len(set(header)) < len(header):
        problem = "a name stands there twice"
    if problem:
        raise CorpusError(
            f"the header cannot be read: {problem}",
            where=f"{path}, line 1",
            fix="the first line names the columns, for instance prompt,completion",
        )
    return header


def _parquet(path: Path) -> Iterator[Record]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise CorpusError(
            "reading parquet needs pyarrow", where=path, fix='pip install "chrysalis-mlx[parquet]"'
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(number, _without_nulls(row))
    except (OSError, ValueError) as error:  # pyarrow's own errors are subclasses of these
        raise CorpusError(f"the parquet file cannot be read: {error}", where=path, fix="write it again") from error


def _without_nulls(value: Any) -> Any:
    """Every row of a parquet file has every key, so that an absent one is null."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _text(path: Path) -> Iterator[Record]:
    text = "".join(_lines(path)).replace("\r\n", "\n")
    yield Record(1, {"text": text})


def _passages(path: Path) -> Iterator[Record]:
    lines: list[str] = []
    size, start = 0, 1
    for number, line in enumerate(_lines(path), 1):
        lines.append(line.replace("\r\n", "\n"))
        size += len(line)
        # A text without blank lines is divided at line ends.
        if size >= _PASSAGE and (line.isspace() or size >= 2 * _PASSAGE):
            yield Record(start, {"text": "".join(lines)})
            lines, size, start = [], 0, number + 1
    if not "".join(lines).isspace():
        yield Record(start, {"text": "".join(lines)})


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _table,
    ".tsv": _table,
    ".parquet": _parquet,
    ".txt": _text,
}

SUFFIXES = tuple(_READERS)
