"""Delimited text, with a header and a row per record, to records.

Commas and semicolons are read as RFC 4180 has them. Many files that are delimited by tabs know no quotes, so that there
a quote may be a mere character: a line, or several, are read with quotes where that gives as many fields as the header
has, and where several lines do not give that each by itself; else every line is divided at its tabs.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from chrysalis_mlx.corpus.data.records import Record, lines_of, suffix_of
from chrysalis_mlx.errors import CorpusError

_LONGEST_FIELD = 2**31 - 1  # the csv module refuses more than 131,072 characters until it is told otherwise
_EXCEL_DELIMITER = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)

_IN_QUOTES = re.compile(r'"(?:[^"]|"")*"')

# A record's first line, its fields, and why it has none.
_Fields = tuple[int, list[str], str]


def read_table(path: Path) -> Iterator[Record]:
    """The rows of a table; blank lines are passed over.

    Raises:
        CorpusError: the header cannot be read, or a quote is never closed.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    lines = enumerate(lines_of(path), 1)
    start, first = next(lines, (1, ""))
    named = _EXCEL_DELIMITER.fullmatch(first)
    if named:
        start, first = next(lines, (2, ""))
    delimiter = named[1] if named else "\t" if suffix_of(path) == ".tsv" else max(",;\t", key=first.count)
    header = _header(first, delimiter, f"{path}, line {start}")
    rest = _tabbed(lines, len(header)) if delimiter == "\t" else _quoted(lines, delimiter, path)
    for number, fields, problem in rest:
        if problem:
            yield Record(number, None, "not valid CSV", problem)
        elif len(fields) != len(header):
            yield Record(number, None, "not as many fields as the header", f"{len(fields)} for {len(header)}")
        else:
            yield Record(number, dict(zip(header, (field.replace("\r\n", "\n") for field in fields), strict=True)))


def once(names: list[str], where: object) -> list[str]:
    """The names of the columns.

    Raises:
        CorpusError: a name stands there twice, so that one column would hide the other.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _bad_header(f"the name {twice!r} stands there twice", where)
    return names


def _bad_header(problem: str, where: object) -> CorpusError:
    return CorpusError(
        f"the header cannot be read: {problem}",
        where=where,
        fix="each column needs a name of its own, for instance prompt,completion",
    )


def _header(line: str, delimiter: str, where: str) -> list[str]:
    try:
        header = [field.strip() for field in next(csv.reader([line], delimiter=delimiter, strict=True), [])]
    except csv.Error as error:
        raise _bad_header(str(error), where) from error
    if not any(header):
        raise _bad_header("it is empty", where)
    return once(header, where)


def _quoted(lines: Iterator[tuple[int, str]], delimiter: str, path: Path) -> Iterator[_Fields]:
    number = start = 0

    def texts() -> Iterator[str]:
        nonlocal number, start
        for number, line in lines:
            start = start or number
            yield line

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    while True:
        start = 0
        try:
            fields = next(reader, None)
        except csv.Error as error:
            if number and "unexpected end of data" in str(error):
                raise CorpusError(
                    "a quote is opened and never closed", where=f"{path}, line {start}", fix="close it, or double it"
                ) from error
            yield start, [], str(error)
        else:
            if fields is None:
                return
            if fields:
                yield start, fields, ""


def _tabbed(lines: Iterator[tuple[int, str]], width: int) -> Iterator[_Fields]:
    """Each line is read four times at most, however many quotes are never closed."""
    opened: list[tuple[int, str]] = []  # the lines since a quote that none of them closes
    for number, line in lines:
        if opened and line.count('"') % 2 == 0:  # whatever it closes it opens again
            opened.append((number, line))
            continue
        if opened:
            texts = [text for _, text in opened] + [line]
            fields, _ = _with_quotes(texts)
            if len(fields) == width and (width == 1 or any(text.count("\t") != width - 1 for text in texts)):
                yield opened[0][0], fields, ""
                opened = []
                continue
            yield from _by_line(opened, width)
            opened = []
        if _with_quotes([line])[1]:
            opened = [(number, line)]
        else:
            yield from _by_line([(number, line)], width)
    yield from _by_line(opened, width)


def _by_line(lines: list[tuple[int, str]], width: int) -> Iterator[_Fields]:
    for number, line in lines:
        fields, _ = _with_quotes([line])
        if len(fields) != width:
            fields = [_unquoted(field) for field in line.rstrip("\r\n").split("\t")]
        if line.strip("\r\n"):
            yield number, fields, ""


def _with_quotes(lines: list[str]) -> tuple[list[str], bool]:
    """The fields of a record, none if it is not well formed; and whether a quote stays open."""
    try:
        return next(csv.reader(lines, delimiter="\t", strict=True), []), False
    except csv.Error as error:
        return [], "unexpected end of data" in str(error)


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if _IN_QUOTES.fullmatch(field) else field
