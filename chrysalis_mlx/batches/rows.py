"""Rows of a corpus file: JSON Lines that mlx-lm reads unchanged.

    {"text"}                    a text
    {"prompt", "completion"}    a text of which the second half alone is learned
    {"messages"}                a conversation of which the assistant's turns alone are learned

Further keys, which mlx-lm passes over: `repository`, `path` and `framing` say where a row comes from; `part` and
`parts` that it is one of several cut from one text, of which only the last ends with the end token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.run import atomic_path

Row = dict[str, Any]
Form = Literal["text", "completion", "messages"]


def form_of(row: Row) -> Form | None:
    """Which form a row has; None when it has none of them."""
    if isinstance(row.get("messages"), list):
        return "messages"
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        return "completion"
    return "text" if isinstance(row.get("text"), str) else None


def is_last_part(row: Row) -> bool:
    """Whether the row ends its text."""
    return bool(row.get("part", 1) == row.get("parts", 1))


def texts_of(row: Row) -> list[str]:
    """Every text in a row, in its order, without what a chat template adds."""
    form = form_of(row)
    if form == "messages":
        return [message["content"] for message in row["messages"] if isinstance(message.get("content"), str)]
    return [row["prompt"], row["completion"]] if form == "completion" else [row["text"]]


def read_rows(path: Path) -> list[Row]:
    """The rows of a corpus file.

    Raises:
        CorpusError: there are none, or a line is no such row.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if line:
            rows.append(_row(line, f"{path}, line {number}"))
    if not rows:
        raise CorpusError("the corpus file is empty", where=path, fix="build the corpus again")
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a corpus file, whole or not at all."""
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if isinstance(row, dict) and form_of(row):
        return row
    raise CorpusError(
        "this line is not a JSON object with a text, a prompt and completion, or messages",
        where=where,
        fix="build the corpus again",
    )
