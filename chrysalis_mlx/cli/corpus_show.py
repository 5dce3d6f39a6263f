"""chrysalis-mlx corpus show: rows token by token, how long rows are, and what the expression left out and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from chrysalis_mlx.batches.rows import Row
from chrysalis_mlx.cli.corpus_view import Token, View, framing_of, histogram, matches, origin_of, quantiles
from chrysalis_mlx.cli.output import out, printable, say, table
from chrysalis_mlx.corpus.data.report import told

_BAR = 32  # columns of the longest bar
_VISIBLE = str.maketrans({" ": "·", "\t": "→", "\n": "↵"})
_SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_LEGEND = "│ between tokens  ⟦ ⟧ around what is learned  · space  → tab  ↵ line end  é₁│é₂ one character in two"


def show(view: View, expression: Mapping[str, Any], *, files: bool = False, path: str | None = None) -> None:
    """Print statistics, what was left out by which rule, and the rows that were drawn, token by token.

    Args:
        expression: the content of expression.json.
        files: print what became of every file, too.
        path: of `files`, those that match this glob.
    """
    _show_account(expression)
    if files:
        _show_files([file for file in expression.get("files", []) if matches(file, None, path)])
        if "data" in expression and not expression["files"]:
            say("no gate has judged the rows, and no copies were looked for: set data.gates or data.copies")
    if not view.numbers:
        say(f"none of the {view.rows:,} rows of {view.side} matches")
        return
    total, learned = sum(view.lengths), sum(view.supervised)
    some = "" if len(view.numbers) == view.rows else f" of {view.rows:,}"
    say(
        f"{view.side}: {len(view.numbers):,}{some} rows, {total:,} tokens, {learned:,} of them learned "
        f"({_share(learned, total)})"
    )
    if view.cut:
        say(f"rows that are parts of a text cut into several: {view.cut:,}")
    _show_histogram(view.lengths)
    if view.samples:
        out().print(Text(_LEGEND, style="dim"), soft_wrap=True)
    for number, row, tokens in view.samples:
        _show_row(number, view.rows, row, tokens)


def as_json(
    view: View, expression: Mapping[str, Any], *, files: bool = False, path: str | None = None
) -> dict[str, Any]:
    """The same as `show` prints, as one JSON object."""
    content = {
        "side": view.side,
        "rows": {"all": view.rows, "matching": len(view.numbers), "cut": view.cut},
        "tokens": {"all": sum(view.lengths), "supervised": sum(view.supervised)},
        "lengths": {**quantiles(view.lengths), "histogram": [list(line) for line in histogram(view.lengths)]},
        "report": expression.get("report", {}),
        "rules": [dict(zip(("rule", "files", "lowest", "highest"), line, strict=True)) for line in _rules(expression)],
        "samples": [
            {
                "row": number,
                "framing": framing_of(row),
                "origin": origin_of(row),
                "tokens": [
                    {"id": token.id, "text": token.text, "special": token.special, "supervised": token.supervised}
                    for token in tokens
                ],
            }
            for number, row, tokens in view.samples
        ],
    }
    if files:
        content["files"] = [file for file in expression.get("files", []) if matches(file, None, path)]
    return content


def _show_row(number: int, rows: int, row: Row, tokens: Sequence[Token]) -> None:
    learned = sum(token.supervised for token in tokens)
    part = f"part {row['part']} of {row['parts']}" if row.get("parts", 1) > 1 else ""
    counts = f"{len(tokens):,} tokens, {learned:,} learned"
    head = " · ".join(filter(None, [f"row {number:,} of {rows:,}", framing_of(row), origin_of(row), part, counts]))
    out().print()
    out().print(Text(printable(head), style="bold"), soft_wrap=True)
    out().print(render(tokens), soft_wrap=True)


def render(tokens: Sequence[Token]) -> Text:
    """Tokens as a terminal shows them: colours where it has them, and marks that need none."""
    text = Text()
    before = line_ends = False
    for position, token in enumerate(tokens):
        if before and not token.supervised:
            text.append("⟧", style="bold green")
        elif position and before == token.supervised:
            text.append("│", style="dim")
        if line_ends:
            text.append("\n")
        if token.supervised and not before:
            text.append("⟦", style="bold green")
        style = "green" if token.supervised else "dim"
        text.append(_shown(token), style=f"{style} bold reverse" if token.special else style)
        before, line_ends = token.supervised, token.text.endswith("\n")
    if before:
        text.append("⟧", style="bold green")
    return text


def _shown(token: Token) -> str:
    if token.special:
        return printable(token.text)
    number = str(token.part).translate(_SUBSCRIPT) if token.part else ""
    return printable(token.text.translate(_VISIBLE)) + number


def _show_account(expression: Mapping[str, Any]) -> None:
    report = expression.get("report", {})
    if "data" in expression:
        say(*told(expression["data"]))
    origin, what = ("file", "rows") if "data" in expression else ("repository", "files")
    repositories = sorted(report.get("repositories", {}).items(), key=lambda item: (-item[1]["tokens"], item[0]))
    total = sum(counts["tokens"] for _, counts in repositories)
    if repositories:
        lines = [
            (name, counts["files"], counts["expressed"], counts["tokens"], _share(counts["tokens"], total))
            for name, counts in repositories
        ]
        out().print(table(origin, f">{what}", ">expressed", ">tokens", ">share", rows=lines))
    rules = [
        (rule, count, "" if low is None else f"{low:.3g} to {high:.3g}")
        for rule, count, low, high in _rules(expression)
    ]
    if rules:
        out().print(table("left out by", f">{what}", ">score", rows=rules))
    framings = [
        (name, counts["rows"], counts["tokens"], _share(counts["supervised"], counts["tokens"]))
        for name, counts in report.get("framings", {}).items()
    ]
    if framings:
        out().print(table("framing", ">rows", ">tokens", ">learned", rows=framings))
    if report.get("cut"):
        say(f"texts that are cut into several rows: {report['cut']:,}")


def _rules(expression: Mapping[str, Any]) -> list[tuple[str, int, float | None, float | None]]:
    """Rules that left files out: the rule, how many files, and the lowest and the highest score among them."""
    kinds: dict[str, int] = expression.get("report", {}).get("left_out", {})
    scores: dict[str, list[float]] = {kind: [] for kind in kinds}
    for file in expression.get("files", []):
        of = [kind for kind in kinds if str(file["rule"]).startswith(kind)]
        if not file["expressed"] and of and file.get("score") is not None:
            scores[max(of, key=len)].append(file["score"])
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return [(kind, n, min(scores[kind], default=None), max(scores[kind], default=None)) for kind, n in ordered]


def _show_files(files: Sequence[Mapping[str, Any]]) -> None:
    lines = [
        (
            file.get("side") or ("in" if file["expressed"] else "out"),
            file["rule"],
            "" if file.get("score") is None else f"{file['score']:.3g}",
            file.get("tokens", ""),
            f"{file['repository']}/{file['path']}",
        )
        for file in files
    ]
    out().print(table("side", "rule", ">score", ">tokens", "file", rows=lines))


def _show_histogram(lengths: Sequence[int]) -> None:
    bins = histogram(lengths)
    longest = max(count for _, _, count in bins)
    lines = [(f"{first:,}–{last:,}", count, _bar(count / longest)) for first, last, count in bins]
    out().print(table(">tokens", ">rows", "", rows=lines))
    shown = ", ".join(f"{name} {value:,}" for name, value in quantiles(lengths).items())
    say(f"tokens in a row: {shown}")


def _bar(share: float) -> str:
    eighths = round(share * _BAR * 8)
    if not eighths and share:
        eighths = 1  # what is there is seen
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"
