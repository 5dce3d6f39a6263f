"""The drawings of a report. Each says in words what is to be seen, for those who do not see it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from chrysalis_mlx.evaluation.results import Score
from chrysalis_mlx.report.curves import Curve, Training
from chrysalis_mlx.report.material import Part
from chrysalis_mlx.report.measured import Measured
from chrysalis_mlx.report.svg import WIDTH, Ink, Plot, placeholder, plot_of, settings
from chrysalis_mlx.report.words import count, figure, gibibytes, interval, plural

_HEIGHT = 2.7  # inches
_BARS = 12  # repositories that have a bar of their own
_TOLD = 5  # of them, in the alternative
_NAME = 38  # letters of a repository's name that fit beside its figure
_PER_ROW = 0.38  # inches
_DRAWN = 1e12  # what lies beyond is drawn there
_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))


@dataclass(frozen=True)
class Line:
    """A curve in a drawing.

    Attributes:
        name: in the legend; empty: not there.
        marked: with a dot at every point.
    """

    name: str
    curve: Curve
    colour: str
    width: float = 1.6
    opacity: float = 1.0
    style: object = "-"
    marked: bool = False


def loss_plot(training: Training) -> Plot | None:
    """Training and validation loss, the step that was taken, rollbacks."""
    train, mean, valid = (training.curve(name) for name in ("train", "train_mean", "valid"))
    lines = [Line("train", train, Ink.MUTED, 1.2, 0.45 if training.mean_of > 1 else 1.0)]
    if training.mean_of > 1:
        lines.append(Line(f"mean of {training.mean_of}", mean, Ink.TEXT))
    lines.append(Line("validation", valid, Ink.AFTER, 1.8, marked=True))
    best = training.report.get("best_step")
    told = [_course("training loss", train, figure), _course("validation loss", valid, figure)]
    told += [f"the adapter is of step {best:,}"] if best is not None else []
    told += [plural(len(training.rollbacks), "rollback")] if training.rollbacks else []
    told += [f"{plural(len(training.not_finite), 'loss', 'losses')} not finite"] if training.not_finite else []

    def marks(axes: Axes) -> None:
        for number, rollback in enumerate(training.rollbacks):
            label = "rollback" if number == 0 else None
            axes.axvline(rollback.undone, color=Ink.BEFORE, linewidth=1.1, linestyle=(0, (3, 2)), label=label)
        if best in valid.steps:
            value = min(valid.values[valid.steps.index(best)], _DRAWN)
            axes.plot(
                [best], [value], "o", markersize=10, markerfacecolor="none", markeredgecolor=Ink.AFTER, label="taken"
            )

    return _lines("loss", "Loss (nats per token)", lines, told, marks=marks)


def rate_plot(training: Training) -> Plot | None:
    """The learning rate."""
    curve = training.curve("learning_rate")
    told = [_course("learning rate", curve, rate)]
    return _lines("rate", "Learning rate", [Line("", curve, Ink.AFTER)], told, figure_of=rate, zero=True)


def speed_plot(training: Training) -> Plot | None:
    """Tokens per second."""
    curve = training.curve("tokens_per_second")
    told = [_course("speed", curve, count)]
    told += [f"{count(training.speed)} tokens per second over all steps"] if training.speed else []
    lines = [Line("", curve, Ink.AFTER, 1.2)]
    return _lines("speed", "Speed (tokens per second)", lines, told, figure_of=count, zero=True)


def memory_plot(training: Training) -> Plot | None:
    """Peak memory, as the backend counts it."""
    bytes_ = training.curve("peak_memory")
    curve = Curve(bytes_.steps, tuple(value / 2**30 for value in bytes_.values))
    told = [_course("peak memory", bytes_, gibibytes)]
    return _lines("memory", "Peak memory (GiB)", [Line("", curve, Ink.AFTER)], told, zero=True)


def compared_curves(
    key: str,
    title: str,
    curves: Sequence[tuple[str, Curve]],
    *,
    marked: bool = False,
    figure_of: Callable[[float], str] | None = None,
) -> Plot | None:
    """The same figure of several runs; the arguments are those of `_lines`."""
    lines = [
        Line(name, curve, Ink.SERIES[number], 1.8, style=_STYLES[number], marked=marked)
        for number, (name, curve) in enumerate(curves)
    ]
    told = [_course(name, curve, figure_of or figure) for name, curve in curves]
    return _lines(key, title, lines, told, figure_of=figure_of or _short)


def tokens_plot(parts: Sequence[Part], what: str) -> Plot | None:
    """Tokens of each repository or file; all but the largest together."""
    shown = [part for part in parts if part.tokens][:_BARS]
    rest = [part for part in parts if part.tokens][_BARS:]
    if not shown:
        return None
    rows = [(_fitting(part.name), part.tokens) for part in shown]
    if rest:
        rows.append((f"the {len(rest):,} others together", sum(part.tokens for part in rest)))
    told = [f"{name} {tokens:,}" for name, tokens in rows[:_TOLD]]
    told += [f"and {len(rows) - _TOLD:,} more rows"] if len(rows) > _TOLD else []
    most = shown[0].tokens
    with settings():
        drawing = Figure(figsize=(WIDTH, _PER_ROW * len(rows)))
        axes = drawing.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, most), ylim=(len(rows), 0))
        axes.set_axis_off()
        for place, (_, tokens) in enumerate(rows):
            axes.text(0, place + 0.5, placeholder(place))
            axes.text(most, place + 0.5, f"{tokens:,}", ha="right", color=Ink.MUTED)
            if place < len(shown):  # the others together would dwarf every single one
                axes.barh(place + 0.8, tokens, height=0.19, color=Ink.AFTER)
        return plot_of(drawing, "tokens", f"Tokens by {what}", f"{', '.join(told)}.", [name for name, _ in rows])


def perplexity_plot(rows: Sequence[Measured], key: str = "perplexity") -> Plot | None:
    """Perplexity before and after, with intervals."""
    if not rows:
        return None
    told = [f"{row.name}: before {_with_interval(row.before)}, after {_with_interval(row.after)}" for row in rows]
    with settings():
        height = 0.62 + 0.66 * len(rows)
        drawing = Figure(figsize=(WIDTH, height))
        axes = drawing.add_axes((0.02, 0.36 / height, 0.96, 1 - 0.64 / height))
        axes.set_ylim(len(rows), 0)
        axes.set_yticks([])
        axes.grid(axis="x")
        for place, row in enumerate(rows):
            axes.text(0, place + 0.3, placeholder(place), transform=axes.get_yaxis_transform())
            for score, down, colour, full in (
                (row.before, 0.54, Ink.BEFORE, False),
                (row.after, 0.78, Ink.AFTER, True),
            ):
                label = ("after" if full else "before") if place == 0 else None
                if score.interval:
                    ends = [min(score.interval.low, _DRAWN), min(score.interval.high, _DRAWN)]
                    axes.plot(ends, [place + down] * 2, color=colour, linewidth=2.2, solid_capstyle="round")
                axes.plot(
                    [min(score.perplexity, _DRAWN)], [place + down], "o", markersize=7, markeredgewidth=1.8,
                    markerfacecolor=colour if full else Ink.PAPER, markeredgecolor=colour, label=label,
                )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(5))
        _legend(axes, 2)
        title = "Perplexity before and after, with 95 % intervals (lower is better)"
        return plot_of(drawing, key, title, f"{'; '.join(told)}.", [row.name for row in rows])


def _short(value: float) -> str:
    return f"{value:g}"


def _lines(
    key: str,
    title: str,
    lines: Iterable[Line],
    told: Iterable[str],
    *,
    figure_of: Callable[[float], str] = _short,
    zero: bool = False,
    marks: Callable[[Axes], None] | None = None,
) -> Plot | None:
    """Curves over the optimizer steps; None where no curve has a point.

    Args:
        told: parts of the alternative.
        figure_of: how the values are written at the axis.
        zero: begin the axis at zero.
        marks: draws what else there is.
    """
    lines = [line for line in lines if line.curve]
    if not lines:
        return None
    with settings():
        drawing = Figure(figsize=(WIDTH, _HEIGHT))
        axes = drawing.add_axes((0.125, 0.155, 0.825, 0.73))
        for line in lines:
            few = line.marked and len(line.curve.steps) <= 40
            axes.plot(
                line.curve.steps, [max(min(value, _DRAWN), -_DRAWN) for value in line.curve.values],
                color=line.colour, linewidth=line.width, alpha=line.opacity, linestyle=line.style,
                label=line.name or None, marker="o" if few or len(line.curve.steps) == 1 else None, markersize=4.5,
            )  # fmt: skip
        if marks:
            marks(axes)
        axes.margins(x=0.015, y=0.08)
        if zero:
            axes.set_ylim(bottom=0)
        _scale(axes, figure_of)
        if any(line.name for line in lines):
            _legend(axes, 6)
        return plot_of(drawing, key, title, f"{'; '.join(part for part in told if part)}.")


def _scale(axes: Axes, figure_of: Callable[[float], str]) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: figure_of(value)))
    axes.set_xlabel("optimizer step", loc="right", labelpad=1)


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1.03), ncols=columns)


def _course(what: str, curve: Curve, write: Callable[[float], str]) -> str:
    """Where a curve begins and ends, its lowest and its highest."""
    if not curve:
        return ""
    first, last = (f"{write(curve.values[place])} at step {curve.steps[place]:,}" for place in (0, -1))
    low, high = write(min(curve.values)), write(max(curve.values))
    return f"{what}: {first}" + (f", {last}, between {low} and {high}" if len(curve.steps) > 1 else "")


def rate(value: float) -> str:
    """A learning rate with its power of ten: 7.5e-4."""
    mantissa, power = f"{value:.1e}".split("e")
    return f"{float(mantissa):g}e{int(power)}" if value else "0"


def _with_interval(score: Score) -> str:
    return figure(score.perplexity) + (f" ({interval(score.interval)})" if score.interval else "")


def _fitting(name: str) -> str:
    """A name cut to the room beside its figure, as wide as its letters are about."""
    width = 0.0
    for place, letter in enumerate(name):
        width += 2 if unicodedata.east_asian_width(letter) in "WF" else 1.5 if letter.isupper() or letter in "mw" else 1
        if width > _NAME:
            return f"{name[: max(place - 1, 1)]}…"
    return name
