"""Commits as rows: the message is the prompt, the diff is what is learned.

A diff that is too long for a row is cut between files, else between hunks, else between lines, but not between a line
and what replaces it where that can be. Each part is a diff by itself, which applies after the parts before it: the
names of its file and the counts of its hunks come again. Its prompt goes on with the last lines before it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from chrysalis_mlx.batches.rows import Row
from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.corpus.frame.chunks import BLANK, CONTEXT, HEADING, LINE, SURELY_LONG, TORN, Piece, cuts, last_lines
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
    for context in (row_length // CONTEXT, 0):  # where lines are so long that nothing else has room, none is shown
        room = max(row_length - len(tokenizer.encode(repeated)), 1)
        ranges: list[tuple[int, int]] = []
        while len(ranges) < len(lines):
            ranges = list(cuts(pieces, room))
            rows = _rows(commit, prompt, [lines[start:end] for start, end in ranges], context)
            excess = _excess(rows, tokenizer, row_length)
            if not excess:
                return rows
            room = max(room - excess, 1)
    return []


@dataclass(frozen=True)
class _Line:
    """A line of a hunk with its mark, and with the remark that the file ends without a line end.

    Attributes:
        before, after: the number of the line that comes next in the file before and after the change.
        rank: how good a place to cut its beginning is; HEADING is the first line of a file.
    """

    file: FileDiff
    hunk: int
    before: int
    after: int
    text: str
    rank: int


def _lines(file: FileDiff) -> Iterator[_Line]:
    # A later part of a new file finds there what the parts before have put into it.
    in_old_file = " -+" if file.old_path is None else " -"
    for number, hunk in enumerate(file.hunks):
        head, *lines = split_lines(hunk)
        numbers = _HUNK.match(head)
        assert numbers is not None
        # Of no lines, git gives the number of the line before.
        before, after = (int(numbers[at]) + (numbers[at + 1] == "0") for at in (1, 3))
        ranks = [BLANK if number else HEADING, *_ranks(lines)[1:]]
        for text, following, rank in zip(lines, [*lines[1:], ""], ranks, strict=True):
            if text[0] != "\\":
                whole = text + (following if following.startswith("\\") else "")
                yield _Line(file, number, before, after, whole, rank)
                before += text[0] in in_old_file
                after += text[0] in " +"


def _ranks(lines: Sequence[str]) -> list[int]:
    """How good a place to cut the beginning of each line of a hunk is: torn within what replaces something."""
    ranks: list[int] = []
    for is_change, group in groupby(lines, key=lambda line: line[0] != " "):
        block = list(group)
        is_replacement = is_change and {"-", "+"} <= {line[0] for line in block}
        ranks += [LINE] + [TORN if is_replacement else LINE] * (len(block) - 1)
    return ranks


def _pieces(lines: Sequence[_Line], tokenizer: Tokenizer) -> list[Piece]:
    """The lines as pieces for `cuts`; the first one of a hunk counts with what stands before it."""
    texts = []
    for line in lines:
        header = line.file.header if line.rank == HEADING else ""
        counts = split_lines(line.file.hunks[line.hunk])[0] if line.rank >= BLANK else ""
        texts.append(header + counts + line.text)
    around, *tokens = [len(ids) for ids in tokenizer.encode_batch(["", *texts])]
    return [Piece(text, max(n - around, 1), line.rank) for text, n, line in zip(texts, tokens, lines, strict=True)]


def _diff(lines: Sequence[_Line]) -> str:
    """The diff that these lines make; what a cut has left without a change is no part of it."""
    parts = []
    for _, of_file in groupby(lines, key=lambda line: line.file):
        of = list(of_file)
        hunks = [list(of_hunk) for _, of_hunk in groupby(of, key=lambda line: line.hunk)]
        changed = [hunk for hunk in hunks if any(line.text[0] != " " for line in hunk)]
        parts += [_header(of[0])] * bool(changed) + [_hunk(hunk) for hunk in changed]
    return "".join(parts)


def _header(first: _Line) -> str:
    """The names of a file, which is new in its first part alone."""
    if first.file.old_path is not None or first.rank == HEADING:
        return first.file.header
    new = split_lines(first.file.header)[1]
    return "---" + new[3:].replace("b/", "a/", 1) + new


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


def _rows(commit: Commit, prompt: str, parts: Sequence[Sequence[_Line]], context: int = 0) -> list[Row]:
    diffs = [diff for diff in map(_diff, parts) if diff]
    return [
        {
            "prompt": prompt + (last_lines(before, context) if context else ""),
            "completion": diff,
            "repository": commit.repository,
            "path": f"commit {commit.sha[:12]}",
            "framing": "history",
            "part": part,
            "parts": len(diffs),
        }
        for part, (before, diff) in enumerate(pairwise(["", *diffs]), 1)
    ]


def _excess(rows: Sequence[Row], tokenizer: Tokenizer, row_length: int) -> int:
    """By how many tokens the longest row is too long."""
    return max([0, *(len(segment.tokens) - row_length for segment in segments(rows, tokenizer))])
