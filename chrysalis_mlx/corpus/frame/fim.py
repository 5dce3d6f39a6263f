"""Code with a hole in it, for the model to fill (Bavarian et al. 2022, arXiv 2207.14255: PSM, document level)."""

from __future__ import annotations

import hashlib
from functools import partial
from itertools import accumulate

from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame.chunks import Passage
from chrysalis_mlx.corpus.frame.sections import suffix
from chrysalis_mlx.models.tokenizer import FimTokens

# fmt: off
CODE = frozenset((
    ".bash", ".c", ".cc", ".clj", ".cpp", ".cs", ".css", ".cu", ".cxx", ".dart", ".el", ".erl", ".ex", ".exs",
    ".f90", ".glsl", ".go", ".h", ".hpp", ".hs", ".html", ".java", ".jl", ".js", ".jsx", ".kt", ".lisp", ".lua",
    ".m", ".metal", ".ml", ".mjs", ".mm", ".nim", ".php", ".pl", ".ps1", ".py", ".pyi", ".r", ".rb", ".rs",
    ".scala", ".scss", ".sh", ".sol", ".sql", ".swift", ".tex", ".ts", ".tsx", ".v", ".vue", ".wgsl", ".zig",
))
# fmt: on

_LARGEST = 0.5  # share of the lines that a hole may take
_IN_LINE = 4  # one hole of so many lies inside of a line


def passages(document: Document, tokens: FimTokens | None, seed: int, draw: int) -> list[Passage]:
    """The document with a hole in every row; none for what is no code, or holds the tokens itself.

    Args:
        tokens: the tokenizer's; None when it has none.
        draw: how often the document was framed so before; each time the holes are others.
    """
    marks = (tokens.prefix, tokens.suffix, tokens.middle) if tokens else ()
    if not marks or suffix(document) not in CODE or any(mark in document.text for mark in marks):
        return []
    if not document.text.strip():
        return []
    # The end token must follow every hole: each row is a text of its own.
    return [Passage(document, "fim", document.text, partial(_row, marks, f"{seed}/{document.digest}/{draw}"), own=True)]


def _row(marks: tuple[str, ...], key: str, body: str, part: int, before: str) -> dict[str, str]:
    start, end = hole(body, f"{key}/{part}")
    prefix, suffix, middle = marks
    return {"text": prefix + body[:start] + suffix + body[end:] + middle + body[start:end]}


def hole(text: str, key: str) -> tuple[int, int]:
    """Where the hole of a text begins and ends: a pure function of the two, never nothing but white space.

    Three of four are whole lines, at most half of them; the others lie inside of one line.
    """
    lines = text.splitlines(keepends=True)
    ends = list(accumulate(map(len, lines)))
    written = [number for number, line in enumerate(lines) if line.strip()]
    if not written:
        return 0, len(text)
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    kind, where, how_far, _ = (int.from_bytes(digest[at : at + 8], "big") for at in range(0, 32, 8))
    first = written[where % len(written)]
    start = ends[first] - len(lines[first])
    if kind % _IN_LINE and len(lines) > 1:
        last = min(first + how_far % max(int(len(lines) * _LARGEST), 1), len(lines) - 1)
        return start, ends[last]
    line = lines[first].rstrip()
    indent = len(line) - len(line.lstrip())
    begin = indent + (where // len(written)) % (len(line) - indent)
    begin = len(line) - len(line[begin:].lstrip())
    return start + begin, start + begin + 1 + how_far % (len(line) - begin)
