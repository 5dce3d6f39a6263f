"""Tables delimited by tabs, where a quote may be a mere character; headers; what spreadsheets write."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrysalis_mlx.corpus.data import tables
from chrysalis_mlx.corpus.data.records import Record
from chrysalis_mlx.corpus.data.tables import read_table
from chrysalis_mlx.errors import CorpusError


def rows(path: Path, content: str) -> list[tuple[int, Any]]:
    path.write_bytes(content.encode())
    return [(record.number, record.value and tuple(record.value.values())) for record in read_table(path)]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('5" disk\t3" disk\n', [(2, ('5" disk', '3" disk'))]),
        ('"opened\tnever closed\nnext\trow\n', [(2, ('"opened', "never closed")), (3, ("next", "row"))]),
        ('"he said ""no"""\tb\n', [(2, ('he said "no"', "b"))]),
        ('"two\nlines"\tb\nc\td\n', [(2, ("two\nlines", "b")), (4, ("c", "d"))]),
        ('"quoted"\tplain "word"\n', [(2, ("quoted", 'plain "word"'))]),
        ('"" is empty\tb\n', [(2, ('"" is empty', "b"))]),
        ("\n\na\tb\n", [(4, ("a", "b"))]),
        ("a\n", [(2, None)]),
        ("a\t\n", [(2, ("a", ""))]),
    ],
)
def test_a_quote_between_tabs_may_be_a_character(tmp_path: Path, lines: str, expected: list[tuple[int, Any]]) -> None:
    assert rows(tmp_path / "rows.tsv", f"one\ttwo\n{lines}") == expected


cell = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n\t"), min_size=1, max_size=6)


@given(table=st.lists(st.tuples(cell, cell), max_size=6))
def test_what_knows_no_quotes_is_read_as_it_is(tmp_path_factory: pytest.TempPathFactory, table: list[Any]) -> None:
    """But for a field that stands in quotes as a whole, which every reader takes off."""
    plain = [row for row in table if not any(field.startswith('"') for field in row)]
    content = "".join(f"{a}\t{b}\n" for a, b in plain)
    found = rows(tmp_path_factory.mktemp("tsv") / "rows.tsv", f"one\ttwo\n{content}")
    assert [row for _, row in found] == plain


def test_quotes_that_are_never_closed_are_read_a_fixed_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Counter[str]()

    def counted(lines: list[str]) -> tuple[list[str], bool]:
        read.update(lines)
        return with_quotes(lines)

    with_quotes = tables._with_quotes
    monkeypatch.setattr(tables, "_with_quotes", counted)
    lines = [f'"{number}\tb\n' for number in range(1000)]
    assert len(rows(tmp_path / "rows.tsv", "one\ttwo\n" + "".join(lines))) == 1000
    assert set(read) == set(lines)
    assert max(read.values()) <= 4


@pytest.mark.parametrize("sign", ["sep=;", '"sep=;"', "SEP=;"])
def test_the_delimiter_that_a_spreadsheet_names_is_no_header(tmp_path: Path, sign: str) -> None:
    assert rows(tmp_path / "rows.csv", f"{sign}\none;two\na,b;c\n") == [(3, ("a,b", "c"))]


def test_headers_that_hide_a_column_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"the name 'a' stands there twice[\s\S]*line 1[\s\S]*name of its own"):
        rows(tmp_path / "rows.csv", "a,b,a\n1,2,3\n")


def test_numbers_of_records_go_on_behind_bad_ones(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["a", "b"], ["1\n2", "3"], ["4"], ["5", "6"]])
    assert list(read_table(path)) == [
        Record(2, {"a": "1\n2", "b": "3"}),
        Record(4, None, "not as many fields as the header", "1 for 2"),
        Record(5, {"a": "5", "b": "6"}),
    ]
