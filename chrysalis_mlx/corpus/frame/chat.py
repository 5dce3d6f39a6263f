"""Documents as questions and answers. The questions come from headings, keys, docstrings and tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame import python
from chrysalis_mlx.corpus.frame.chunks import Passage, first_fitting
from chrysalis_mlx.corpus.frame.markdown import Table, outline, plain, tables
from chrysalis_mlx.corpus.frame.prose import has_word, is_worded
from chrysalis_mlx.corpus.frame.section import Section
from chrysalis_mlx.corpus.frame.sections import MARKDOWN, PYTHON, suffix
from chrysalis_mlx.models.tokenizer import Tokenizer


class _Wording(NamedTuple):
    """Ways to ask for `it`, and how to ask for a later part of an answer that is too long for one row."""

    questions: Sequence[str]
    rest: str = 'What does {source} say about {it}, from "{words}" on?'


_ABOUT = _Wording(
    ("What does {source} say about {it}?", "Tell me what {source} says about {it}.", "Explain {it} from {source}.")
)
_ASKED = _Wording(
    ("{it} What does {source} say?", 'How does {source} answer the question "{it}"?'),
    'How does {source} answer the question "{it}", from "{words}" on?',
)
_NAMED = _Wording(("What is {it}?", "Tell me about {it}.", "What is {it} about?", "Describe {it}."))
_TITLED = _Wording(
    ("What is {it} in {source} about?", "What does {source} tell about {it}?", "What is under {it} in {source}?")
)
_WHOLE = _Wording(
    ("What is in {source}?", "What does {source} contain?", "Show me {source}."),
    'How does {source} go on from "{words}"?',
)
_FIRST = _Wording(("What stands at the top of {source}?", "What comes first in {source}?"), _WHOLE.rest)
_FOLLOWING = _Wording(("What follows {it} in {source}?", "What comes after {it} in {source}?"), _WHOLE.rest)
_SOURCE = _Wording(
    (
        "Show me {it} in {source}.",
        "What is the source code of {it} in {source}?",
        "How is {it} in {source} written?",
    ),
    'How does {it} in {source} go on from "{words}"?',
)
_DOES = _Wording(
    ("What does {it} in {source} do?", "Explain {it} in {source}.", "What is the purpose of {it} in {source}?")
)
_ENTRY = _Wording(
    (
        "What does {source} say about {it}?",
        "Tell me about {it}, according to {source}.",
        "Describe {it} from {source}.",
    )
)

_NUMBERING = re.compile(r"(\d+(\.\d+)+[.):]?|\d+[.):])\s+(?=\S)|([IVXLC]+|[A-Z])[.)]\s+(?=[^\W_a-z])")
_CLOSING = re.compile(r"[`$|(){}\[\]\\]")  # what may close something that a text has opened
_TITLE = 120  # characters of a title in a question
_TITLES = 3  # titles in a question
_SHORT_TITLE = 40  # characters of a title where more leaves no room
_WORDS = 8  # of a part in the question for it
_FEW = 16  # characters; a line with fewer is quoted with the next
_QUOTED = 60  # characters of them
_ENTRY_LENGTH = 40  # characters; a table's row that says less is no answer


class _Exchange(NamedTuple):
    """How to ask for an answer; `names` are what `it` can be called, from the best to the shortest."""

    wording: _Wording
    names: Sequence[str]
    answer: str


def passages(
    document: Document, sections: list[Section], system: str | None, draw: int, tokenizer: Tokenizer, row_length: int
) -> list[Passage]:
    """One passage for each exchange. Every question names the place, so that it can be answered without the document.

    Sections that are worded come first, in order, then what docstrings and rows of tables say. What is too long for a
    row is asked for in parts, the later ones by the words that they begin with.

    Args:
        system: put before every question; None: nothing.
        draw: how often the document was framed so before; each time the questions are worded otherwise.
    """
    source = _source(document)
    found = [*_from_sections(document, sections), *_from_docstrings(document), *_from_tables(document)]
    made = []
    for index, (wording, names, answer) in enumerate(found):
        key = f"{document.digest}/{index}".encode()
        pick = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") + draw
        form = wording.questions[pick % len(wording.questions)]
        asked = [form.format(source=source, it=it) for it in names]
        question = first_fitting(asked, tokenizer, row_length)
        rest = partial(wording.rest.format, source=source, it=names[asked.index(question)])
        render = partial(_row, system, question, rest, suffix(document))
        made.append(Passage(document, "chat", answer, render, is_wanted=is_worded))
    return made


def _row(
    system: str | None, question: str, rest: Callable[..., str], kind: str, body: str, part: int, before: str
) -> dict[str, Any]:
    asked = question if part == 1 else rest(words=_first_words(body, kind))
    answer = _without_rules(body) if kind in MARKDOWN else body
    messages = [
        {"role": "user", "content": asked[0].upper() + asked[1:]},
        {"role": "assistant", "content": answer.strip("\n").rstrip()},
    ]
    return {"messages": [{"role": "system", "content": system}, *messages] if system else messages}


def _first_words(text: str, kind: str) -> str:
    """The words that a text begins with, to be quoted; lines of very few words are quoted together."""
    said: list[str] = []
    for line in filter(has_word, text.split("\n")):
        if len(" ".join(said)) >= _FEW:
            break
        if kind in MARKDOWN:
            line = plain(line).lstrip("#>*+-| ")
        elif kind == ".json":
            line = re.sub(r'[\[\]{},"\\]+', " ", line).replace(" :", ":")
        said += line.split()
    words = " ".join((said or text.split())[:_WORDS])
    if len(words) > _QUOTED:
        words = words[:_QUOTED].rsplit(" ", 1)[0]
    return words.rstrip(",;:").replace('"', "'")


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
    for number, section in enumerate(sections):
        named = _quoted(document, section.titles)
        if is_worded(section.body):
            body = _without_rules(section.body) if suffix(document) in MARKDOWN else section.body
            if named:
                yield _Exchange(*_question(document, section, named, number == 0, shared), body)
            elif len(sections) == 1:
                yield _Exchange(_WHOLE, [""], body)
            else:
                yield _Exchange(_FOLLOWING if before else _FIRST, [before], body)
        before = (_quoted(document, section.titles[-1:]) or named) or before


def _without_rules(text: str) -> str:
    """A text without the lines at its end that say nothing outside of tags: what divides it from the next.

    Where no line is left, the whole text.
    """
    lines = text.rstrip().split("\n")
    fenced = outline(lines).fenced
    while lines and not (fenced[len(lines) - 1] or has_word(lines[-1]) or _CLOSING.search(lines[-1])):
        lines.pop()
    return "\n".join(lines) or text


def _question(
    document: Document, section: Section, it: str, is_first: bool, shared: int
) -> tuple[_Wording, Sequence[str]]:
    """What is asked about a section whose titles, in quotes, are `it`; `shared` chapters hold all sections."""
    if suffix(document) in PYTHON:
        return _SOURCE, [it, section.titles[0]]
    title = _clean(section.titles[0])
    short = f'"{_shortened(title, _SHORT_TITLE)}"'
    if is_first and len(section.titles) == 1 and not section.trail:
        if _is_readme(document) and _folded(title) == _folded(document.repository):
            return _NAMED, [document.repository]
        if suffix(document) in MARKDOWN:
            return _TITLED, [it, short]
    if len(section.titles) == 1 and title.endswith("?"):
        return _ASKED, [title]
    around = _quoted(document, section.trail[shared:][-1:])
    return _ABOUT, [f"{it} under {around}", it, short] if around else [it, short]


def _from_docstrings(document: Document) -> Iterator[_Exchange]:
    if suffix(document) in PYTHON:
        for subject, text in python.docstrings(document.text):
            yield _Exchange(_DOES, [subject], text)


def _from_tables(document: Document) -> Iterator[_Exchange]:
    """Each entry once: the same name in two tables would be the same question with two answers."""
    if suffix(document) in MARKDOWN:
        asked: set[str] = set()
        for table in tables(document.text.split("\n")):
            for entry in _entries(table):
                if entry.names[0] not in asked:
                    asked.add(entry.names[0])
                    yield entry


def _entries(table: Table) -> Iterator[_Exchange]:
    """One exchange for each row that a first cell names and others describe in words."""
    kind = " ".join(word.lower() if word[1:].islower() else word for word in plain(table.head[0]).split())
    names = [plain(row[0]).strip('"“”').replace('"', "'") for row in table.rows]
    for row, name in zip(table.rows, names, strict=True):
        cells = [(plain(head), plain(cell)) for head, cell in zip(table.head[1:], row[1:], strict=True) if cell]
        letters = sum(character.isalpha() for _, cell in cells for character in cell)
        if letters >= _ENTRY_LENGTH and len(name) <= _TITLE and _is_word(name):
            answer = cells[0][1] if len(cells) == 1 else "\n".join(f"{head}: {cell}" for head, cell in cells)
            yield _Exchange(_ENTRY, [f'the {kind} "{name}"' if _is_word(kind) else f'"{name}"'], answer)


def _quoted(document: Document, titles: Sequence[str]) -> str:
    """Titles as an enumeration: each once, in quotes where they are no code; "" where none of them has a word."""
    said = titles if suffix(document) in PYTHON else [f'"{_clean(title)}"' for title in titles]
    named = list(dict.fromkeys(title for title in said if re.search(r"\w", title)))
    if len(named) > _TITLES:
        named = [*named[:_TITLES], "what follows"]
    return " and ".join(filter(None, [", ".join(named[:-1]), *named[-1:]]))


def _clean(title: str) -> str:
    """A title as one says it: without markup, numbering and colon, and not endless."""
    said = re.sub(r"^-+\s+", "", plain(title)).rstrip(":.- ")
    said = _NUMBERING.sub("", said, count=1) if _NUMBERING.match(said) else said
    return _shortened(said, _TITLE).replace('"', "'")


def _shortened(title: str, length: int) -> str:
    return title if len(title) <= length else title[:length].rsplit(" ", 1)[0].rstrip(",;:") + " ..."


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
