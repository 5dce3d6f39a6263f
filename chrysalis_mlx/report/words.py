"""How figures and the texts of strangers are written on a page, and what of such a text a terminal must not obey."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime

from chrysalis_mlx.evaluation.results import Interval

NONE = "–"

# Control characters, marks that turn the direction of the text, separators of lines, halves of characters, and signs
# without width in which a text can hide another; those that join letters stay: scripts and emoji need them.
_OBEYED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
_LONGEST = 4000  # characters of a stranger's text that a page shows


def visible(text: str, keep: str = "\t\n") -> str:
    """A text with what a browser or a terminal would obey or cannot show written as an escape, as in "\\u202e".

    Args:
        keep: characters that stay all the same.
    """

    def escape(match: re.Match[str]) -> str:
        return match[0] if match[0] in keep else match[0].encode("unicode_escape").decode("ascii")

    return _OBEYED.sub(escape, text)


def shortened(text: str, most: int = _LONGEST) -> str:
    """The beginning of a long text, and how much more there is."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return NONE if value is None else f"{value:,.0f}" if math.isfinite(value) else "not finite"


def figure(value: float | None, digits: int = 4) -> str:
    """So many significant digits; no exponent from 0.001 to a million."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        mantissa, power = f"{value:.{min(digits, 3) - 1}e}".split("e")
        return f"{mantissa}e{int(power)}"
    power_of_ten = int(f"{value:.{digits - 1}e}".split("e")[1])  # of the rounded value
    return f"{value:,.{max(digits - 1 - power_of_ten, 0)}f}"


def share(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return NONE if value is None else f"{100 * value:.{digits}f} %" if math.isfinite(value) else "not finite"


def megabytes(value: float | None) -> str:
    """Bytes as megabytes (10^6) of a file."""
    return NONE if value is None else f"{value / 1e6:,.1f} MB"


def gibibytes(value: float | None) -> str:
    """Bytes as gibibytes (2^30) of memory."""
    return NONE if value is None else f"{value / 2**30:,.2f} GiB"


def duration(seconds: float | None) -> str:
    """Hours and minutes, minutes and seconds, or seconds."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def interval(value: Interval | None, digits: int = 4) -> str:
    """Both ends."""
    return "" if value is None else f"{figure(value.low, digits)} to {figure(value.high, digits)}"


def moment(text: str | None) -> str:
    """An ISO time as people write it; what is none stays as it is."""
    try:
        return datetime.fromisoformat(text or "").strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return text or NONE


def plural(number: int, one: str, many: str | None = None) -> str:
    """A number and what is counted."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(parts: Iterable[str]) -> str:
    """A sentence of several parts, with its capital and its full stop."""
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""
