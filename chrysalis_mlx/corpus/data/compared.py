"""What of a row is compared: its prompt and its answers as one text, without what many rows have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from chrysalis_mlx.batches.rows import Row
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.select.words import Hashes, combine, contained, distinct

# What this share of the prompts has, and at least so many of them, tells nothing about likeness.
_COMMON_SHARE, _COMMON_ROWS = 0.05, 5
_WORDS = 5  # in a row that make a piece of a template


def documents_of(rows: Sequence[Row]) -> list[Document]:
    """What the gates, the search for copies and the split compare of each row.

    What many rows have in common is left away, or all of them would be alike: system messages, tools, and of prompts
    the lines, then the five words in a row, that at least 5% of the rows repeat.
    """
    often = max(_COMMON_ROWS, _COMMON_SHARE * len(rows))
    asked = [_asked(row).split("\n") for row in rows]
    count = Counter(line for lines in asked for line in set(lines))
    prompts = ["\n".join(line for line in lines if count[line] < often) for lines in asked]
    return [_document(row, prompt) for row, prompt in zip(rows, _without_templates(prompts, often), strict=True)]


def _without_templates(prompts: Sequence[str], often: float) -> list[str]:
    """The prompts without the words that stand in a common five."""
    ids: dict[str, int] = {}
    words = [prompt.split() for prompt in prompts]
    fives = [
        combine(np.fromiter((ids.setdefault(word, len(ids) + 1) for word in of), np.uint64, len(of)), _WORDS)
        for of in words
    ]
    hashes, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *map(distinct, fives)]), return_counts=True)
    common = hashes[counts >= often]
    return [
        " ".join(word for word, is_common in zip(of, _covered(five, common, len(of)), strict=True) if not is_common)
        if len(common) and contained(five, common).any()
        else prompt
        for prompt, of, five in zip(prompts, words, fives, strict=True)
    ]


def _covered(fives: Hashes, common: Hashes, words: int) -> list[bool]:
    """Which of the words lie in one of the common fives."""
    covered = np.zeros(words, np.bool_)
    for place in np.flatnonzero(contained(fives, common)):
        covered[place : place + _WORDS] = True
    return covered.tolist()


def _asked(row: Row) -> str:
    """What the answer is learned to, of a text nothing."""
    if "messages" in row:
        return "\n\n".join(turn["content"] for turn in row["messages"] if turn["role"] == "user")
    return str(row.get("prompt", ""))


def _answered(row: Row) -> str:
    if "messages" in row:
        return "\n\n".join(turn["content"] for turn in row["messages"] if turn["role"] == "assistant")
    return str(row["completion"] if "completion" in row else row["text"])


def _document(row: Row, asked: str) -> Document:
    text = f"{asked}\n\n{_answered(row)}".strip("\n").removeprefix("\ufeff").replace("\r\n", "\n")
    return Document(row["repository"], row["path"], text)
