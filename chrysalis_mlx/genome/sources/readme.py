"""Which repositories a README lists: the sources of a hub that names its parts in a table."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path

from chrysalis_mlx.errors import GenomeError

PREFIX = "readme:"
_SECONDS = 60
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s()<>\"'|\]]+", re.IGNORECASE)
_ROW = re.compile(r"^\s{0,3}\|", re.MULTILINE)


def listed_repositories(location: str, base: Path) -> list[str]:
    """The URLs of an owner's repositories that a Markdown table links, each once, in the order of the document.

    Args:
        location: `readme:URL-or-FILE#OWNER`.
        base: the folder that a relative FILE counts from.

    Raises:
        GenomeError: no owner, a document that cannot be read, or none of the owner's repositories in it.
    """
    document, _, owner = location.removeprefix(PREFIX).rpartition("#")
    if not document or not owner:
        raise GenomeError("the source does not say whose repositories", where=location, fix="readme:URL-or-FILE#OWNER")
    found = repositories_in(_read(document, base), owner)
    if not found:
        raise GenomeError(
            f"no row of a Markdown table links a repository of {owner!r}",
            where=document,
            fix="name the Markdown file itself, not a page that shows it (on GitHub: the link behind 'Raw')",
        )
    return found


def repositories_in(text: str, owner: str) -> list[str]:
    """The repositories of `owner` linked in the rows of Markdown tables: SCHEME://HOST/OWNER/NAME, each once."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not _ROW.match(line):
            continue
        for url in _URL.findall(line):
            scheme, _, rest = url.partition("://")
            parts = re.split(r"[?#]", rest)[0].split("/")
            if len(parts) < 3 or parts[1].casefold() != owner.casefold() or not parts[2]:
                continue
            name = parts[2].removesuffix(".git")
            found.setdefault(f"{parts[0]}/{name}".casefold(), f"{scheme}://{parts[0]}/{parts[1]}/{name}")
    return list(found.values())


def _read(document: str, base: Path) -> str:
    try:
        if document.startswith(("https://", "http://")):
            with urllib.request.urlopen(document, timeout=_SECONDS) as answer:
                content: bytes = answer.read()
        else:
            content = (base / Path(document).expanduser()).read_bytes()
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:  # urllib's errors are OSErrors
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise GenomeError(f"the list of repositories cannot be read: {reason}", where=document) from error
