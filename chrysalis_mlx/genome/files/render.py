"""How a file that is not plain text becomes text; pure functions of its content."""

from __future__ import annotations

import json
import re
from typing import Any

# A field that begins with a quote takes what it holds, line breaks and doubled quotes too; never closed, it takes the
# rest. Any other quote is a character like others: 5" is a size. Semicolons and tabs separate fields, too.
_PLAIN = r"[^,;\t\r\n]*"
_FIELD = rf'(?:"[^"]*(?:""[^"]*)*(?:"{_PLAIN}|\Z)|(?!"){_PLAIN})'
_RECORD = re.compile(rf"{_FIELD}(?:[,;\t]{_FIELD})*(?:\r\n|\r|\n|\Z)")


def notebook_text(content: bytes) -> str:
    """The cells of a Jupyter notebook, one empty line between them: no outputs, no metadata.

    Markdown and raw cells come as they are, code in a fenced block that names the notebook's language. Empty cells are
    left out. Source: the notebook format, versions 3 and 4.

    Raises:
        ValueError: it is no notebook; with a short reason.
    """
    try:
        notebook = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON") from error
    if not isinstance(notebook, dict) or notebook.get("nbformat") not in (3, 4):
        raise ValueError("it is no notebook of format 3 or 4")
    metadata = notebook.get("metadata")
    language = _language(metadata if isinstance(metadata, dict) else {})
    if notebook["nbformat"] == 3:
        worksheets = _list(notebook.get("worksheets", []), "worksheets")
        cells = [cell for sheet in worksheets for cell in _list(_dict(sheet, "worksheet").get("cells", []), "cells")]
    else:
        cells = _list(notebook.get("cells"), "cells")
    texts = filter(None, [_cell(_dict(cell, "cell"), language) for cell in cells])
    text = "\n".join(f"{text}\n" for text in texts)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell one half of a pair, "\ud800"
        raise ValueError("it holds half a character") from error
    return text


def head_rows(text: str, rows: int) -> str:
    """The header row of a CSV and the first `rows` rows after it, exactly as they are written.

    A row ends where RFC 4180 lets it end: not within quotes.
    """
    end = 0
    for _ in range(rows + 1):
        match = _RECORD.match(text, end)
        if match is None or match.end() == end:
            break
        end = match.end()
    return text[:end]


def _language(metadata: dict[str, Any]) -> str:
    for section, key in (("language_info", "name"), ("kernelspec", "language")):
        value = metadata.get(section)
        name = value.get(key) if isinstance(value, dict) else None
        if isinstance(name, str) and re.fullmatch(r"[^\s`]+", name):
            return name
    return "python"


def _cell(cell: dict[str, Any], language: str) -> str:
    source = cell.get("source", cell.get("input", ""))  # format 3 calls the source of code "input"
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise ValueError("a cell's source is no text")
    source = source.strip("\r\n")
    if not source.strip():
        return ""
    if cell.get("cell_type") == "heading":  # format 3
        return f"{'#' * _level(cell)} {source}"
    if cell.get("cell_type") != "code":
        return source
    if isinstance(cell.get("language"), str) and re.fullmatch(r"[^\s`]+", cell["language"]):  # format 3
        language = cell["language"]
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", source)), default=0))
    return f"{fence}{language}\n{source}\n{fence}"


def _level(cell: dict[str, Any]) -> int:
    level = cell.get("level", 1)
    return min(max(level, 1), 6) if isinstance(level, int) else 1


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"its {what} are no list")
    return value


def _dict(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a {what} is no object")
    return value
