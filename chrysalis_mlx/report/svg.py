"""matplotlib's SVG, made fit to stand in a page.

One drawing serves light and dark: what is drawn in the colours of `Ink` becomes a CSS variable of the page. Text stays
text, in the page's own letters. No identifier is the same as another drawing's.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

from chrysalis_mlx.report.words import visible

WIDTH = 5.2  # inches; at 72 to the inch about as many units as a phone has pixels


class Ink:
    """Colours that stand for variables of the page's style sheet. No other drawing uses them."""

    TEXT = "#0a0b01"
    MUTED = "#0a0b02"
    RULE = "#0a0b03"
    BEFORE = "#0a0b04"
    AFTER = "#0a0b05"
    PAPER = "#0a0b06"
    SERIES = ("#0a0b11", "#0a0b12", "#0a0b13", "#0a0b14", "#0a0b15", "#0a0b16")


_VARIABLES = {
    Ink.TEXT: "--text",
    Ink.MUTED: "--muted",
    Ink.RULE: "--rule",
    Ink.BEFORE: "--before",
    Ink.AFTER: "--after",
    Ink.PAPER: "--paper",
    **{colour: f"--series-{number}" for number, colour in enumerate(Ink.SERIES, 1)},
}
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "chrysalis-mlx",
    "text.parse_math": False,
    "font.size": 11.5,
    "text.color": Ink.TEXT,
    "axes.edgecolor": Ink.RULE,
    "axes.labelcolor": Ink.MUTED,
    "axes.labelsize": 11.5,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": Ink.RULE,
    "grid.linewidth": 0.8,
    "xtick.color": Ink.RULE,
    "xtick.labelcolor": Ink.MUTED,
    "ytick.color": Ink.RULE,
    "ytick.labelcolor": Ink.MUTED,
    "xtick.major.size": 3.5,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "legend.labelcolor": Ink.TEXT,
    "legend.fontsize": 11.5,
    "legend.borderaxespad": 0.0,
    "legend.borderpad": 0.0,
    "legend.handlelength": 1.3,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.2,
}

_PLACEHOLDER = re.compile(r"¤(\d+)¤")
_TAG = re.compile(r"<[^>]*>")
_FRACTION = re.compile(r"-?\d+\.\d+(?![\de])")
_ID = re.compile(r'\bid="([^"]*)"')
_USED = re.compile(r"(?:url\(#|href=\"#)([^\")]+)")
_FONT = re.compile(r"font-family: [^;\"]*;? ?")


@dataclass(frozen=True)
class Plot:
    """A drawing for a page.

    Attributes:
        svg: an element that is as wide as its box.
        title: what it shows, with units.
        alternative: what is to be seen, in a sentence, with figures.
    """

    svg: str
    title: str
    alternative: str


def settings() -> Any:
    """The context to draw in, whatever the user's own matplotlibrc says."""
    return style.context(_SETTINGS, after_reset=True)


def placeholder(number: int) -> str:
    """Stands in a drawing for a stranger's text: `plot_of` puts it there, and no font has to know its letters."""
    return f"¤{number}¤"


def plot_of(drawing: Figure, key: str, title: str, alternative: str, names: Sequence[str] = ()) -> Plot:
    """The drawing as an element of a page.

    Args:
        key: unlike that of any other plot of the page; letters and hyphens.
        names: what stands for `placeholder(0)` and so on.
    """
    stream = io.StringIO()
    drawing.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None
    body = text[text.index("</metadata>") + len("</metadata>") : text.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = _coloured(_identified(_small(body), key))
    # In one go: a name may look like a placeholder.
    body = _PLACEHOLDER.sub(lambda found: _escaped(names[int(found[1])]), body)
    label = f'role="img" aria-labelledby="{key}-title {key}-text"'
    told = f'<title id="{key}-title">{_escaped(title)}</title><desc id="{key}-text">{_escaped(alternative)}</desc>'
    return Plot(f'<svg class="plot" viewBox="{box[1]}" {label}>{told}{body}</svg>', title, alternative)


def _escaped(text: str) -> str:
    return html.escape(visible(text))


def _small(body: str) -> str:
    """Without the digits that nobody sees, fonts, and what a page takes for granted."""

    def shorter(tag: re.Match[str]) -> str:
        text = _FRACTION.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), tag[0])
        text = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", _FONT.sub("", text))
        return re.sub(r"\s+", " ", text).replace("xlink:href", "href")

    return re.sub(r">\s+<", "><", _TAG.sub(shorter, body)).strip()


def _identified(body: str, key: str) -> str:
    """Identifiers with `key` before them, and none that nobody refers to."""
    used = set(_USED.findall(body))
    body = _ID.sub(lambda found: f'id="{key}-{found[1]}"' if found[1] in used else "", body)
    return re.sub(r"(url\(#|href=\"#)", rf"\1{key}-", body).replace("<g >", "<g>")


def _coloured(body: str) -> str:
    return re.sub("|".join(_VARIABLES), lambda found: f"var({_VARIABLES[found[0]]})", body)
