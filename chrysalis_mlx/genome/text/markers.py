r"""The markers of the genome format, and how a content that holds them is written.

A line is looked at together with the LF in front of it, and a text as if one stood in front of its first line: a
pattern that begins with literal bytes is found ten times as fast as one that begins with `^`.
"""

from __future__ import annotations

import re

REPO_START, REPO_END = b"<|repo_start|>", b"<|repo_end|>"
FILE_START, FILE_END = b"<|file_start|>", b"<|file_end|>"

MARKED_LINE = re.compile(rb"\n(<\|(?:repo|file)_(?:start|end)\|>)")
LONGEST = len(b"\n" + FILE_START)

_NEEDS_ESCAPE = re.compile(rb"\n<(?=\\*\|(?:repo|file)_(?:start|end)\|>)")
_ESCAPED = re.compile(r"\n<\\(?=\\*\|(?:repo|file)_(?:start|end)\|>)")


def escape(lines: bytes) -> bytes:
    """Lines, an LF in front of each, none of which is taken for a marker."""
    return _NEEDS_ESCAPE.sub(rb"\n<\\", lines)


def unescape(lines: str) -> str:
    """What `escape` made these lines of."""
    return _ESCAPED.sub("\n<", lines)


def marker_of(line: bytes | bytearray) -> bytes:
    """The marker that a line, an LF in front of it, starts with; empty when there is none."""
    found = MARKED_LINE.match(line)
    return bytes(found[1]) if found else b""
