"""Markdown that the Hub shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """A Markdown table and an empty line; a heading that begins with ">" is aligned to the right."""
    yield "| " + " | ".join(head.removeprefix(">") for head in heads) + " |"
    yield "|" + "|".join("---:" if head.startswith(">") else "---" for head in heads) + "|"
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"
    yield ""
