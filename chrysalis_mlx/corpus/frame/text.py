"""Documents as plain text under a header."""

from __future__ import annotations

import re

from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame.chunks import Passage


def passages(document: Document, header: str) -> list[Passage]:
    """The document's text; every row begins with the header.

    Args:
        header: with {repository} and {path} where those belong.
    """
    written = filled(header, document)
    body = document.text
    return [Passage(document, "text", body, lambda part, *_: {"text": written + part})] if body.strip() else []


def filled(header: str, document: Document) -> str:
    """A header with the document's repository and path in it; any other braces stay as they are."""
    fields = {"{repository}": document.repository, "{path}": document.path}
    return re.sub("|".join(map(re.escape, fields)), lambda field: fields[field[0]], header)
