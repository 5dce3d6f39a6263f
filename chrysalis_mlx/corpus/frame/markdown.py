"""The structure of Markdown, as far as headings, code fences and tables go (CommonMark 4.2, 4.3 and 4.5; GFM 4.10)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+([^\r\n]*?)(?:[ \t]+#+)?[ \t]*\n?$")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*\n?$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)")
_PARAGRAPH = re.compile(r" {0,3}[^\s>|#*+=-]")
_TABLE_RULE = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?$")
_TITLE = 120  # characters; a longer line above a rule is a paragraph
_LONGEST = 1000  # characters; a longer line is no heading of any kind


class Heading(NamedTuple):
    """Where it begins, how many lines it takes, its level from 1, and its text."""

    line: int
    lines: int
    level: int
    title: str


class Outline(NamedTuple):
    """The headings of a text, and for each of its lines whether it lies in fenced code (or the front matter)."""

    headings: list[Heading]
    fenced: list[bool]


class Table(NamedTuple):
    """The cells of a table's head and of its rows."""

    head: list[str]
    rows: list[list[str]]


def outline(lines: Sequence[str]) -> Outline:
    """Find headings, ATX and setext, outside of fenced code."""
    headings: list[Heading] = []
    fenced = [False] * len(lines)
    fence = ""
    for number in range(_front_matter(lines)):
        fenced[number] = True
    for number in range(sum(fenced), len(lines)):
        line = lines[number]
        mark = line.lstrip(" ")[:1]
        if fence:
            fenced[number] = True
            closing = _FENCE.match(line) if mark == fence[0] else None
            if closing and closing[1].startswith(fence) and not closing[2].strip():
                fence = ""
        elif mark in ("`", "~") and (opening := _FENCE.match(line)) and not (mark == "`" and "`" in opening[2]):
            fence, fenced[number] = opening[1], True
        elif mark == "#" and len(line) <= _LONGEST and (found := _ATX.match(line)) and found[2]:
            headings.append(Heading(number, 1, len(found[1]), found[2]))
        elif mark in ("=", "-") and number and _is_setext(lines, number, fenced, headings):
            level = 1 if mark == "=" else 2
            headings.append(Heading(number - 1, 2, level, lines[number - 1].strip()))
    return Outline(headings, fenced)


def tables(lines: Sequence[str]) -> Iterator[Table]:
    """The pipe tables of a text, outside of fenced code."""
    fenced = outline(lines).fenced
    number = 1
    while number < len(lines):
        head = _cells(lines[number - 1])
        if not fenced[number] and "|" in lines[number] and _TABLE_RULE.match(lines[number].strip()):
            rows = []
            if len(head) == len(_cells(lines[number])):
                while number + 1 < len(lines) and "|" in lines[number + 1]:
                    number += 1
                    rows.append((_cells(lines[number]) + [""] * len(head))[: len(head)])
            if rows:
                yield Table(head, rows)
        number += 1


def plain(text: str) -> str:
    """Inline Markdown as a reader sees it: no links, images, tags or marks of emphasis and code."""
    for _ in range(2):  # an image may be the text of a link
        text = re.sub(r"!?\[([^\[\]]*)\]\([^()]*\)", r"\1", text)
    text = re.sub(r"<[^<>]*>|(?<!\\)[*`]+|(?<![\w\\])_+|_+(?!\w)", "", text)
    return re.sub(r"\\([^\w\s])", r"\1", " ".join(text.split()))


def _is_setext(lines: Sequence[str], number: int, fenced: Sequence[bool], headings: Sequence[Heading]) -> bool:
    """Whether a rule underlines a heading. Only headings of one line count: more are paragraphs above a rule."""
    above = lines[number - 1]
    taken = headings and headings[-1].line + headings[-1].lines > number - 1
    return bool(
        _SETEXT.match(lines[number])
        and _PARAGRAPH.match(above)
        and len(above) <= _TITLE
        and not (taken or fenced[number - 1])
        and (number == 1 or not lines[number - 2].strip())
    )


def _front_matter(lines: Sequence[str]) -> int:
    """How many lines of YAML stand between rules at the beginning."""
    if lines and lines[0].rstrip() == "---":
        for number, line in enumerate(lines[1:100], 2):
            if line.rstrip() == "---":
                return number
            if not re.match(r"[\w\"' -]+:|[ \t#-]", line):
                break
    return 0


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    inner = inner.removesuffix("|") if not inner.endswith(r"\|") else inner
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", inner)]
