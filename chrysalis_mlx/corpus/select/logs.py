"""Machine logs: lines that a running program wrote, told by their form."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

# Fewer lines of a form may well be a list that someone wrote.
LEAST_LINES = 8
LEAST_WORDS = 2
RECURS = 3
KNOWN_PAIRS = 2 / 3

_DIGIT = re.compile(r"[0-9]")
# What changes from one report to the next: numbers, and hexadecimal names with a digit (without, they may be words).
_NUMBERS = re.compile(r"0[xX][0-9a-fA-F]+|\b(?=[a-f]*[0-9])[0-9a-f]{8,}\b|[0-9]+")
_WORDS = re.compile(r"[^\W\d_]\w*")
# A time with seconds, seconds since the start, a level. People write these, too, but seldom.
_STAMP = re.compile(
    r"(?:\b|[0-9]T)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?![0-9:])"
    r"|[0-9]T[0-9]{6}"
    r"|^\[ *[0-9]+\.[0-9]+\]"
    r"|^\W*(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)\b"
)
# Progress, and a frame of a stack: Python's, then Java's and JavaScript's.
_REPORT = re.compile(r'\[ *[0-9]{1,3}%\]$|\b[0-9]{1,3}%\||^File ".+", line [0-9]+|^at .+:[0-9]+\)?$')


def log_lines(text: str) -> float:
    """Characters in log lines / characters in all lines; 0 where under 8 lines are log lines.

    The shape of a line is the line with all numbers masked. A line with a number is a log line if
    - its shape, of two words or more, is the shape of at least 8 different lines: rows of a table that someone wrote
      share their columns, not their words; or
    - it is a progress report or a frame of a stack; or
    - it is stamped (time of day, seconds since the start, level) and at least 2/3 of the pairs of neighbouring words
      in it, both ends counted as words, stand in 3 or more different stamped lines: the lines of a transcript are
      stamped, too, but people do not speak in templates.
    """
    lines = [line for line in map(str.strip, text.replace("\r", "\n").split("\n")) if line]
    shapes = {line: _NUMBERS.sub("0", line) for line in lines if _DIGIT.search(line)}
    if len(shapes) < LEAST_LINES:
        return 0.0
    words = {shape: tuple(_WORDS.findall(shape)) for shape in shapes.values()}
    stamped = {line for line in shapes if _STAMP.search(line)}
    alike = Counter(shapes.values())
    templates = _templates(Counter(words[shapes[line]] for line in stamped))

    def is_log(line: str, shape: str) -> bool:
        if alike[shape] >= LEAST_LINES and len(words[shape]) >= LEAST_WORDS:
            return True
        return (line in stamped and words[shape] in templates) or bool(_REPORT.search(line))

    logged = {line for line, shape in shapes.items() if is_log(line, shape)}
    sizes = [len(line) for line in lines if line in logged]
    return sum(sizes) / sum(map(len, lines)) if len(sizes) >= LEAST_LINES else 0.0


def _templates(lines: Counter[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Those word sequences, given with their number of lines, whose pairs of neighbours mostly stand in other lines."""
    pairs = {words: set(pairwise(("", *words, ""))) for words in lines if words}
    counts: Counter[tuple[str, str]] = Counter()
    for words, own in pairs.items():
        for pair in own:
            counts[pair] += lines[words]
    return {
        words for words, own in pairs.items() if sum(counts[pair] >= RECURS for pair in own) >= KNOWN_PAIRS * len(own)
    }
