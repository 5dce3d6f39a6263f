"""Passages cut so that each part fits into a row, at the best places there are, and nothing is lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from chrysalis_mlx.batches.rows import Row
from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame.markdown import outline
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.models.tokenizer import Tokenizer

CONTEXT = 4  # one such share of a row's length, in bytes, shows what came before: about a sixteenth of its tokens
SURELY_LONG = 8  # characters a token; a longer passage is cut at once, without counting it as a whole first

_ROOM = 8  # tokens that a row must have for its body; with fewer a document would become mostly header
_REST = 8  # a last part of less than one such share of a row takes lines from the part before it
_SAMPLE = 100  # characters; what stands around them in a row is what stands around every part
_PIECE = 512  # characters; longer lines are counted in pieces, so that one huge line stays affordable

# How good a place to cut is. A torn one lies within what belongs together: a line; a heading and its text.
TORN, LINE, BLANK, HEADING = range(4)


class NoRoomError(CorpusError):
    """What every row of a document repeats leaves no room for its text."""


@dataclass(frozen=True)
class Passage:
    """A text and what makes rows of it.

    Attributes:
        document: where it comes from.
        framing: the way it is framed in.
        body: the text.
        render: the content of a row, from a part of the body, its number, and the part before it ("" of the first).
        own: every part becomes a text of its own, with an end.
        is_wanted: whether a part is; where none of several is, all are.
    """

    document: Document
    framing: str
    body: str
    render: Callable[[str, int, str], dict[str, Any]]
    own: bool = False
    is_wanted: Callable[[str], bool] = lambda body: True

    def rows(self, bodies: Sequence[str]) -> list[Row]:
        """The rows of the parts of the body."""
        parts = len(bodies)
        return [
            {
                **self.render(body, part, before),
                "repository": self.document.repository,
                "path": self.document.path,
                "framing": self.framing,
                "part": 1 if self.own else part,
                "parts": 1 if self.own else parts,
            }
            for part, (before, body) in enumerate(pairwise(["", *bodies]), 1)
        ]


class Piece(NamedTuple):
    """A line, or a piece of a long one: its text, its tokens, and how good a place to cut its beginning is."""

    text: str
    tokens: int
    rank: int


def fit(passages: Sequence[Passage], tokenizer: Tokenizer, row_length: int) -> list[Row]:
    """The rows of passages, in order, none longer than `row_length` tokens.

    The bodies of a passage's rows are its body again but for white space and unwanted parts. Each text is tokenized
    about twice, whatever its length.

    Raises:
        NoRoomError: what a row repeats leaves no room for the body.
    """
    rows = [
        passage.rows([passage.body] if len(passage.body) <= SURELY_LONG * row_length else []) for passage in passages
    ]
    lengths = iter(_lengths([row for tried in rows for row in tried], tokenizer))
    for index, passage in enumerate(passages):
        if not rows[index] or next(lengths) > row_length:
            rows[index] = _cut_rows(passage, tokenizer, row_length)
    return [row for made in rows for row in made]


def _lengths(rows: Sequence[Row], tokenizer: Tokenizer) -> list[int]:
    return [len(segment.tokens) for segment in segments(rows, tokenizer)] if rows else []


def first_fitting(prompts: Iterable[str], tokenizer: Tokenizer, row_length: int) -> str:
    """The first of some prompts, from the best to the shortest, that takes at most half of a row; else the last."""
    prompt = ""
    for prompt in prompts:
        if len(prompt) <= SURELY_LONG * row_length and len(tokenizer.encode(prompt)) <= row_length // 2:
            break
    return prompt


def last_lines(text: str, size: int) -> str:
    """The last whole lines of a text that have at most `size` bytes, or the last words of a line that has more."""
    kept = text.encode("utf-8", "surrogatepass")[-size:].decode("utf-8", "ignore")
    if len(kept) < len(text):
        for mark in "\n ":
            if start := kept.find(mark, 0, len(kept.rstrip())) + 1:
                kept = kept[start:]
                break
    return kept.lstrip("\n")


def _cut_rows(passage: Passage, tokenizer: Tokenizer, row_length: int) -> list[Row]:
    """Count the lines of a passage one by one, cut, and measure the rows; where tokens meet, sums are estimates."""
    room = row_length - _repeated(passage, tokenizer)
    pieces: list[Piece] | None = None
    while room >= _ROOM:
        whole = pieces if pieces is not None else _pieces(passage.body, tokenizer)
        pieces = [part for piece in whole for part in _halved(piece, tokenizer, room)]
        bodies = ["".join(piece.text for piece in pieces[a:b]) for a, b in cuts(pieces, room)]
        bodies = [body for body in bodies if body.strip()]
        rows = passage.rows(bodies)
        excess = max(_lengths(rows, tokenizer), default=0) - row_length
        if excess <= 0:
            return [row for row, body in zip(rows, bodies, strict=True) if passage.is_wanted(body)] or rows
        # Less than the least room is never tried, so that this comes to an end.
        room = room - excess if room == _ROOM else max(room - excess, _ROOM)
    raise NoRoomError(
        f"what every row of this document repeats leaves {max(room, 0)} of {row_length} tokens for its text",
        where=passage.document.name,
        fix="raise training.row_length or shorten framing.header",
    )


def _repeated(passage: Passage, tokenizer: Tokenizer) -> int:
    """How many tokens a row of a passage has beside those of its part, measured at a second part."""
    middle = len(passage.body) // 2
    sample = passage.body[middle : middle + _SAMPLE].strip() or "."
    [row] = _lengths(passage.rows([passage.body[:middle], sample])[1:], tokenizer)
    return row - _counts([sample], tokenizer)[0]


def cuts(pieces: Sequence[Piece], room: int) -> Iterator[tuple[int, int]]:
    """Ranges of pieces of at most `room` tokens, as long as possible: O(n).

    A range ends at the best place of its second half, the last of the equally good ones; at a torn place only when what
    belongs together is longer than a range. It ends before that place if else next to nothing is left for the last
    range.
    """
    total = [0, *accumulate(piece.tokens for piece in pieces)]
    start = end = 0
    while start < len(pieces):
        end = max(end, start + 1)
        while end < len(pieces) and total[end + 1] - total[start] <= room:
            end += 1
        at = end
        if end < len(pieces):
            half = [i for i in range(start + 1, end + 1) if 2 * (total[i] - total[start]) >= total[end] - total[start]]
            enough = [i for i in half if _REST * (total[-1] - total[i]) >= room]
            at = max(enough or half, key=lambda i: (pieces[i].rank, i))
            if pieces[at].rank == TORN:
                at = next((i for i in range(at, start, -1) if pieces[i].rank > TORN), at)
        yield start, at
        start = at


def _pieces(body: str, tokenizer: Tokenizer) -> list[Piece]:
    lines = re.findall(r"[^\n]*\n|[^\n]+", body)
    ranked = [
        (text, rank if number == 0 else TORN)
        for line, rank in zip(lines, _ranks(lines), strict=True)
        for number, text in enumerate(_split(line, _PIECE))
    ]
    counts = _counts([text for text, _ in ranked], tokenizer)
    return [Piece(text, count, rank) for (text, rank), count in zip(ranked, counts, strict=True)]


def _ranks(lines: Sequence[str]) -> Iterator[int]:
    """How good a place the beginning of each line is: before headings best, then after blank lines outside of code.

    Between a heading and what stands under it, a heading included, it is torn.
    """
    marks = outline(lines)
    starts = {heading.line for heading in marks.headings}
    within = {heading.line + at for heading in marks.headings for at in range(heading.lines)}
    under_heading = after_blank = False
    for number, line in enumerate(lines):
        if under_heading:
            yield TORN
        elif number in starts:
            yield HEADING
        else:
            in_code = number > 0 and marks.fenced[number - 1] and marks.fenced[number]
            yield BLANK if after_blank and line.strip() and not in_code else LINE
        after_blank = not line.strip()
        under_heading = number in within or (under_heading and after_blank)


def _split(text: str, size: int) -> list[str]:
    """Cut a text into pieces of at most `size` characters, at white space when a piece's second half has some."""
    pieces, start = [], 0
    while len(text) - start > size:
        space = max(text.rfind(mark, start + size // 2, start + size) for mark in " \t")
        end = space + 1 if space >= 0 else start + size
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def _halved(piece: Piece, tokenizer: Tokenizer, room: int) -> list[Piece]:
    """A piece, halved until its parts have room."""
    if piece.tokens <= room or len(piece.text) < 2:
        return [piece]
    texts = _split(piece.text, (len(piece.text) + 1) // 2)
    parts = [
        Piece(text, count, TORN if number else piece.rank)
        for number, (text, count) in enumerate(zip(texts, _counts(texts, tokenizer), strict=True))
    ]
    return [smaller for part in parts for smaller in _halved(part, tokenizer, room)]


def _counts(texts: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    return [max(count, 1) for count in tokenizer.count_batch(texts)]
