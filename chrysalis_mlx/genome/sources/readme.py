"""Which repositories a README lists: the sources of a hub that names its parts in a table."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.remote import shown

PREFIX = "readme:"
_SECONDS = 60
_LARGEST = 16 << 20  # bytes
_WEB = ("https://", "http://")
# A scheme is short: without a limit, a row of a million letters would be searched from each of them.
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,19}://[^\s()<>\"'|\]]+", re.IGNORECASE)
_ROW = re.compile(r"\s{0,3}\|")
# The second line of a table, which may do without its outer pipes. Source: GitHub Flavored Markdown, "Tables".
_DELIMITERS = re.compile(r"(?=[^|]*\|) {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
# What ends a table as an empty line does: a list, a quotation, a heading, a block of code.
_BLOCK = re.compile(r" {0,3}(?:[-+*]\s|\d{1,9}[.)]\s|>|#{1,6}\s|```|~~~)")


def listed_repositories(location: str, base: Path) -> list[str]:
    """The URLs of an owner's repositories that a Markdown table links, each once, in the order of the document.

    A document from the web lists repositories on the web alone: it is a stranger's, and could name a folder here.

    Args:
        location: `readme:URL-or-FILE#OWNER`.
        base: the folder that a relative FILE counts from.

    Raises:
        GenomeError: no owner, a document that cannot be read, or none of the owner's repositories in it.
    """
    document, _, owner = location.removeprefix(PREFIX).rpartition("#")
    if not document or not owner:
        raise GenomeError(
            "the source does not say whose repositories", where=shown(location), fix="readme:URL-or-FILE#OWNER"
        )
    found = repositories_in(_read(document, base), owner, web_only=_is_web(document))
    if not found:
        raise GenomeError(
            f"no row of a Markdown table links a repository of {owner!r}",
            where=shown(document),
            fix="name the Markdown file itself, not a page that shows it (on GitHub: the link behind 'Raw')",
        )
    return found


def repositories_in(text: str, owner: str, *, web_only: bool = False) -> list[str]:
    """The repositories of `owner` linked in the rows of Markdown tables: SCHEME://HOST/OWNER/NAME, each once.

    Args:
        web_only: links that are not https or http do not count.
    """
    found: dict[str, str] = {}
    for line in _rows(text):
        for url in _URL.findall(line):
            if web_only and not _is_web(url):
                continue
            scheme, _, rest = url.partition("://")
            parts = re.split(r"[?#]", rest)[0].split("/")
            if len(parts) < 3 or parts[1].casefold() != owner.casefold() or not parts[2]:
                continue
            name = parts[2].removesuffix(".git")
            found.setdefault(f"{parts[0]}/{name}".casefold(), f"{scheme}://{parts[0]}/{parts[1]}/{name}")
    return list(found.values())


def _rows(text: str) -> Iterator[str]:
    """Lines that begin with a pipe, and those from the second line of a table to its end."""
    in_table = False
    for line in text.splitlines():
        goes_on = in_table and bool(line.strip()) and not _BLOCK.match(line)
        in_table = goes_on or _DELIMITERS.fullmatch(line) is not None
        if in_table or _ROW.match(line):
            yield line


def _is_web(url: str) -> bool:
    return url.lower().startswith(_WEB)


def _read(document: str, base: Path) -> str:
    try:
        with _opened(document, base) as stream:
            content = stream.read(_LARGEST + 1)
            if len(content) > _LARGEST:
                raise ValueError(f"it is larger than {_LARGEST >> 20} MiB")
            if missing := getattr(stream, "length", None):  # an answer that was cut, which read(n) does not tell
                raise http.client.IncompleteRead(content, missing)
        return content.decode("utf-8")
    except (OSError, ValueError, http.client.HTTPException) as error:  # urllib's errors are OSErrors
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise GenomeError(
            f"the list of repositories cannot be read: {shown(str(reason))}",
            where=shown(document),
            fix="name a Markdown file that can be read: readme:URL-or-FILE#OWNER",
        ) from error


def _opened(document: str, base: Path) -> IO[bytes]:
    if not _is_web(document):
        return open(base / os.path.expanduser(document), "rb")
    try:
        answer: IO[bytes] = urllib.request.urlopen(document, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()  # it is an answer as well, with a connection
        raise
    return answer
