"""What is worth a question: text that says something in words."""

from __future__ import annotations

import re

_WORDY = 0.5  # share of the characters that the letters of words make up, in code about 0.6, in prose above 0.9
_LONGEST = 32  # letters; what is longer in Latin script is a key or a digest

_RUN = re.compile(r"[^\W_]+")
_TAG = re.compile(r"<[^<>]*>")
_URL = re.compile(r"https?://[^\s<>)\]]+")


def is_worded(text: str) -> bool:
    """Whether a text, its tags aside, is made of words: addresses, times, digests, rules and figures are not."""
    shown = _TAG.sub("", _URL.sub("0", text))
    letters = sum(len(run) for run in _RUN.findall(shown) if _is_word(run))
    return letters > 0 and letters >= _WORDY * len("".join(shown.split()))


def has_word(line: str) -> bool:
    """Whether a line says anything outside of its tags."""
    return re.search(r"\w", _TAG.sub("", line)) is not None


def _is_word(run: str) -> bool:
    return run.isalpha() and (len(run) <= _LONGEST or not run.isascii())
