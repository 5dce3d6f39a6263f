"""Find secrets in a text, so that a file with one stays out of the genome.

detect-secrets judges: its detectors, its filters against false alarms and its `pragma: allowlist secret`. It reads some
400 kB in a second, so most text never gets there: one RE2 expression, made from the detectors' own patterns, goes over
the whole text first. That expression matches wherever one of the patterns does and in a few places more, so that
nothing is lost: what Python's syntax tree holds and RE2 cannot say is left out or widened (`_widened`).

Lines are judged one by one and by their text alone. The exemptions of detect-secrets for whole files (lock files, CSS,
anything with "swagger" in its path) do not count here: a secret is one wherever it is learned from. Nothing is
verified, so nothing reaches the network.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import re2
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.filters import allowlist, heuristic
from detect_secrets.plugins import keyword
from detect_secrets.plugins.base import BasePlugin, RegexBasedDetector
from detect_secrets.util.code_snippet import get_code_snippet

from chrysalis_mlx.errors import GenomeError

# All that detect-secrets 1.5 has, except the two for high entropy and the one for public addresses: prose on software
# is full of digests and version numbers. These raise no false alarm in 16 MB of such prose.
DEFAULT_DETECTORS = (
    "ArtifactoryDetector",
    "AWSKeyDetector",
    "AzureStorageKeyDetector",
    "BasicAuthDetector",
    "CloudantDetector",
    "DiscordBotTokenDetector",
    "GitHubTokenDetector",
    "GitLabTokenDetector",
    "IbmCloudIamDetector",
    "IbmCosHmacDetector",
    "JwtTokenDetector",
    "KeywordDetector",
    "MailchimpDetector",
    "NpmDetector",
    "OpenAIDetector",
    "PrivateKeyDetector",
    "PypiTokenDetector",
    "SendGridDetector",
    "SlackDetector",
    "SoftlayerDetector",
    "SquareOAuthDetector",
    "StripeDetector",
    "TelegramBotTokenDetector",
    "TwilioKeyDetector",
)

# Some patterns of detect-secrets take time with the cube of a line's length, and a minified file is a single line.
LONG_LINE = 4096
OVERLAP = 1024  # more than the longest token has characters

# The states of the expression take more than RE2's 8 MB on prose; when they do not fit it is twenty times slower.
_AUTOMATON_BYTES = 64 << 20
_SECRET_FILTERS = (
    heuristic.is_sequential_string,
    heuristic.is_potential_uuid,
    heuristic.is_templated_secret,
    heuristic.is_prefixed_with_dollar_sign,
    heuristic.is_not_alphanumeric_string,
)


class Finding(NamedTuple):
    """A secret: what kind it is, as detect-secrets calls it, and its line, from 1. Never the secret itself."""

    type: str
    line: int


class SecretScanner:
    """Finds the first secret of a text.

    Args:
        detectors: class names of detect-secrets' plugins.

    Raises:
        GenomeError: a detector that detect-secrets does not have.
    """

    def __init__(self, detectors: Sequence[str] = DEFAULT_DETECTORS) -> None:
        plugins: Iterable[Any] = get_mapping_from_secret_type_to_class().values()
        known = {plugin.__name__: plugin for plugin in plugins}
        for name in detectors:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                fix = f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(sorted(known))}"
                raise GenomeError(f"there is no detector of secrets called {name!r}", fix=fix)
        self._detectors = [known[name]() for name in detectors]
        self._candidate = _candidate(self._detectors)

    def scan(self, path: str, text: str) -> Finding | None:
        """The first secret of a text; `path` tells which language it is in."""
        if "\r" in text:  # CRLF and CR end a line, too
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines: list[str] = []
        for number in self._candidates(text):
            lines = lines or text.split("\n")
            if kind := self._judge(path, lines, number):
                return Finding(kind, number)
        return None

    def _candidates(self, text: str) -> Iterator[int]:
        """The numbers of the lines that detect-secrets is to see."""
        if self._candidate is None:
            yield from range(1, text.count("\n") + 2)
            return
        content, number, position = text.encode("utf-8", "replace"), 1, 0
        for match in self._candidate.finditer(content):
            start, end = match.span()
            number += content.count(b"\n", position, start)
            position = start
            yield from range(number, number + content.count(b"\n", start, end) + 1)

    def _may_hold_secret(self, text: str) -> bool:
        return self._candidate is None or self._candidate.search(text.encode("utf-8", "replace")) is not None

    def _judge(self, path: str, lines: list[str], number: int) -> str | None:
        """What kind of secret a line holds."""
        line, context = lines[number - 1].rstrip(), get_code_snippet(lines, number)
        for part in _parts(line):
            if part is not line and not self._may_hold_secret(part):
                continue
            for detector in self._detectors:
                for found in detector.analyze_line(filename=path, line=part, line_number=number, context=context):
                    if not _false_alarm(found.secret_value or "", part, detector):
                        # Of the line, and asked last: it takes milliseconds for a paragraph.
                        excused = allowlist.is_line_allowlisted(path, line, context)
                        return None if excused or heuristic.is_indirect_reference(line) else found.type
        return None


def _parts(line: str) -> Iterator[str]:
    if len(line) <= LONG_LINE:
        yield line
    else:
        for start in range(0, len(line) - OVERLAP, LONG_LINE - OVERLAP):
            yield line[start : start + LONG_LINE]


def _false_alarm(secret: str, line: str, detector: BasePlugin) -> bool:
    return any(is_one(secret) for is_one in _SECRET_FILTERS) or heuristic.is_likely_id_string(secret, line, detector)


def _candidate(detectors: Iterable[BasePlugin]) -> Any:
    """An RE2 expression that is in every line in which a detector finds something; None if it cannot be had."""
    try:
        patterns = [_widened(pattern) for detector in detectors for pattern in _patterns(detector)]
    except NotImplementedError:
        return None
    options = re2.Options()
    options.max_mem = _AUTOMATON_BYTES
    options.never_capture = True
    return re2.compile("|".join(dict.fromkeys(patterns)), options)


def _patterns(detector: BasePlugin) -> Iterable[re.Pattern[str]]:
    if isinstance(detector, RegexBasedDetector):
        return detector.denylist
    if isinstance(detector, keyword.KeywordDetector):
        tables = (*keyword.REGEX_BY_FILETYPE.values(), keyword.QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP)
        return [pattern for table in tables for pattern in table]
    raise NotImplementedError(f"what {type(detector).__name__} finds is no matter of patterns alone")


# The tree of an expression has no public door; these have been its modules since Python 3.11.
_parser, _op = importlib.import_module("re._parser"), importlib.import_module("re._constants")

_REPEATS = 16  # a longer count costs states and narrows no more
_NOT_ASCII = r"\x{80}-\x{10ffff}"
_ANY = r"[^\n\r]"
# In a pattern that ignores case these match an ASCII letter, too.
_FOLDED = {"i": "ıİ", "k": "\N{KELVIN SIGN}", "s": "ſ"}
# The ASCII part of Python's classes, which RE2's own are not.
_CATEGORIES = {
    _op.CATEGORY_DIGIT: r"0-9",
    _op.CATEGORY_WORD: r"0-9A-Z_a-z",
    _op.CATEGORY_SPACE: r"\x{9}\x{b}\x{c}\x{1c}-\x{20}",
}


def _widened(pattern: re.Pattern[str]) -> str:
    """An RE2 expression for every line that holds a match of `pattern`, and more.

    Assertions are left out, a back reference is any text, counts above `_REPEATS` are "at least", classes take every
    letter beyond ASCII.

    Raises:
        NotImplementedError: something of Python's syntax that this does not know.
    """
    return _sequence(_parser.parse(pattern.pattern, pattern.flags), pattern.flags)


def _sequence(items: Iterable[tuple[Any, Any]], flags: int) -> str:
    return "".join(_item(op, value, flags) for op, value in items)


def _item(op: Any, value: Any, flags: int) -> str:
    if op in (_op.ASSERT, _op.ASSERT_NOT, _op.AT):
        return ""
    if op is _op.LITERAL:
        return f"[{_range(value, value, flags)}]"
    if op is _op.NOT_LITERAL:
        return _class([(_op.NEGATE, None), (_op.LITERAL, value)], flags)
    if op is _op.IN:
        return _class(value, flags)
    if op is _op.ANY:
        return _ANY
    if op is _op.GROUPREF:
        return f"{_ANY}*"
    if op is _op.SUBPATTERN:
        _, added, removed, items = value
        return f"(?:{_sequence(items, (flags | added) & ~removed)})"
    if op is _op.BRANCH:
        return f"(?:{'|'.join(_sequence(branch, flags) for branch in value[1])})"
    if op in (_op.MAX_REPEAT, _op.MIN_REPEAT):
        least, most, items = value
        upper = most if most <= _REPEATS else ""
        return f"(?:{_sequence(items, flags)}){{{min(least, _REPEATS)},{upper}}}"
    raise NotImplementedError(f"no RE2 expression for {op}")


def _class(items: Sequence[tuple[Any, Any]], flags: int) -> str:
    negated = items[0][0] is _op.NEGATE
    members = ""
    for op, value in items[negated:]:
        if op is _op.CATEGORY and value in _CATEGORIES:
            members += _CATEGORIES[value] + ("" if negated else _NOT_ASCII)
        elif op is _op.CATEGORY:  # all but digits, say: nothing is surely in it, anything may be
            members += "" if negated else rf"\x{{0}}-\x{{7f}}{_NOT_ASCII}"
        elif op in (_op.LITERAL, _op.RANGE):
            low, high = value if op is _op.RANGE else (value, value)
            # What is shut out stays as narrow as it is written, what is let in becomes wider.
            members += _range(low, high, 0 if negated else flags)
        else:
            raise NotImplementedError(f"no RE2 class for {value}")
    return f"[^{members}\\n\\r]" if negated else f"[{members}]"


def _range(low: int, high: int, flags: int) -> str:
    if not flags & re.IGNORECASE:
        return rf"\x{{{low:x}}}-\x{{{high:x}}}"
    if high > 0x7F:
        return rf"\x{{{low:x}}}-\x{{{high:x}}}A-Za-z{_NOT_ASCII}"
    letters = {chr(code).lower() for code in range(low, high + 1)}
    forms = sorted({form for letter in letters for form in (letter, letter.upper(), *_FOLDED.get(letter, ""))})
    return "".join(rf"\x{{{ord(form):x}}}" for form in forms)
