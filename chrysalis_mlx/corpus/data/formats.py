"""Files of one's own data, to the rows that stand in them.

    .jsonl             one JSON object per line
    .json              a list of objects, an object that holds one such list, one row, or JSON Lines after all
    .csv .tsv          a header, then one row per record; delimited by comma, semicolon or tab
    .parquet           one row per row; needs pyarrow
    .txt               the whole file is one text; a file given alone becomes several passages, to keep some back

All but .parquet may be compressed (.jsonl.gz). JSON Lines, CSV and parquet are streamed; .json is read whole.
"""

from __future__ import annotations

import gzip
import importlib
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chrysalis_mlx.corpus.data.forms import tell_form
from chrysalis_mlx.corpus.data.records import Record, is_compressed, lines_of, suffix_of
from chrysalis_mlx.corpus.data.tables import once, read_table
from chrysalis_mlx.errors import CorpusError

_PASSAGE = 8192  # characters


def is_readable(path: Path) -> bool:
    """Whether the name of a file is that of a format that rows are read from."""
    return suffix_of(path) in _READERS and not (is_compressed(path) and suffix_of(path) == ".parquet")


def read_records(path: Path, *, alone: bool = False) -> Iterator[Record]:
    """What stands in a file, place by place; blank lines are passed over.

    Args:
        alone: divide a .txt file at blank lines into passages of 8,192 characters or a little more, all but the last of
            which go on in the next.

    Raises:
        CorpusError: the file as a whole cannot be read: another encoding than UTF-8, broken JSON, CSV or compression,
            or parquet without pyarrow.
    """
    reader = _READERS[suffix_of(path)]
    if alone and reader is _text:
        reader = _passages
    try:
        yield from reader(path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(f"the compressed file is damaged: {error}", where=path, fix="copy it again") from error


def _object(value: Any, number: int) -> Record:
    if isinstance(value, dict):
        return Record(number, value)
    return Record(number, None, "not a JSON object", f"it is {json.dumps(value, ensure_ascii=False)[:40]}")


def _json_lines(path: Path) -> Iterator[Record]:
    written = ((number, line) for number, line in enumerate(lines_of(path), 1) if not line.isspace())
    for place, (number, line) in enumerate(written):
        if place == 0 and (line.strip() == "{" or line.lstrip().startswith("[")):
            raise CorpusError(
                "a JSON list, or an object over several lines, where each line should be an object of its own",
                where=f"{path}, line {number}",
                fix="name the file .json if it is a single list or object, or write a row on each line",
            )
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Record(number, None, "not valid JSON", str(error))
        else:
            yield _object(value, number)


def _json(path: Path) -> Iterator[Record]:
    try:
        value = json.loads("".join(lines_of(path)))
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":  # a second value follows the first: JSON Lines under another name
            where = f"{path}, line {error.lineno}, column {error.colno}"
            raise CorpusError(f"the file is not valid JSON: {error.msg}", where=where) from error
        yield from _json_lines(path)
        return
    except RecursionError as error:
        raise CorpusError("the JSON is nested too deeply to be read", where=path) from error
    if isinstance(value, dict):
        value = _rows_of(value, path)
    if not isinstance(value, list):
        raise CorpusError("the JSON is neither a list nor an object", where=path, fix="give a list of objects")
    for number, item in enumerate(value, 1):
        yield _object(item, number)


def _rows_of(value: dict[str, Any], path: Path) -> list[Any]:
    """The list of rows that an object holds; or the object, where it is itself the only row."""
    lists = [item for item in value.values() if isinstance(item, list)]
    if tell_form(value) and not any(_holds_rows(items) for items in lists):
        return [value]
    if len(lists) == 1:
        return lists[0]
    raise CorpusError(
        f"the JSON object is no row, and holds {len(lists)} lists; the rows must be one list",
        where=path,
        fix="give a list of objects, an object with one such list, or JSON Lines",
    )


def _holds_rows(items: list[Any]) -> bool:
    """Whether they are rows, and not the turns of one; a turn may have a text as a row has."""
    first = items[0] if items else None
    return isinstance(first, dict) and tell_form(first) is not None and not first.keys() & {"role", "from"}


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
            once(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(number, {key: _without_nulls(item) for key, item in row.items()})
    except (OSError, ValueError) as error:  # pyarrow's own errors are subclasses of these
        raise CorpusError(f"the parquet file cannot be read: {error}", where=path, fix="write it again") from error


def _without_nulls(value: Any) -> Any:
    """Every turn in a parquet file has every key, so that an absent one is null."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _text(path: Path) -> Iterator[Record]:
    text = "".join(lines_of(path)).replace("\r\n", "\n")
    yield Record(1, {"text": text})


def _passages(path: Path) -> Iterator[Record]:
    lines: list[str] = []
    size, start = 0, 1
    for number, line in enumerate(lines_of(path), 1):
        lines.append(line.replace("\r\n", "\n"))
        size += len(line)
        # A text without blank lines is divided at line ends.
        if size >= _PASSAGE and (line.isspace() or size >= 2 * _PASSAGE):
            yield Record(start, {"text": "".join(lines)}, ends=False)
            lines, size, start = [], 0, number + 1
    if not "".join(lines).isspace():
        yield Record(start, {"text": "".join(lines)})


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": read_table,
    ".tsv": read_table,
    ".parquet": _parquet,
    ".txt": _text,
}

SUFFIXES = tuple(_READERS)
