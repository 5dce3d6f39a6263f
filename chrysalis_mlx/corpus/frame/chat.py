"""Documents as questions and answers. The questions come from headings, keys, docstrings and tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame import python
from chrysalis_mlx.corpus.frame.chunks import Passage
from chrysalis_mlx.corpus.frame.markdown import Table, plain, tables
from chrysalis_mlx.corpus.frame.section import Section
from chrysalis_mlx.corpus.frame.sections import MARKDOWN, PYTHON, suffix

_ABOUT = ("What does {source} say about {it}?", "Tell me what {source} says about {it}.", "Explain {it} from {source}.")
_ASKED = ("{it} What does {source} say?", 'How does {source} answer the question "{it}"?')
_NAMED = ("What is {it}?", "Tell me about {it}.", "What is {it} about?", "Describe {it}.")
_TITLED = ("What is {it} in {source} about?", "How does {source}, {it}, begin?", "How does {source} introduce {it}?")
_WHOLE = ("What is in {source}?", "What does {source} contain?", "Show me {source}.")
_BEGINNING = ("How does {source} begin?", "What stands at the beginning of {source}?")
_FOLLOWING = ("What follows {it} in {source}?", "What comes after {it} in {source}?")
_SOURCE = (
    "Show me {it} in {source}.",
    "What is the source code of {it} in {source}?",
    "How is {it} in {source} written?",
)
_DOES = ("What does {it} in {source} do?", "Explain {it} in {source}.", "What is the purpose of {it} in {source}?")
_ENTRY = (
    "What does {source} say about {it}?",
    "Tell me about {it}, according to {source}.",
    "Describe {it} from {source}.",
)

_NUMBERING = re.compile(r"(\d+(\.\d+)*[.):]?|[IVXLC]+[.)]|[A-Z][.)])\s+(?=\S)")
_RULE = re.compile(r"([-*_])(\s*\1){2,}")
_TITLE = 120  # characters of a title in a question
_TITLES = 3  # titles in a question
_ENTRY_LENGTH = 40  # characters; a table's row that says less is no answer


class _Exchange(NamedTuple):
    """The questions that there are for an answer, and what stands in them for `it`."""

    questions: Sequence[str]
    it: str
    answer: str


def passages(document: Document, sections: list[Section], system: str | None, draw: int) -> list[Passage]:
    """One passage for each exchange. Every question names the place, so that it can be answered without the document.

    Sections come first, in order, then what docstrings and rows of tables say.

    Args:
        system: put before every question; None: nothing.
        draw: how often the document was framed so before; each time the questions are worded otherwise.
    """
    source = _source(document)
    found = [*_from_sections(document, sections), *_from_docstrings(document), *_from_tables(document)]
    made = []
    for index, exchange in enumerate(found):
        key = f"{document.digest}/{index}".encode()
        pick = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") + draw
        question = exchange.questions[pick % len(exchange.questions)].format(source=source, it=exchange.it)
        question = question[0].upper() + question[1:]
        made.append(Passage(document, "chat", exchange.answer, partial(_row, system, question)))
    return made


def _row(system: str | None, question: str, body: str, part: int, parts: int) -> dict[str, Any]:
    asked = question if part == 1 else f"{question} (part {part} of {parts})"
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": body.strip("\n").rstrip()}]
    return {"messages": [{"role": "system", "content": system}, *messages] if system else messages}


def _source(document: Document) -> str:
    return (
        f"the README of {document.repository}" if _is_readme(document) else f"{document.path} in {document.repository}"
    )


def _is_readme(document: Document) -> bool:
    path = PurePosixPath(document.path)
    return path.stem.lower() == "readme" and len(path.parts) == 1


def _from_sections(document: Document, sections: list[Section]) -> Iterator[_Exchange]:
    shared = _shared([section.trail for section in sections])
    before = ""
    # What has no word in it is markup and no answer.
    worded = [section for section in sections if re.search(r"\w", re.sub(r"<[^<>]*>", "", section.body))]
    for number, section in enumerate(worded):
        body = _without_rules(section.body) if suffix(document) in MARKDOWN else section.body
        if named := _quoted(document, section.titles):
            yield _Exchange(*_question(document, section, named, number == 0, shared), body)
            before = _quoted(document, section.titles[-1:]) or named
        elif len(sections) == 1:
            yield _Exchange(_WHOLE, "", body)
        else:
            yield _Exchange(_FOLLOWING if before else _BEGINNING, before, body)


def _without_rules(text: str) -> str:
    """A text without the lines at its end that divide it from the next."""
    lines = text.rstrip().split("\n")
    while lines and (not lines[-1].strip() or _RULE.fullmatch(lines[-1].strip())):
        lines.pop()
    return "\n".join(lines)


def _question(document: Document, section: Section, it: str, is_first: bool, shared: int) -> tuple[Sequence[str], str]:
    """What is asked about a section whose titles, in quotes, are `it`; `shared` chapters hold all sections."""
    if suffix(document) in PYTHON:
        return _SOURCE, it
    title = _clean(section.titles[0])
    if is_first and len(section.titles) == 1 and not section.trail:
        if _is_readme(document) and _folded(title) == _folded(document.repository):
            return _NAMED, document.repository
        if suffix(document) in MARKDOWN:
            return _TITLED, it
    if len(section.titles) == 1 and title.endswith("?"):
        return _ASKED, title
    around = _quoted(document, section.trail[shared:][-1:])
    return _ABOUT, f"{it} under {around}" if around else it


def _from_docstrings(document: Document) -> Iterator[_Exchange]:
    if suffix(document) in PYTHON:
        for subject, text in python.docstrings(document.text):
            yield _Exchange(_DOES, subject, text)


def _from_tables(document: Document) -> Iterator[_Exchange]:
    if suffix(document) in MARKDOWN:
        for table in tables(document.text.split("\n")):
            yield from _entries(table)


def _entries(table: Table) -> Iterator[_Exchange]:
    """One exchange for each row that a first cell names and others describe in words."""
    kind = plain(table.head[0]).lower()
    names = [plain(row[0]) for row in table.rows]
    for row, name in zip(table.rows, names, strict=True):
        cells = [(plain(head), plain(cell)) for head, cell in zip(table.head[1:], row[1:], strict=True) if cell]
        letters = sum(character.isalpha() for _, cell in cells for character in cell)
        if letters >= _ENTRY_LENGTH and len(name) <= _TITLE and names.count(name) == 1 and _is_word(name):
            answer = cells[0][1] if len(cells) == 1 else "\n".join(f"{head}: {cell}" for head, cell in cells)
            yield _Exchange(_ENTRY, f'the {kind} "{name}"' if _is_word(kind) else f'"{name}"', answer)


def _quoted(document: Document, titles: Sequence[str]) -> str:
    """Titles as an enumeration: each once, in quotes where they are no code; "" where none of them has a word."""
    said = titles if suffix(document) in PYTHON else [f'"{_clean(title)}"' for title in titles]
    named = list(dict.fromkeys(title for title in said if re.search(r"\w", title)))
    if len(named) > _TITLES:
        named = [*named[:_TITLES], "what follows"]
    return " and ".join(filter(None, [", ".join(named[:-1]), *named[-1:]]))


def _clean(title: str) -> str:
    """A title as one says it: without markup, numbering and colon, and not endless."""
    said = plain(title).rstrip(":.- ")
    said = _NUMBERING.sub("", said, count=1) if _NUMBERING.match(said) else said
    if len(said) > _TITLE:
        said = said[:_TITLE].rsplit(" ", 1)[0].rstrip(",;:") + " ..."
    return said.replace('"', "'")


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _is_word(name: str) -> bool:
    return sum(character.isalpha() for character in name) >= max(2, len(name) // 2)


def _shared(trails: Sequence[tuple[str, ...]]) -> int:
    """How many chapters all titled sections lie in; naming those tells nothing."""
    deep = [trail for trail in trails if trail]
    count = 0
    while deep and all(len(trail) > count and trail[count] == deep[0][count] for trail in deep):
        count += 1
    return count
