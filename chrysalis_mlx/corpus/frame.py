"""From a document to training texts that fit into one row each."""

from __future__ import annotations

import re
from collections.abc import Iterator

from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.models.tokenizer import Tokenizer

_PIECE = 2048  # characters; a longer line is counted in pieces of this size, so that one huge line stays affordable


def chunks(header: str, text: str, tokenizer: Tokenizer, row_length: int) -> Iterator[str]:
    """Cut a document into chunks that begin with `header` and end at line ends.

    Each chunk has at most `row_length` tokens when the whole of it is tokenized and an end token is added. Only a line
    that is too long by itself is cut inside. The chunks without their headers are the text again, character for
    character, but for chunks of nothing but white space, which are not training text.

    Raises:
        CorpusError: the header alone leaves no room in a row.
    """
    budget = row_length - len(tokenizer.encode(header)) - 1
    if budget < 8:
        raise CorpusError(
            f"the header {header!r} leaves {max(budget, 0)} of {row_length} tokens for the text",
            fix="raise training.row_length or shorten framing.header",
        )
    pieces = _pieces(text)
    counts = [len(ids) for ids in tokenizer.encode_batch(pieces)]
    start = 0
    while start < len(pieces):
        end, used = start, 0
        while end < len(pieces) and (end == start or used + counts[end] <= budget):
            used += counts[end]
            end += 1
        # Tokens can differ where pieces meet, so the chunk itself is counted before it is accepted.
        while end > start + 1 and not _fits(header, "".join(pieces[start:end]), tokenizer, row_length):
            end -= 1
        body = "".join(pieces[start:end])
        if _fits(header, body, tokenizer, row_length):
            if body.strip():
                yield header + body
            start = end
        else:
            head, tail = _cut(header, body, tokenizer, row_length)
            pieces[start : start + 1] = [head, tail]
            counts[start : start + 1] = [len(ids) for ids in tokenizer.encode_batch([head, tail])]


def _pieces(text: str) -> list[str]:
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    return [line[at : at + _PIECE] for line in lines for at in range(0, len(line), _PIECE)]


def _fits(header: str, body: str, tokenizer: Tokenizer, row_length: int) -> bool:
    return len(tokenizer.encode(header + body)) + 1 <= row_length


def _cut(header: str, piece: str, tokenizer: Tokenizer, row_length: int) -> tuple[str, str]:
    """Cut a piece where its head just fits, at white space when there is some in the second half of the head."""
    low, high = 1, len(piece) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if _fits(header, piece[:middle], tokenizer, row_length):
            low = middle
        else:
            high = middle - 1
    space = max(piece.rfind(mark, low // 2, low) for mark in " \t,;")
    at = space + 1 if space > 0 else low
    return piece[:at], piece[at:]
