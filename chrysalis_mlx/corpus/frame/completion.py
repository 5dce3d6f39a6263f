"""Documents as prompts that say where one is, and sections that complete them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame.chunks import CONTEXT, Passage, first_fitting, last_lines
from chrysalis_mlx.corpus.frame.prose import is_worded
from chrysalis_mlx.corpus.frame.section import Section
from chrysalis_mlx.corpus.frame.text import filled
from chrysalis_mlx.models.tokenizer import Tokenizer


def passages(
    document: Document, header: str, sections: list[Section], tokenizer: Tokenizer, row_length: int
) -> list[Passage]:
    """One passage for each section that is worded. Its prompt is the header and the headings on the way to it.

    The header `# repository/path` and a section two levels down give

        # repository/path
        ## Chapter > Section

    and an empty line. Where that takes more than half of a row, the outer headings are left out. Sections that were
    joined bring their headings along in their text. The prompt of a part that is not the first goes on with the last
    lines before it, and so does that of a section at the same place as another: its prompt says how the text went on.
    """
    written, context = filled(header, document), row_length // CONTEXT
    found: list[Passage] = []
    places: set[str] = set()
    before = ""
    for section in sections:
        place = first_fitting((written + place for place in _places(section)), tokenizer, row_length)
        shown = last_lines(before, context).rstrip() if place in places else ""
        prompt = f"{written}{shown}\n\n{place.removeprefix(written)}" if shown else place
        if is_worded(section.body):
            found.append(
                Passage(document, "completion", section.body, partial(_row, prompt, context), is_wanted=is_worded)
            )
            places.add(place)
        before = section.body
    return found


def _places(section: Section) -> Iterator[str]:
    """Where a section is: with all headings, with fewer of the outer ones, with less of its own, without any."""
    own = section.titles if len(section.titles) == 1 else ()
    way = [" ".join(title.split()) for title in (*section.trail, *own)]
    for start in range(len(way)):
        yield f"## {' > '.join(way[start:])}\n\n"
    title = way[-1] if way else ""
    while len(title) > 1:
        title = title[: len(title) // 2].rstrip()
        yield f"## {title} ...\n\n"
    yield ""


def _row(prompt: str, context: int, body: str, part: int, before: str) -> dict[str, str]:
    start = len(body) - len(body.lstrip("\n"))
    return {"prompt": prompt + last_lines(before, context) + body[:start], "completion": body[start:].rstrip()}
