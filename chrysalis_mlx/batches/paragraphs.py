"""Any text as segments: whole paragraphs together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chrysalis_mlx.batches.rows import Row
from chrysalis_mlx.batches.tokens import Segment, segments
from chrysalis_mlx.models.tokenizer import Tokenizer


def paragraph_segments(text: str, tokenizer: Tokenizer, row_length: int, *, ended: bool = True) -> list[Segment]:
    """Whole paragraphs together, of at most `row_length` tokens; a paragraph that is longer is cut there.

    Args:
        text: empty lines are between its paragraphs.
        ended: whether the end token follows each segment, and is a target.
    """
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]
    groups: list[list[str]] = []
    room = 0
    for paragraph, length in zip(paragraphs, tokenizer.count_batch(paragraphs), strict=True):
        need = length + 4  # the empty line, and special tokens around the text
        if need > room:
            groups.append([])
            room = row_length
        groups[-1].append(paragraph)
        room -= need
    # Of two parts the first goes on, so that no end token follows it.
    parts: Row = {} if ended else {"part": 1, "parts": 2}
    made = segments([{"text": "\n\n".join(group), **parts} for group in groups], tokenizer, source="the text")
    return [Segment(segment.tokens[:row_length], segment.supervised[:row_length]) for segment in made]


def spread(segments: Sequence[Segment], tokens: int) -> list[Segment]:
    """Segments of about so many tokens in all, evenly spread over all of them."""
    total = sum(len(segment.tokens) for segment in segments)
    count = len(segments) if total <= tokens else max(1, len(segments) * tokens // total)
    chosen = np.unique(np.linspace(0, len(segments) - 1, count).astype(int)) if segments else ()
    return [segments[index] for index in chosen]
