"""Quality gates: what a file scores, and the first gate that closes on it.

A gate looks at the text alone, never at a name, and costs time linear in its length. Shares are of characters; white
space around lines does not count. Machine logs, generated files and boilerplate have files of their own.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from chrysalis_mlx.blueprint.schema import GatesSection
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.select.generated import MAX_MINIFIED, minified, says_generated
from chrysalis_mlx.corpus.select.logs import log_lines

NGRAM = 10

Measure = Callable[[str], float]
Closes = Callable[[float], bool]


def judge(document: Document, section: GatesSection) -> tuple[dict[str, float], tuple[str, float] | None]:
    """Send a document through the gates, the cheap ones first, until one closes.

    The order is characters, generated, minified, log_lines, zlib_ratio, symbols, repeated_lines, repeated_ngrams. A
    gate whose threshold is null is not measured. Boilerplate is a matter of many documents: `boilerplate.py`.

    Returns:
        The scores of the gates that were reached, to four decimals, and name and score of the one that closed.
    """
    scores: dict[str, float] = {}
    for name, measure, closes in _gates(section):
        # The rounded score decides, so that what is recorded explains the decision.
        scores[name] = score = round(measure(document.text), 4)
        if closes(score):
            return scores, (name, score)
    return scores, None


def _gates(section: GatesSection) -> Iterator[tuple[str, Measure, Closes]]:
    yield "characters", characters, lambda score: score < section.min_characters
    if section.generated:
        yield "generated", lambda text: float(says_generated(text)), bool
        yield "minified", minified, lambda score: score > MAX_MINIFIED
    if section.max_log_lines is not None:
        yield "log_lines", log_lines, _over(section.max_log_lines)
    if (least := section.min_zlib_ratio) is not None:
        yield "zlib_ratio", zlib_ratio, lambda score: score < least
    if section.max_symbols is not None:
        yield "symbols", symbols, _over(section.max_symbols)
    if section.max_repeated_lines is not None:
        yield "repeated_lines", repeated_lines, _over(section.max_repeated_lines)
    if section.max_repeated_ngrams is not None:
        yield "repeated_ngrams", repeated_ngrams, _over(section.max_repeated_ngrams)


def _over(most: float) -> Closes:
    return lambda score: score > most


def characters(text: str) -> float:
    """How long a text is without the white space around it; 0 is a blank one."""
    return float(len(text.strip()))


def zlib_ratio(text: str) -> float:
    """zlib size (level 6) / UTF-8 size; 1 for a blank text.

    English prose is at 0.35 to 0.5, source code at 0.2 to 0.4. Very short texts are near or over 1, because a
    stream has a header and little to refer to: what is short never looks repetitive for being short.
    """
    data = text.encode("utf-8", "surrogatepass")
    return len(zlib.compress(data, 6)) / len(data) if text.strip() else 1.0


def symbols(text: str) -> float:
    """Digits and symbols / all characters but white space; 0 for a blank text.

    A letter is what Unicode calls a letter or a mark (L*, M*), so that no script counts as symbols. Rae et al. 2021
    (arXiv 2112.11446, table A1) count hash signs and ellipses only; here tables of numbers are to be found, too.
    """
    counts = {char: count for char, count in Counter(text).items() if not char.isspace()}
    letters = sum(count for char, count in counts.items() if unicodedata.category(char)[0] in "LM")
    total = sum(counts.values())
    return 1.0 - letters / total if total else 0.0


def repeated_lines(text: str) -> float:
    """Characters in lines that stand in the text before / characters in all lines.

    The "duplicate line character fraction" of Rae et al. 2021 (arXiv 2112.11446, table A1).
    """
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    total = sum(map(len, lines))
    return 1.0 - sum(map(len, set(lines))) / total if total else 0.0


def repeated_ngrams(text: str) -> float:
    """Words in a 10-gram that stands in the text before / all words; 0 under 11 words.

    Overlapping repeats count once, as in Rae et al. 2021 (arXiv 2112.11446, table A1), who count characters. Words
    are divided by white space.
    """
    numbers: dict[str, int] = {}
    words = np.array([numbers.setdefault(word, len(numbers)) for word in text.split()], dtype=np.uint64)
    if len(words) <= NGRAM:
        return 0.0
    grams = np.zeros(len(words) - NGRAM + 1, dtype=np.uint64)
    for start in range(NGRAM):
        # A polynomial modulo 2^64 (Knuth's MMIX multiplier), mixed so that low word numbers reach every bit.
        grams = grams * np.uint64(6364136223846793005) + words[start : start + len(grams)] + np.uint64(1)
        grams ^= grams >> np.uint64(29)
    _, first = np.unique(grams, return_index=True)
    repeats = np.ones(len(grams), dtype=np.int64)
    repeats[first] = 0
    change = np.zeros(len(words) + 1, dtype=np.int64)
    change[: len(grams)] += repeats
    change[NGRAM:] -= repeats
    return float(np.count_nonzero(np.cumsum(change[:-1])) / len(words))
