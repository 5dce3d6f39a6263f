"""Documents as plain text under a header."""

from __future__ import annotations

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
    """A header with the document's repository and path in it."""
    return header.format(repository=document.repository, path=document.path)
