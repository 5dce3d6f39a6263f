"""Words and n-grams of a text: what copies, families and contamination are measured in.

A word is a run of letters with their marks, digits and underscores in lower case. Scripts that are written without
spaces have no such runs, so each of their characters is a word. An n-gram is known by a 64-bit hash: among the 10^7
n-grams of 60 MB of text, any two different ones have the same with a probability of 3 in a million.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

# Thai and Lao; Burmese; Khmer; Chinese and Japanese: radicals to kana, ideographs, compatibility and rare ideographs.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ASCII_WORD = re.compile(r"\w+", re.ASCII)
# What JSON writes for a line end, a tab, and a character that is not ASCII: their letters are no part of a word.
_ESCAPE = re.compile(r"\\(?:[nrt]|u([0-9a-fA-F]{4}))")
_DIGIT = re.compile(r"\d")
_BEYOND = 0x1F000  # there are no marks but the selectors of variants
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_KNOWN_WORDS = 1 << 19


def words(text: str) -> list[str]:
    """The words of a text, in order; those of the JSON string that holds it are the same."""
    if "\\" in text:
        text = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)) if escape[1] else "\n", text)
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    if not _has_long_marks(text):
        text = unicodedata.normalize("NFC", text)
    return _word().findall(text.lower())


@cache
def _marks() -> str:
    """Vowel signs, points and accents, which are no \\w to Python's expressions."""
    return "".join(chr(code) for code in range(0x300, _BEYOND) if unicodedata.category(chr(code))[0] == "M")


@cache
def _word() -> re.Pattern[str]:
    in_words = re.sub(f"[{_UNSPACED}]", "", _marks())
    return re.compile(rf"(?=\w)(?:[{_UNSPACED}]|(?:[^\W{_UNSPACED}]|[{in_words}])+)")


@cache
def _is_mark() -> NDArray[np.bool_]:
    found = np.zeros(_BEYOND + 1, np.bool_)
    found[[ord(mark) for mark in _marks()]] = True
    return found


def _has_long_marks(text: str) -> bool:
    """Whether 30 marks stand in a row, of which normalizing takes the square; nobody writes so (UAX #15 too has 30)."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    others = np.flatnonzero(~_is_mark()[np.minimum(codes, _BEYOND)])
    return bool((np.diff(others, prepend=-1, append=len(codes)) > 30).any())


def ngram_hashes(texts: Iterable[str], n: int, *, numbers: bool = True) -> Iterator[Hashes]:
    """The n-grams of every text: sorted, each once.

    Without `numbers` all words with a digit are alike, digests and times among them: what differs in them alone is the
    same (CCNet, arXiv 1911.00359, does so with digits).
    A text of fewer than n words is one n-gram, and one without words has none. Linear in the texts; memory for one text
    and a bounded number of words.
    """
    known = _WordHashes()
    for text in texts:
        found = words(text)
        if not numbers:
            found = ["0" if _DIGIT.search(word) else word for word in found]
        hashes = np.fromiter(map(known.__getitem__, found), np.uint64, len(found))
        yield distinct(combine(hashes, n))


def contained(hashes: Hashes, sorted_hashes: Hashes) -> NDArray[np.bool_]:
    """Which of the hashes are among the sorted ones."""
    if not len(sorted_hashes):
        return np.zeros(len(hashes), np.bool_)
    places = np.searchsorted(sorted_hashes, hashes)
    places[places == len(sorted_hashes)] = 0
    found: NDArray[np.bool_] = sorted_hashes[places] == hashes
    return found


def union(sets: Iterable[Hashes]) -> Hashes:
    """All hashes of the sets: sorted, each once."""
    return distinct(np.concatenate([np.zeros(0, np.uint64), *sets]))


def distinct(hashes: Hashes) -> Hashes:
    """The hashes sorted, each once. np.unique hashes them again, which takes far longer for many."""
    ordered: Hashes = np.sort(hashes)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    kept: Hashes = ordered[first]
    return kept


def combine(hashes: Hashes, n: int) -> Hashes:
    """Hash of every n words in a row: a polynomial modulo 2^64 whose coefficients are the hashes of the words."""
    n = min(n, len(hashes))
    total = np.zeros(len(hashes) - n + 1 if n else 0, np.uint64)
    for start in range(n):
        total = total * _MULTIPLIER + hashes[start : start + len(total)]
    return total


class _WordHashes(dict[str, int]):
    """The hash of every word asked for; forgotten when there are too many, for logs have no end of numbers."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _KNOWN_WORDS:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return self.setdefault(word, int.from_bytes(digest, "little"))
