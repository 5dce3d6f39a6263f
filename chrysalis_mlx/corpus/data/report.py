"""What became of the rows of one's own, row by row: part of expression.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_SHOWN = 10  # rows that an error names, and names that a line does


@dataclass(frozen=True)
class Remark:
    """Why a row is left out, or what was changed in it.

    Attributes:
        number: of the row: the line where it begins in JSON Lines, CSV and text, else its place among the rows.
        reason: the same for all rows of this kind.
        detail: what differs from row to row.
    """

    file: str
    number: int
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.file}, row {self.number}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass
class FileReport:
    """A file that was read: its side (None: it has none), the form of its rows (None: none was told), and counts."""

    name: str
    side: str | None
    form: str | None = None
    rows: int = 0
    kept: int = 0


@dataclass
class DataReport:
    """What became of every row.

    Attributes:
        passed_over: names of files and, with a slash, of subfolders that were not read.
        left_out: rows that are not in the corpus.
        changed: rows that are, otherwise than they were written.
        unused: keys that no form knows, with the number of rows that have them.
        notes: what was done to all of them, a sentence each.
    """

    files: list[FileReport] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    left_out: list[Remark] = field(default_factory=list)
    changed: list[Remark] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """For JSON: counts by reason, then every row by its file and number."""
        return {
            "files": [vars(file) for file in self.files],
            "passed_over": self.passed_over,
            "notes": self.notes,
            "unused": dict(sorted(self.unused.items())),
            "left_out": {"reasons": count_reasons(self.left_out), "rows": [vars(remark) for remark in self.left_out]},
            "changed": {"reasons": count_reasons(self.changed), "rows": [vars(remark) for remark in self.changed]},
        }


def told(account: Mapping[str, Any]) -> list[str]:
    """What the terminal tells of `DataReport.plain`, which expression.json has as "data": a line for each thing.

    How many rows were left out for which reason stands in the report itself.
    """
    changed = account["changed"]["reasons"]
    lines = [*account["notes"], *listed(_remarks(account["left_out"])).splitlines()]
    lines += [f"{rows:,} {'row' if rows == 1 else 'rows'} changed: {reason}" for reason, rows in changed.items()]
    lines += listed(_remarks(account["changed"])).splitlines()
    unused = [f"{key or 'one without a name'} (in {rows:,})" for key, rows in account["unused"].items()]
    for what, names in (("keys that were not read", unused), ("files that were not read", account["passed_over"])):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"{what}: {', '.join(names[:_SHOWN])}{more}")
    return lines


def _remarks(told_of: Mapping[str, Any]) -> list[Remark]:
    return [Remark(**remark) for remark in told_of["rows"]]


def writable(text: str) -> str:
    """A text as UTF-8 can hold it; halves of characters (lone surrogates), in keys and file names too, are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def count_reasons(remarks: Iterable[Remark]) -> dict[str, int]:
    """How many rows each reason met, the most frequent first."""
    return dict(Counter(remark.reason for remark in remarks).most_common())


def listed(remarks: list[Remark]) -> str:
    """The first remarks, a line each, and how many there are."""
    lines = [f"  {remark}" for remark in remarks[:_SHOWN]]
    more = len(remarks) - _SHOWN
    return "\n".join(lines + ([f"  and {more} more"] if more > 0 else []))
