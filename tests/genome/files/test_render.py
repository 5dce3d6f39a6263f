"""Notebooks and tables become text."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrysalis_mlx.genome.files.render import head_rows, notebook_text


def notebook(*cells: dict[str, Any], **metadata: Any) -> bytes:
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": list(cells)}).encode()


def code(source: object) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "outputs": [{"text": "OUTPUT"}], "metadata": {"tag": "META"}}


def test_cells_become_markdown_without_outputs_and_metadata() -> None:
    content = notebook(
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        code(["x = 1\n", "print(x)"]),
        code(""),
        {"cell_type": "raw", "source": "raw\ntext\n"},
    )
    assert notebook_text(content) == "# Title\ntext\n\n```python\nx = 1\nprint(x)\n```\n\nraw\ntext\n"


@pytest.mark.parametrize(
    ("metadata", "language"),
    [
        ({"language_info": {"name": "julia"}, "kernelspec": {"language": "R"}}, "julia"),
        ({"kernelspec": {"language": "R"}}, "R"),
        ({"language_info": {"name": "two words"}}, "python"),
        ({"language_info": None}, "python"),
    ],
)
def test_the_fence_names_the_language(metadata: dict[str, Any], language: str) -> None:
    assert notebook_text(notebook(code("x"), **metadata)) == f"```{language}\nx\n```\n"


def test_the_fence_is_longer_than_any_within() -> None:
    assert notebook_text(notebook(code('s = """\n````\n"""'))) == '`````python\ns = """\n````\n"""\n`````\n'


def test_format_3_is_read() -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": "Part"},
        {"cell_type": "code", "input": ["a <- 1"], "language": "r"},
    ]
    content = json.dumps({"nbformat": 3, "metadata": {}, "worksheets": [{"cells": cells}]}).encode()
    assert notebook_text(content) == "## Part\n\n```r\na <- 1\n```\n"


def test_an_empty_notebook_is_an_empty_text() -> None:
    assert notebook_text(notebook()) == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "it is not JSON"),
        (b"\xff\xfe\xff", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "it is no notebook of format 3 or 4"),
        (b'{"cells": []}', "it is no notebook of format 3 or 4"),
        (b'{"nbformat": 5, "cells": []}', "it is no notebook of format 3 or 4"),
        (b'{"nbformat": 4}', "its cells are no list"),
        (b'{"nbformat": 4, "cells": [1]}', "a cell is no object"),
        (b'{"nbformat": 4, "cells": [{"source": [1]}]}', "a cell's source is no text"),
        (b'{"nbformat": 4, "cells": [{"source": "\\ud800"}]}', "it holds half a character"),
        (b'{"nbformat": 3, "worksheets": {}}', "its worksheets are no list"),
    ],
)
def test_what_is_no_notebook_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        notebook_text(content)


TABLE = 'a,b\r\n1,"x\r\ny ""q"", z"\r\n2,\r\n3,w'


@pytest.mark.parametrize(
    ("rows", "head"),
    [
        (0, "a,b\r\n"),
        (1, 'a,b\r\n1,"x\r\ny ""q"", z"\r\n'),
        (2, 'a,b\r\n1,"x\r\ny ""q"", z"\r\n2,\r\n'),
        (3, TABLE),
        (9, TABLE),
    ],
)
def test_head_rows_ends_where_a_record_ends(rows: int, head: str) -> None:
    assert head_rows(TABLE, rows) == head


def test_an_open_quote_takes_the_rest() -> None:
    assert head_rows('a\n"open\nb\nc', 1) == 'a\n"open\nb\nc'
    assert head_rows("", 3) == ""


def test_a_quote_within_a_field_opens_nothing() -> None:
    assert head_rows('size\n5" pipe\n6" pipe\n', 1) == 'size\n5" pipe\n'
    assert head_rows('a;"b\nc"\n1\n2\n', 1) == 'a;"b\nc"\n1\n'


@given(
    table=st.lists(st.lists(st.text("ab,\"\n\r é'", max_size=6), min_size=2, max_size=3), min_size=1, max_size=6),
    rows=st.integers(0, 7),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_head_rows_agrees_with_the_csv_module(table: list[list[str]], rows: int, end: str) -> None:
    whole = io.StringIO(newline="")
    csv.writer(whole, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(table)
    head = head_rows(whole.getvalue(), rows)
    assert whole.getvalue().startswith(head)
    assert list(csv.reader(io.StringIO(head, newline=""))) == table[: rows + 1]
