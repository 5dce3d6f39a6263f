"""Commits as rows: the message is the prompt, the diff is what is learned.

A diff that is too long for a row is cut between files, else between hunks, else between lines. Each part is a diff by
itself: its prompt, the names of its file and the counts of its hunks come again.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from chrysalis_mlx.batches.rows import Row
from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.corpus.frame.chunks import BLANK, HEADING, LINE, SURELY_LONG, Piece, cuts
from chrysalis_mlx.genome.git.patch import FileDiff, split_lines
from chrysalis_mlx.genome.history import Commit
from chrysalis_mlx.models.tokenizer import Tokenizer

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


def occurrences(weight: float, seed: int, commit: Commit) -> int:
    """How often a commit is seen in an epoch: `weight` on average, rounded up or down by its name and the seed."""
    digest = hashlib.sha256(f"{seed} {commit.sha}".encode("ascii")).digest()
    return math.floor(weight + int.from_bytes(digest[:8], "big") / 2**64)


def commit_rows(commit: Commit, tokenizer: Tokenizer, row_length: int) -> list[Row]:
    """The rows of a commit, none longer than `row_length` tokens.

    Returns:
        none when a line of the diff is too long for a row, or the subject takes more than half of it.
    """
    prompt = next((text for text in _prompts(commit) if len(tokenizer.encode(text)) <= row_length // 2), None)
    if prompt is None:
        return []
    lines = [line for file in commit.files for line in _lines(file)]
    if sum(len(line.text) for line in lines) <= SURELY_LONG * row_length:
        whole = _rows(commit, prompt, [lines])
        if not _excess(whole, tokenizer, row_length):
            return whole
    return _cut_rows(commit, prompt, lines, tokenizer, row_length)


def _cut_rows(commit: Commit, prompt: str, lines: Sequence[_Line], tokenizer: Tokenizer, row_length: int) -> list[Row]:
    """The rows of a diff that is too long for one; none when a line is."""
    pieces = _pieces(lines, tokenizer)
    repeated = prompt + max((file.header + split_lines(file.hunks[-1])[0] for file in commit.files), key=len)
    room = max(row_length - len(tokenizer.encode(repeated)), 1)
    while True:
        ranges = list(cuts(pieces, room))
        rows = _rows(commit, prompt, [lines[start:end] for start, end in ranges])
        excess = _excess(rows, tokenizer, row_length)
        if not excess:
            return rows
        if len(ranges) == len(lines):
            return []
        room = max(room - excess, 1)


@dataclass(frozen=True)
class _Line:
    """A line of a hunk with its mark, and with the remark that the file ends without a line end.

    Attributes:
        before, after: the number of the line that comes next in the file before and after the change.
    """

    file: FileDiff
    hunk: int
    before: int
    after: int
    text: str


def _lines(file: FileDiff) -> Iterator[_Line]:
    for number, hunk in enumerate(file.hunks):
        head, *lines = split_lines(hunk)
        numbers = _HUNK.match(head)
        assert numbers is not None
        # Of no lines, git gives the number of the line before.
        before, after = (int(numbers[at]) + (numbers[at + 1] == "0") for at in (1, 3))
        for text, following in zip(lines, [*lines[1:], ""], strict=True):
            if text[0] != "\\":
                yield _Line(file, number, before, after, text + (following if following.startswith("\\") else ""))
                before += text[0] in " -"
                after += text[0] in " +"


def _pieces(lines: Sequence[_Line], tokenizer: Tokenizer) -> list[Piece]:
    """The lines as pieces for `cuts`; the first one of a hunk counts with what stands before it."""
    texts, ranks = [], []
    file, hunk = None, -1
    for line in lines:
        rank = HEADING if line.file is not file else BLANK if line.hunk != hunk else LINE
        header = line.file.header if rank == HEADING else ""
        counts = split_lines(line.file.hunks[line.hunk])[0] if rank != LINE else ""
        texts.append(header + counts + line.text)
        ranks.append(rank)
        file, hunk = line.file, line.hunk
    around, *tokens = [len(ids) for ids in tokenizer.encode_batch(["", *texts])]
    return [Piece(text, max(n - around, 1), rank) for text, n, rank in zip(texts, tokens, ranks, strict=True)]


def _diff(lines: Sequence[_Line]) -> str:
    """The diff that these lines make; what a cut has left without a change is no part of it."""
    parts = []
    for file, of_file in groupby(lines, key=lambda line: line.file):
        hunks = [list(of_hunk) for _, of_hunk in groupby(of_file, key=lambda line: line.hunk)]
        changed = [hunk for hunk in hunks if any(line.text[0] != " " for line in hunk)]
        parts += [file.header] * bool(changed) + [_hunk(hunk) for hunk in changed]
    return "".join(parts)


def _hunk(lines: Sequence[_Line]) -> str:
    before = _span(lines[0].before, sum(line.text[0] in " -" for line in lines))
    after = _span(lines[0].after, sum(line.text[0] in " +" for line in lines))
    return f"@@ -{before} +{after} @@\n" + "".join(line.text for line in lines)


def _span(start: int, count: int) -> str:
    return str(start) if count == 1 else f"{start if count else start - 1},{count}"


def _prompts(commit: Commit) -> Iterator[str]:
    """What asks for the diff: with the whole message, and with its subject alone."""
    for message in (commit.message, commit.message.split("\n", 1)[0]):
        yield f"Write the diff of this commit to {commit.repository}:\n\n{message}\n\n"


def _rows(commit: Commit, prompt: str, parts: Sequence[Sequence[_Line]]) -> list[Row]:
    diffs = [diff for diff in map(_diff, parts) if diff]
    return [
        {
            "prompt": prompt,
            "completion": diff,
            "repository": commit.repository,
            "path": f"commit {commit.sha[:12]}",
            "framing": "history",
            "part": part,
            "parts": len(diffs),
        }
        for part, diff in enumerate(diffs, 1)
    ]


def _excess(rows: Sequence[Row], tokenizer: Tokenizer, row_length: int) -> int:
    """By how many tokens the longest row is too long."""
    return max([0, *(len(segment.tokens) - row_length for segment in segments(rows, tokenizer))])
