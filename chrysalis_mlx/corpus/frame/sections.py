"""Documents divided into sections by what their format calls one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame import keys, python
from chrysalis_mlx.corpus.frame.markdown import Heading, outline
from chrysalis_mlx.corpus.frame.section import Leaf, Section, joined

MARKDOWN = frozenset((".md", ".markdown", ".mdx", ".qmd", ".rmd"))
PYTHON = frozenset((".py", ".pyi"))

_UNDERLINE = re.compile(r"([=`:'\"~^_*+#<>.-])\1{2,}[ \t]*\n?$")


def suffix(document: Document) -> str:
    """The ending of a document's name, in lower case, with its dot."""
    return PurePosixPath(document.path).suffix.lower()


def sections(document: Document) -> list[Section]:
    """The sections of a document, in order; together they hold all of its text but white space.

    Markdown and reStructuredText divide at headings, Python at top-level functions and classes, JSON and YAML that hold
    prose at their keys. Anything else is one section without a title.
    """
    text, kind = document.text, suffix(document)
    found: list[Leaf] | None = None
    if kind in MARKDOWN:
        found = list(_leaves(text, markdown=True))
    elif kind == ".rst":
        found = list(_leaves(text, markdown=False))
    elif kind in PYTHON:
        found = python.leaves(text)
    elif kind == ".json":
        found = keys.json_leaves(text)
    elif kind in (".yaml", ".yml"):
        found = keys.yaml_leaves(text)
    return joined(found or [Leaf((), "", "", text)])


def _leaves(text: str, *, markdown: bool) -> Iterator[Leaf]:
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    headings = outline(lines).headings if markdown else list(_restructured(lines))
    first, *ends = [*(heading.line for heading in headings), len(lines)]
    if first:
        yield Leaf((), "", "", "".join(lines[:first]))
    trail: list[Heading] = []
    for heading, end in zip(headings, ends, strict=True):
        while trail and trail[-1].level >= heading.level:
            trail.pop()
        start = heading.line + heading.lines
        written, body = "".join(lines[heading.line : start]), "".join(lines[start:end])
        yield Leaf(tuple(above.title for above in trail), heading.title, written, body)
        trail.append(heading)


def _restructured(lines: Sequence[str]) -> Iterator[Heading]:
    """Headings of reStructuredText: underlined, overlined or not; levels in the order in which the marks appear."""
    marks: list[tuple[str, bool]] = []
    free = 0  # the first line that no heading has taken
    for number in range(1, len(lines)):
        rule, title = _UNDERLINE.match(lines[number]), lines[number - 1].strip()
        if not rule or number - 1 < free or len(lines[number].rstrip()) < len(title) or not title:
            continue
        over = number - 2 >= free and lines[number - 2].rstrip() == lines[number].rstrip()
        if _UNDERLINE.match(title) or (lines[number - 1][0].isspace() and not over):
            continue
        if not over and number - 2 >= free and lines[number - 2].strip():
            continue
        mark = (rule[1], over)
        if mark not in marks:
            marks.append(mark)
        first = number - 2 if over else number - 1
        yield Heading(first, number + 1 - first, marks.index(mark) + 1, title)
        free = number + 1
