"""What a model has learned by heart: runs of its text that stand verbatim in the corpus.

A run in the prompt is no memory: who has just read a line can repeat it. And a run in the corpus need not be one: a
licence stands in many corpora, and the base knew it before. So what counts is how much more the tuned model copies than
the base, and how much more from train than from held-out texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.evaluation.results import Continuation, Copying

COPIED = 50
"""Characters from which on a run counts as copied: most of a line. Shorter ones are often idioms of a language."""

_GRAM = 8  # bytes that are looked up together
_STEP = 4  # bytes from one entry of the index to the next
_INDEXED = _GRAM + _STEP - 1  # bytes from which on a run holds a whole entry of the index, wherever it stands
_SEARCHED = 128  # bytes that are searched in the time in which one candidate is compared
_BLOCK = 1 << 22  # grams that are sorted at a time
_SEPARATOR = b"\xff"  # a byte that is in no UTF-8
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ over the golden ratio (Knuth, volume 3, section 6.4)
_HALF = np.uint64(32)
_LOWER_HALF = np.uint64(0xFFFFFFFF)


def copying(continuations: Sequence[Continuation]) -> dict[str, Copying]:
    """How many of the continuations of each source are copies, in the order in which the sources first come."""
    runs: dict[str, list[int]] = {}
    for continuation in continuations:
        runs.setdefault(continuation.source, []).append(continuation.copied)
    return {
        source: Copying(len(lengths), sum(length >= COPIED for length in lengths), max(lengths))
        for source, lengths in runs.items()
    }


class Corpus:
    """Texts to look for copies of.

    They are kept as UTF-8, with an index: every 4th byte, by a hash of the 8 bytes that begin there. That takes some
    five times the texts to make, and three times to keep. The index only names candidates; bytes are compared before
    anything is said.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._data = _joined(texts)
        words = np.frombuffer(self._data, ">u4")
        entries = words[:-1].astype(np.uint64)
        entries <<= _HALF
        entries |= words[1:]
        _hash(entries)
        entries |= np.arange(len(entries), dtype=np.uint32)
        entries.sort()
        self._entries = entries  # the hash in the upper half, the position / 4 in the lower

    def longest(self, text: str, *, prompt: str = "") -> int:
        """Characters of the longest run of `text` that stands verbatim in one text of the corpus, and not in `prompt`.

        Exact for every length. A run that goes from one text of the corpus over into the next is none.
        """
        query = self._query(text)
        told = _told(text, prompt)
        # Long runs first: where there is one, few of the short ones, which the index does not know, are of interest.
        best = self._longest(query, told, 0, _INDEXED, len(query.data))
        return self._longest(query, told, best, 1, _INDEXED - 1)

    def _query(self, text: str) -> _Query:
        data = _utf8(text)
        places = np.cumsum([0, *(len(_utf8(character)) for character in text)])
        if len(data) < _INDEXED:
            none = np.empty(0, np.int64)
            return _Query(data, places.tolist(), none, none, none)
        hashes = _grams(data)
        _hash(hashes)
        first = np.searchsorted(self._entries, hashes)
        count = np.searchsorted(self._entries, hashes | _LOWER_HALF, side="right") - first
        together = np.lib.stride_tricks.sliding_window_view(count, _STEP).sum(axis=1)
        return _Query(data, places.tolist(), first, count, together)

    def _longest(self, query: _Query, told: Sequence[int], best: int, fewest: int, most: int) -> int:
        """`best`, or the characters of a longer run of `fewest` to `most` bytes.

        Args:
            told: for each start the end up to which the prompt has the text.
        """
        places, length = query.places, len(query.places) - 1
        absent: set[bytes] = set()  # a loop says the same again and again
        enough = 0  # the end of the shortest run that has `fewest` bytes
        for start in range(length):
            while enough <= length and places[enough] - places[start] < fewest:
                enough += 1
            end = max(start + best + 1, told[start] + 1, enough)
            while end <= length and places[end] - places[start] <= most:
                run = query.data[places[start] : places[end]]
                if run in absent or not self._stands(query, places[start], run):
                    absent.add(run)
                    break
                best = end - start
                end += 1
        return best

    def _stands(self, query: _Query, place: int, run: bytes) -> bool:
        """Whether the run, which is at this byte of the query, stands in the corpus."""
        if len(run) < _INDEXED:
            return self._may_stand(run) and (len(run) <= _GRAM or run in self._data)
        rarest = place + int(query.together[place : place + len(run) - _INDEXED + 1].argmin())
        if query.together[rarest] * _SEARCHED > len(self._data):
            return run in self._data
        for offset in range(rarest, rarest + _STEP):
            entry = query.first[offset]
            steps = self._entries[entry : entry + query.count[offset]] & _LOWER_HALF
            for step in steps.tolist():
                # A negative position is one from the end, with fewer bytes behind it than the run has.
                if self._data.startswith(run, step * _STEP - (offset - place)):
                    return True
        return False

    def _may_stand(self, run: bytes) -> bool:
        """Whether all 8 bytes in a row of the run stand in the corpus; of a run of at most 8 bytes, whether it does."""
        pieces = [run[at : at + _GRAM] for at in range(max(1, len(run) - _GRAM + 1))]
        low, high = (
            np.array([int.from_bytes(piece.ljust(_GRAM, fill), "big") for piece in pieces], np.uint64)
            for fill in (b"\x00", b"\xff")
        )
        first = np.searchsorted(self._known, low)
        return bool((first < np.searchsorted(self._known, high, side="right")).all())

    @cached_property
    def _known(self) -> npt.NDArray[np.uint64]:
        """All 8 bytes in a row that there are, as numbers in order.

        Made when a text is the first that shares only a few characters with the corpus: of 50 MB it takes seconds.
        """
        known = np.empty(0, np.uint64)
        for start in range(0, len(self._data) - _GRAM + 1, _BLOCK):
            block = _distinct(_grams(self._data[start : start + _BLOCK + _GRAM - 1]))
            known = _distinct(np.concatenate([known, block]))
        return known


