"""The merges of a BPE -> a score of each token, by which llama.cpp's SentencePiece tokenizer merges the same way.

Both merge the pair of neighbours that comes first in an order, the leftmost of equals, until no pair is left. In
tokenizers the order is of pairs: the list of merges. In llama.cpp it is of results: any two neighbours that make a
token together may merge, and the token with the highest score comes first. The two do the same if

1. of every token, all ways to make it from two parts are in the list, and
2. the list has all merges to one token together, and so orders tokens.

Both are proved here, or the export is refused. The lists that transformers 4 made have, in a place where SentencePiece
has equal scores, merges to many runs of one character mixed; there both ways to merge are tried on runs of all lengths
that matter. What remains open: overlapping ways to make one token, as two in "ababa"; llama.cpp takes the left one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from chrysalis_mlx.errors import ExportError

Pair = tuple[str, str]

_SHOWN = 3


def scores(tokens: Collection[str], merges: Sequence[Pair], file: Path) -> dict[str, float]:
    """Token -> score, for the tokens that merges make: -1 for the one that is made first, and so on down.

    Args:
        tokens: the vocabulary, without what is no text (bytes) and what is cut out of a text before it is merged.
        merges: in order, without merges to tokens that are cut out of a text.
        file: they are from, for errors.

    Raises:
        ExportError: the order cannot be said so.
    """
    listed = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
    order: dict[str, int] = {}
    for block in _blocks(merges):
        found = {block[0]: len(order)} if len(block) == 1 else _order_of_runs(block, listed, order)
        if not found:
            raise _no_order(f"the merges to {block[0]!r} and to {block[1]!r} are mixed", file)
        order |= found
    if wrong := list(_not_listed(tokens, order, listed)):
        shown = ", ".join(f"{left!r} + {right!r}" for left, right in wrong[:_SHOWN])
        raise _no_order(f"{len(wrong)} pairs make a token and are not among the merges, such as {shown}", file)
    return {text: -1.0 - rank for text, rank in order.items()}


def _blocks(merges: Sequence[Pair]) -> Iterator[list[str]]:
    """Groups of tokens, in order, such that all merges to a group stand together.

    What follows on mixed runs of a character, and is a run of it too, is put with them: a run of two, mostly.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        first.setdefault(left + right, rank)
        last[left + right] = rank
    block: list[str] = []
    end = -1
    for text, rank in first.items():
        if block and rank > end and not (len(block) > 1 and _is_run(text) and text[0] in {run[0] for run in block}):
            yield block
            block = []
        block.append(text)
        end = max(end, last[text])
    if block:
        yield block


def _is_run(text: str) -> bool:
    return len(set(text)) == 1


def _by_text(ranks: Mapping[str, int]) -> Callable[[str, str], int | None]:
    """The rank of a merge, which depends on what it makes alone."""
    return lambda left, right: ranks.get(left + right)


def _order_of_runs(runs: Sequence[str], listed: Mapping[Pair, int], before: Mapping[str, int]) -> dict[str, int]:
    """Token -> rank, for runs of one character whose merges are mixed; empty where there is no such order."""
    if not all(map(_is_run, runs)):
        return {}
    start = len(before)
    equal = dict.fromkeys(runs, start)
    as_listed = {text: start + index for index, text in enumerate(runs)}
    for candidate in (equal, as_listed):
        ranks = {**before, **candidate}
        if all(
            _merged(character * length, lambda left, right: listed.get((left, right)))
            == _merged(character * length, _by_text(ranks))
            for character in {text[0] for text in runs}
            for length in range(2, 3 * max(len(text) for text in runs if text[0] == character) + 3)
        ):
            return candidate
    return {}


def _merged(text: str, rank: Callable[[str, str], int | None]) -> list[str]:
    symbols = list(text)
    while True:
        pairs = [rank(left, right) for left, right in pairwise(symbols)]
        known = [value for value in pairs if value is not None]
        if not known:
            return symbols
        at = pairs.index(min(known))
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


def _not_listed(tokens: Collection[str], order: Mapping[str, int], listed: Mapping[Pair, int]) -> Iterator[Pair]:
    """Pairs that can come to stand side by side and make a token, and are no merge."""
    for text in tokens:
        for at in range(1, len(text)):
            left, right = text[:at], text[at:]
            reached = (at == 1 or left in order) and (at == len(text) - 1 or right in order)
            if reached and (left, right) not in listed:
                yield left, right


def _no_order(reason: str, file: Path) -> ExportError:
    return ExportError(
        f"llama.cpp merges by a score of each token, and the merges of this tokenizer cannot be said so: {reason}",
        where=file,
        fix="copy tokenizer.model of the base model into this directory, if it has one",
    )
