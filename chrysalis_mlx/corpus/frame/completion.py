"""Documents as prompts that say where one is, and sections that complete them."""

from __future__ import annotations

from functools import partial

from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame.chunks import Passage
from chrysalis_mlx.corpus.frame.section import Section
from chrysalis_mlx.corpus.frame.text import filled


def passages(document: Document, header: str, sections: list[Section]) -> list[Passage]:
    """One passage for each section. Its prompt is the header and the headings on the way to it.

    The header `# repository/path` and a section two levels down give

        # repository/path
        ## Chapter > Section

    and an empty line. Sections that were joined bring their headings along in their text.
    """
    written = filled(header, document)
    return [
        Passage(document, "completion", section.body, partial(_row, written + _place(section)))
        for section in sections
        if section.body.strip()
    ]


def _place(section: Section) -> str:
    own = section.titles if len(section.titles) == 1 else ()
    way = " > ".join(" ".join(title.split()) for title in (*section.trail, *own))
    return f"## {way}\n\n" if way else ""


def _row(prompt: str, body: str, part: int, parts: int) -> dict[str, str]:
    return {"prompt": prompt, "completion": body.strip("\n").rstrip()}
