"""Rows of one's own that are longer than a row of the batch: cut where that keeps their sense, else left out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from chrysalis_mlx.batches.rows import Row, is_last_part
from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.corpus.data.conversation import BadRowError
from chrysalis_mlx.corpus.data.report import Remark
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame.chunks import Passage, fit
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.progress import Progress, silent

_BLOCK = 512  # rows measured at once
_SURELY_LONG = 8  # characters a token; a longer text is cut without being measured as a whole


@dataclass(frozen=True)
class Fitted:
    """Rows none of which is longer than asked, and what was done to the others.

    Attributes:
        origins: of each row the place of the one that it was made from.
    """

    rows: list[Row]
    origins: list[int]
    cut: list[Remark]
    left_out: list[Remark]


def fit_rows(rows: Sequence[Row], tokenizer: Tokenizer, row_length: int, *, progress: Progress = silent) -> Fitted:
    """Make every row fit into `row_length` tokens.

    A text becomes several rows. A completion loses its end, and is not learned to end there; its prompt may take half a
    row at most. A conversation loses its last exchanges; when its first one alone is too long, or the chat template
    refuses it, or nothing of it is learned, it is left out.

    Raises:
        ModelError: the chat template cannot be used.
    """
    fitted = Fitted([], [], [], [])
    shows_tools = tokenizer.chat is not None and tokenizer.chat.shows_tools
    with progress("measuring", len(rows), unit="row") as bar:
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            seen = block if shows_tools else [_without_tools(row) for row in block]
            lengths = _lengths(seen, tokenizer, row_length)
            for place, (row, length) in enumerate(zip(seen, lengths, strict=True)):
                try:
                    parts, changes = _parts(row, length, tokenizer, row_length)
                except BadRowError as error:
                    fitted.left_out.append(_remark(row, error.reason, error.detail))
                    continue
                if len(row) < len(block[place]):
                    changes.append(_remark(row, "the chat template shows no tools: they were left away", ""))
                fitted.rows.extend(parts)
                fitted.origins.extend([start + place] * len(parts))
                fitted.cut.extend(changes)
            bar.update(len(block))
    return fitted


def _parts(
    row: Row, length: int | BadRowError, tokenizer: Tokenizer, row_length: int
) -> tuple[list[Row], list[Remark]]:
    """What a row becomes, and how it was changed.

    Raises:
        BadRowError: it has no length, or cannot be made to fit.
    """
    if isinstance(length, BadRowError):
        raise length
    if length <= row_length:
        return [row], []
    parts, reason, detail = _shortened(row, length, tokenizer, row_length)
    return parts, [_remark(row, reason, detail)]


def _without_tools(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "tools"}


def _lengths(rows: Sequence[Row], tokenizer: Tokenizer, row_length: int) -> list[int | BadRowError]:
    """Tokens of each row, or why it has none; of texts that are much too long, a lower bound."""
    short = [len(row.get("text", "")) <= _SURELY_LONG * row_length for row in rows]
    found = iter(_measured([row for row, is_short in zip(rows, short, strict=True) if is_short], tokenizer))
    return [next(found) if is_short else row_length + 1 for is_short in short]


def _measured(rows: Sequence[Row], tokenizer: Tokenizer) -> list[int | BadRowError]:
    try:
        found = segments(rows, tokenizer) if rows else []
    except CorpusError as error:
        if len(rows) == 1:
            return [BadRowError("the chat template cannot show the conversation", error.what)]
        # One of them is refused; which one, measuring them one by one tells.
        return [length for row in rows for length in _measured([row], tokenizer)]
    return [
        len(segment.tokens) if segment.supervised.any() else BadRowError("nothing in the row is learned")
        for segment in found
    ]


def _shortened(row: Row, length: int, tokenizer: Tokenizer, row_length: int) -> tuple[list[Row], str, str]:
    """The rows that become of one that is too long, and what to say of it."""
    if "messages" in row:
        kept, detail = _first_exchanges(row, length, tokenizer, row_length)
        return [kept], "too long, so that its last turns were cut off", detail
    key = "text" if "text" in row else "completion"
    if key == "completion":
        [prompt] = _measured([row | {"completion": ""}], tokenizer)
        if isinstance(prompt, int) and 2 * prompt > row_length:
            detail = f"{length} tokens, {prompt} of them the prompt's; training.row_length is {row_length}"
            raise BadRowError("too long, and its prompt takes more than half a row", detail)
    origin = Document(row["repository"], row["path"], "")
    repeated = {"prompt": row["prompt"]} if key == "completion" else {}
    passage = Passage(origin, row["framing"], row[key], lambda body, *_: {**repeated, key: body})
    parts = fit([passage], tokenizer, row_length)
    if key == "text":
        # Where the row itself goes on in the next one, its last part does.
        total = len(parts) + (not is_last_part(row))
        parts = [part | {"parts": total} for part in parts]
        return parts, "too long, so that it became several rows", f"{len(parts)} rows"
    # Of the others the model would learn that the same question has answers that begin in their middle.
    return parts[:1], "too long, so that its end was cut off", f"{length} tokens; training.row_length is {row_length}"


def _first_exchanges(row: Row, length: int, tokenizer: Tokenizer, row_length: int) -> tuple[Row, str]:
    """As many exchanges as fit; each ends before the user speaks again."""
    messages = row["messages"]
    roles = [message["role"] for message in messages]
    ends = [i for i in range(1, len(roles)) if roles[i] == "user" and roles[i - 1] == "assistant"]

    def tokens(end: int) -> int:
        [found] = _measured([row | {"messages": messages[:end]}], tokenizer)
        return found if isinstance(found, int) else 0

    fitting = bisect_right(ends, row_length, key=tokens)
    if not fitting:
        detail = f"{tokens(ends[0]) if ends else length} tokens; training.row_length is {row_length}"
        raise BadRowError("its first exchange is too long", detail)
    end = ends[fitting - 1]
    if not tokens(end):
        raise BadRowError(
            "too long, and nothing that fits is learned", f"{length} tokens; training.row_length is {row_length}"
        )
    return row | {"messages": messages[:end]}, f"{len(messages) - end} of {len(messages)} turns; {length} tokens"


def _remark(row: Row, reason: str, detail: str) -> Remark:
    return Remark(row["repository"], int(row["path"]), reason, detail)
