"""What there is to see in a corpus: its rows token by token, as the model sees them, and how long they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from chrysalis_mlx.batches.rows import Row, form_of
from chrysalis_mlx.batches.tokens import Segment, segments
from chrysalis_mlx.models.tokenizer import Tokenizer

_BLOCK = 256  # rows whose tokens are held at once, to be counted
_BINS = 16  # of the histogram, at most
_CHARACTER_AT_MOST = 16  # tokens that one character can take


@dataclass(frozen=True)
class Token:
    """One token of a row.

    Attributes:
        text: what it stands for; of a token that is a part of a character, the whole character.
        part: which part of the character it is, from 1; 0 when it is whole.
        special: whether it is a token such as <|im_end|>.
        supervised: whether it is learned.
    """

    id: int
    text: str
    part: int
    special: bool
    supervised: bool


@dataclass(frozen=True)
class View:
    """What is to be shown of one side of a corpus.

    Attributes:
        numbers: of the rows that match, from 1.
        lengths: their tokens.
        supervised: how many of them are learned.
        cut: how many of the rows are one of several parts of a text.
        samples: number, row and tokens of the rows that were drawn.
    """

    side: str
    rows: int
    numbers: list[int]
    lengths: list[int]
    supervised: list[int]
    cut: int
    samples: list[tuple[int, Row, list[Token]]]


def look(
    side: str,
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    *,
    count: int,
    seed: int,
    framing: str | None = None,
    path: str | None = None,
) -> View:
    """Measure the rows that match, and draw some of them.

    Args:
        side: the name of the side.
        count: how many rows to draw, without replacement; they stay in the order of the corpus.
        seed: of the draw.
        framing: take rows of this framing only.
        path: take rows only whose path, or REPOSITORY/PATH, matches this glob.

    Raises:
        CorpusError: as `segments`.
    """
    chosen = [i for i, row in enumerate(rows) if matches(row, framing, path)]
    drawn = set(np.random.Generator(np.random.PCG64(seed)).permutation(chosen)[:count].tolist())
    lengths: list[int] = []
    supervised: list[int] = []
    samples: list[tuple[int, Row, list[Token]]] = []
    for start in range(0, len(chosen), _BLOCK):
        block = chosen[start : start + _BLOCK]
        for i, segment in zip(block, segments([rows[i] for i in block], tokenizer), strict=True):
            lengths.append(len(segment.tokens))
            supervised.append(int(segment.supervised.sum()))
            if i in drawn:
                samples.append((i + 1, rows[i], tokens_of(segment, tokenizer)))
    cut = sum(rows[i].get("parts", 1) > 1 for i in chosen)
    return View(side, len(rows), [i + 1 for i in chosen], lengths, supervised, cut, samples)


def tokens_of(segment: Segment, tokenizer: Tokenizer) -> list[Token]:
    """The tokens of a segment one by one, each with its text."""
    special = set(tokenizer.special_tokens.values())
    names = {id: name for name, id in tokenizer.special_tokens.items()}
    decode = _decoder(tokenizer)
    ids = segment.tokens.tolist()
    found: list[Token] = []
    while len(found) < len(ids):
        at = len(found)
        size = _character(ids, at, special, decode)
        for part, position in enumerate(range(at, at + size), 1):
            id = ids[position]
            text = names[id] if id in special else decode(ids[at : at + size])
            learned = bool(segment.supervised[position])
            found.append(Token(id, text, part if size > 1 else 0, id in special, learned))
    return found


def matches(row: Mapping[str, Any], framing: str | None, path: str | None) -> bool:
    """Whether a row, or a file of the account, is one of those asked for."""
    names = (str(row.get("path", "")), f"{row.get('repository', '')}/{row.get('path', '')}")
    return framing in (None, framing_of(row)) and (path is None or any(fnmatchcase(name, path) for name in names))


def framing_of(row: Mapping[str, Any]) -> str:
    """The row's framing, else its form."""
    return str(row.get("framing") or form_of(dict(row)) or "")


def origin_of(row: Row) -> str:
    """REPOSITORY/PATH, as far as the row knows them."""
    return "/".join(str(row[key]) for key in ("repository", "path") if row.get(key))


def _decoder(tokenizer: Tokenizer) -> Callable[[Sequence[int]], str]:
    """Text of tokens in the middle of a text: a tokenizer may drop the space that a text begins with."""
    anchor = tokenizer.encode("a", special=False)
    before = tokenizer.decode(anchor)

    def decode(ids: Sequence[int]) -> str:
        return tokenizer.decode([*anchor, *ids]).removeprefix(before)

    return decode


def _character(ids: Sequence[int], at: int, special: set[int], decode: Callable[[Sequence[int]], str]) -> int:
    """How many tokens from `at` make whole characters; 1 for bytes that never do."""
    for size in range(1, _CHARACTER_AT_MOST + 1):
        part = ids[at : at + size]
        if len(part) < size or (size > 1 and part[-1] in special):
            break
        if part[0] in special or "\ufffd" not in decode(part):
            return size
    return 1


def histogram(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """First length, last length and rows of each bin, all as wide as the same power of two."""
    if not lengths:
        return []
    width = 1
    while width * _BINS < max(lengths):
        width *= 2
    counts = np.bincount((np.asarray(lengths) - 1).clip(0) // width, minlength=-(-max(lengths) // width))
    return [(i * width + 1, (i + 1) * width, int(count)) for i, count in enumerate(counts)]


def quantiles(lengths: Sequence[int]) -> dict[str, int]:
    """The shortest, the longest and what lies between; empty where there are none."""
    if not lengths:
        return {}
    names = {"shortest": 0.0, "median": 0.5, "90%": 0.9, "longest": 1.0}
    return {name: int(np.quantile(lengths, share, method="lower")) for name, share in names.items()}