@dataclass(frozen=True)
class _Query:
    """A text, and what the index says of it.

    Attributes:
        data: n bytes, its UTF-8.
        places: byte at which each character starts, and n.
        first: (n - 7,) entry of the index at which those of the 8 bytes that begin here start.
        count: (n - 7,) how many there are.
        together: (n - 10,) how many there are of these 8 bytes and the next three. Wherever a run stands in the corpus,
            one of four neighbours is at an entry.
    """

    data: bytes
    places: list[int]
    first: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    together: npt.NDArray[np.int64]


def _told(text: str, prompt: str) -> list[int]:
    """For each start the end up to which the prompt has the text."""
    ends, end = [], 0
    for start in range(len(text)):
        end = max(start, end)
        while end < len(text) and text[start : end + 1] in prompt:
            end += 1
        ends.append(end)
    return ends


def _joined(texts: Iterable[str]) -> bytes:
    """Texts with separators between them, and at the end as many as make every byte the first of 8, in whole steps."""
    parts = [_utf8(text) for text in texts]
    size = sum(len(part) + 1 for part in parts)
    return _SEPARATOR.join([*parts, _SEPARATOR * (_GRAM + -size % _STEP)])


def _utf8(text: str) -> bytes:
    # Lone surrogates are characters like others here.
    return text.encode("utf-8", "surrogatepass")


def _grams(data: bytes) -> npt.NDArray[np.uint64]:
    """(n - 7,) the 8 bytes from each on as one number, the first byte above: its order is that of the bytes."""
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), _GRAM)
    return np.ascontiguousarray(windows).view(np.dtype(">u8"))[:, 0].astype(np.uint64)


def _hash(grams: npt.NDArray[np.uint64]) -> None:
    """Make of 8 bytes each their hash, in the upper half, in place."""
    grams *= _MULTIPLIER
    grams >>= _HALF
    grams <<= _HALF


def _distinct(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Sort in place, and keep one of each; np.unique takes ten times as long for these."""
    numbers.sort()
    kept = np.ones(len(numbers), np.bool_)
    kept[1:] = numbers[1:] != numbers[:-1]
    return numbers[kept]
