"""JSONL rows to token segments."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Segment:
    """One training text.

    Attributes:
        tokens: (n,) int32.
        supervised: (n,) bool; whether the token is a target. The first token of a segment never is.
    """

    tokens: npt.NDArray[np.int32]
    supervised: npt.NDArray[np.bool_]


def read_segments(path: Path, tokenizer: Tokenizer, row_length: int) -> list[Segment]:
    """Tokenize a JSONL file of `{"text": ...}` rows.

    The end token follows a text, unless the row says that more parts of its document follow (`part` < `parts`).

    Raises:
        CorpusError: a line is no such row, or has more than `row_length` tokens (nothing is cut silently).
    """
    lines = enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
    rows = {number: _row(path, number, line) for number, line in lines if line}
    if not rows:
        raise CorpusError("the corpus file is empty", where=path, fix="build the corpus again")
    segments = []
    encoded = tokenizer.encode_batch([row["text"] for row in rows.values()])
    for (number, row), ids in zip(rows.items(), encoded, strict=True):
        ends = row.get("part", 1) == row.get("parts", 1)
        if ends and (not ids or ids[-1] != tokenizer.eos_id):
            ids = [*ids, tokenizer.eos_id]
        if len(ids) > row_length:
            raise CorpusError(
                f"a row has {len(ids)} tokens, training.row_length is {row_length}",
                where=f"{path}, line {number}",
                fix="build the corpus again with this blueprint",
            )
        tokens = np.asarray(ids, np.int32)
        segments.append(Segment(tokens, np.arange(len(ids)) > 0))
    return segments


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if isinstance(row["text"], str):
            return dict(row)
    except (ValueError, KeyError, TypeError):
        pass
    raise CorpusError(
        "this line is not a JSON object with a 'text'", where=f"{path}, line {number}", fix="build the corpus again"
    )
