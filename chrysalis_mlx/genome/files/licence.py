"""Which licence a repository's own files state, as an SPDX identifier.

A file says so with `SPDX-License-Identifier:`, with a licence's text, or with its name or address. The table holds
phrases that stand in one licence and not in another; white space, punctuation and case do not count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

UNRECOGNISED = "unrecognised"

_FILE = re.compile(r"(?:licen[cs]e|copying|unlicense)(?:[._-][^/]*)?", re.IGNORECASE)
_IDENTIFIER = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+() -]*[A-Za-z0-9.+)])")
# Further down stand the licences of what a project bundles, or those that its own licence speaks of.
_HEAD = 2000
_NOT_A_WORD = re.compile(r"[^0-9a-z]+")

_BSD = "redistribution and use in source and binary forms with or without modification are permitted provided"
_ENDORSE = "endorse or promote products derived"
_PERMIT = "distribute this software for any purpose with or without fee is hereby granted"

# From the special to the general: a licence that quotes or extends another comes before it. All phrases of one line
# must stand in the text.
_PHRASES = (
    ("AGPL-3.0", "gnu affero general public license version 3"),
    ("LGPL-3.0", "gnu lesser general public license version 3"),
    ("LGPL-2.1", "gnu lesser general public license version 2 1"),
    ("LGPL-2.0", "gnu library general public license version 2"),
    ("GPL-3.0", "gnu general public license version 3"),
    ("GPL-2.0", "gnu general public license version 2"),
    ("MPL-2.0", "mozilla public license version 2 0"),
    ("EUPL-1.2", "european union public licence v 1 2"),
    ("BSL-1.0", "boost software license version 1 0"),
    ("Apache-2.0", "apache license version 2 0"),
    ("CC-BY-NC-SA-4.0", "attribution noncommercial sharealike 4 0 international"),
    ("CC-BY-NC-SA-4.0", "cc by nc sa 4 0"),
    ("CC-BY-NC-SA-4.0", "creativecommons org licenses by nc sa 4 0"),
    ("CC-BY-NC-4.0", "attribution noncommercial 4 0 international"),
    ("CC-BY-NC-4.0", "cc by nc 4 0"),
    ("CC-BY-NC-4.0", "creativecommons org licenses by nc 4 0"),
    ("CC-BY-SA-4.0", "attribution sharealike 4 0 international"),
    ("CC-BY-SA-4.0", "cc by sa 4 0"),
    ("CC-BY-SA-4.0", "creativecommons org licenses by sa 4 0"),
    ("CC-BY-4.0", "attribution 4 0 international"),
    ("CC-BY-4.0", "cc by 4 0"),
    ("CC-BY-4.0", "creativecommons org licenses by 4 0"),
    ("CC0-1.0", "cc0 1 0"),
    ("CC0-1.0", "creativecommons org publicdomain zero 1 0"),
    ("Unlicense", "this is free and unencumbered software released into the public domain"),
    ("WTFPL", "do what the fuck you want to public license"),
    (
        "Zlib",
        "the origin of this software must not be misrepresented",
        "altered source versions must be plainly marked",
    ),
    ("BSD-3-Clause", _BSD, _ENDORSE),
    ("BSD-2-Clause", _BSD),
    ("ISC", _PERMIT, "provided that the above copyright notice"),
    ("0BSD", _PERMIT),
    ("MIT", "permission is hereby granted free of charge", "the above copyright notice and this permission notice"),
    ("MIT", "licensed under the mit license"),
)
# A text that says more than these about rights is one of their relatives, not they: BSD with four clauses, say.
_UNLIKE = {
    "BSD-3-Clause": ("all advertising materials", "clear bsd"),
    "BSD-2-Clause": ("all advertising materials",),
    "MIT": ("good not evil", "except as contained in this notice the name"),
}
# These quote a licence and restrict it.
_OTHER = ("business source license", "server side public license", "commons clause")


def is_licence_file(path: str) -> bool:
    """Whether a path, relative to its repository, is LICENSE*, LICENCE*, COPYING* or UNLICENSE at the top."""
    return _FILE.fullmatch(path) is not None


def licence_of(files: Mapping[str, str]) -> str | None:
    """The licence that the files of a repository state.

    Args:
        files: texts by path; those that are no licence files do not count.

    Returns:
        an SPDX identifier; several, each from a file of its own, sorted and joined with OR; `UNRECOGNISED` when there
        are licence files and none says anything known; None when there is no licence file.
    """
    texts = [text for path, text in files.items() if is_licence_file(path)]
    if not texts:
        return None
    found = {licence for text in texts if (licence := _licence(text))}
    # COPYING.LESSER beside COPYING is one licence: the LGPL in version 3 is written as an addition to the GPL.
    if "LGPL-3.0" in found:
        found.discard("GPL-3.0")
    return " OR ".join(sorted(found)) or UNRECOGNISED


def _licence(text: str) -> str | None:
    if stated := _IDENTIFIER.search(text):
        return stated[1]
    words = _NOT_A_WORD.sub(" ", text.lower()).strip()
    if any(words.find(name, 0, _HEAD) >= 0 for name in _OTHER):
        return None
    found = []
    for order, (name, *phrases) in enumerate(_PHRASES):
        place = words.find(phrases[0], 0, _HEAD)
        like = all(phrase in words for phrase in phrases)
        if place >= 0 and like and not any(phrase in words for phrase in _UNLIKE.get(name, ())):
            found.append((place, order, name))
    # What stands first is the licence; what it quotes stands further down.
    return min(found)[2] if found else None
