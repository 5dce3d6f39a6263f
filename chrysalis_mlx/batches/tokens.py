"""Rows to token segments: the one definition of what a model sees, and of what it learns.

A row of each form (`batches/rows.py`) becomes:

    text         its tokens. Every one is learned.
    completion   the tokens of prompt and completion, as one text. Those that reach into the completion are learned.
    messages     the tokens of the conversation in the model's own chat template. What the assistant says is learned.

A text ends with the end token, which is learned too, unless more parts of it follow in other rows. A conversation ends
as its template ends it; where that puts no end after the answer, the end token does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.batches.cache import Pair, cached
from chrysalis_mlx.batches.rows import Row, form_of, is_last_part, read_rows
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.models.chat import Span
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


def segments(rows: Sequence[Row], tokenizer: Tokenizer, *, source: object = "the corpus") -> list[Segment]:
    """What the model sees of each row.

    Args:
        source: where the rows come from, for errors.

    Raises:
        CorpusError: the chat template refuses a conversation, or the model has none.
        ModelError: the chat template cannot be used.
    """
    plans = []
    for number, row in enumerate(rows, 1):
        try:
            plans.append(_plan(row, tokenizer))
        except CorpusError as error:
            raise CorpusError(error.what, where=f"{source}, row {number}", fix=error.fix) from error
    found: dict[int, Segment] = {}
    for special in (True, False):
        whole = [i for i, plan in enumerate(plans) if plan.special is special and plan.learned is None]
        for i, ids in zip(whole, tokenizer.encode_batch([plans[i].text for i in whole], special=special), strict=True):
            tokens = np.asarray(ids, np.int32)
            found[i] = _segment(tokens, np.ones(len(tokens), np.bool_), plans[i].end)
        partly = [i for i, plan in enumerate(plans) if plan.special is special and plan.learned is not None]
        encoded = tokenizer.encode_spans([plans[i].text for i in partly], special=special)
        for i, of_text in zip(partly, encoded, strict=True):
            found[i] = _segment(of_text.ids, _reaches(of_text.spans, plans[i].learned or ()), plans[i].end)
    return [found[i] for i in range(len(rows))]


def read_segments(path: Path, tokenizer: Tokenizer, row_length: int) -> list[Segment]:
    """What the model sees of each row of a corpus file; the tokens of one that was read before are kept (cache.py).

    Raises:
        CorpusError: a line is no row, or has more than `row_length` tokens (nothing is cut silently).
    """

    def make() -> list[Pair]:
        made = segments(read_rows(path), tokenizer, source=path)
        return [(segment.tokens, segment.supervised) for segment in made]

    found = [Segment(*pair) for pair in cached(path, tokenizer, make)]
    for number, segment in enumerate(found, 1):
        if len(segment.tokens) > row_length:
            raise CorpusError(
                f"a row has {len(segment.tokens)} tokens, training.row_length is {row_length}",
                where=f"{path}, row {number}",
                fix="build the corpus again with this blueprint",
            )
    return found


@dataclass(frozen=True)
class _Plan:
    """A row as text.

    Attributes:
        learned: spans of characters; None for all.
        special: whether the tokenizer puts its special tokens around the text.
        end: the token that has to be the last one; None when the text goes on, or has its own end.
    """

    text: str
    learned: tuple[Span, ...] | None
    special: bool
    end: int | None


def _plan(row: Row, tokenizer: Tokenizer) -> _Plan:
    end = tokenizer.eos_id if is_last_part(row) else None
    form = form_of(row)
    if form == "messages":
        if tokenizer.chat is None:
            raise CorpusError(
                "this row is a conversation, and the model has no chat template",
                fix="take a model that has one, or the framings text and completion alone",
            )
        shown = tokenizer.chat.conversation(row["messages"], tokenizer.special_tokens, tools=row.get("tools"))
        return _Plan(shown.text, shown.learned, False, None if shown.ended else end)
    if form == "completion":
        text = row["prompt"] + row["completion"]
        return _Plan(text, ((len(row["prompt"]), len(text)),), True, end)
    return _Plan(row["text"], None, True, end)


def _reaches(spans: npt.NDArray[np.int32], learned: Sequence[Span]) -> npt.NDArray[np.bool_]:
    """Which tokens, by their (n, 2) spans of characters, reach into a learned span."""
    inside = np.zeros(len(spans), np.bool_)
    for first, last in learned:
        inside |= (spans[:, 0] < last) & (spans[:, 1] > first)
    return inside


def _segment(tokens: npt.NDArray[np.int32], supervised: npt.NDArray[np.bool_], end: int | None) -> Segment:
    if end is not None:
        if not len(tokens) or tokens[-1] != end:
            tokens, supervised = np.append(tokens, np.int32(end)), np.append(supervised, True)
        supervised[-1] = True
    supervised[:1] = False
    return Segment(tokens, supervised)
