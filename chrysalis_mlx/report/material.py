"""What went into a run: the corpus, by side, framing and repository, and what was left out, with the reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chrysalis_mlx.corpus.data.report import told
from chrysalis_mlx.corpus.write import read_account
from chrysalis_mlx.genome.manifest import RepositoryRecord
from chrysalis_mlx.run import Run

_EXAMPLES = 6  # files that are named for a reason

# What decides over a file of the genome, in plain words; see corpus/select.
_WHY = {
    "not included": "no pattern of expression.include matches",
    "exclude": "a pattern of expression.exclude matches",
    "weight 0": "its repository has weight 0 in expression.weights",
    "backup": "an older copy, in a backup repository",
    "backup of known text": "an older copy, of which live repositories hold more than half",
    "copy": "equal to another file",
    "near copy": "nearly equal to another file",
    "no framing": "no framing of the mix can be made of it",
    "no room": "does not fit into a row",
    "not due in an epoch": "its weight is below 1, and it was not drawn",
    "budget: per repository": "beyond the tokens that its repository may have",
    "budget: total": "beyond the tokens of the whole",
    "gate: characters": "too short",
    "gate: generated": "says that a program wrote it",
    "gate: minified": "minified code",
    "gate: log_lines": "mostly lines that a running program wrote",
    "gate: zlib_ratio": "repeats itself: it compresses too well",
    "gate: symbols": "mostly digits and symbols",
    "gate: repeated_lines": "mostly lines that it has before",
    "gate: repeated_ngrams": "mostly phrases that it has before",
    "gate: boilerplate": "mostly lines that several repositories have",
}
# Of a file that never came into the genome; see genome/files/rules.py.
_WHY_NOT_IN_GENOME = {
    "type": "no file name that is asked for",
    "rule": "left out by a pattern, or in a folder of installed packages",
    "size": "larger than the limit",
    "binary": "no text",
    "encoding": "not UTF-8",
    "name": "a name that the genome cannot hold",
    "link": "a symbolic link",
    "submodule": "another repository",
    "lfs": "a pointer to content that is kept elsewhere",
    "notebook": "no notebook inside",
    "secret": "may hold a password or key",  # pragma: allowlist secret
    "licence": "its repository's licence is not among those allowed",
    "unreadable": "cannot be read",
}


@dataclass(frozen=True)
class LeftOut:
    """Files or rows that are not in the corpus for one reason.

    Attributes:
        rule: as the record has it.
        why: in plain words; empty where the rule says it itself.
        examples: a few of them.
    """

    rule: str
    number: int
    why: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Side:
    """One side of the corpus.

    Attributes:
        supervised: tokens that are learned, or measured on.
        contaminated: share of its documents that share a phrase with what is trained on; None of train.
    """

    name: str
    documents: int
    rows: int
    tokens: int
    supervised: int
    contaminated: float | None = None


@dataclass(frozen=True)
class Part:
    """A repository of a genome, or a file of one's own: files (or rows) it has, those taken, and their tokens."""

    name: str
    files: int
    expressed: int
    tokens: int


@dataclass(frozen=True)
class Material:
    """What went in.

    Attributes:
        unit: what is counted: "file" of a genome, or "row" of one's own data.
        considered, expressed: how many there were, and how many were taken.
        sides: train, valid and test.
        framings: of train: name to rows, tokens and supervised tokens.
        parts: by tokens, most first.
        left_out: most frequent first.
        not_in_genome: what the repositories hold and the genome does not.
        commits: taken from the history of the repositories; None where the mix has none.
        commits_left_out: most frequent first.
        ngram: words in a row that make a kept-back document contaminated.
        cut: texts that were cut into several rows.
        notes: what else is recorded, a sentence each.
    """

    unit: str
    considered: int
    expressed: int
    sides: tuple[Side, ...]
    framings: Mapping[str, Mapping[str, int]]
    parts: tuple[Part, ...]
    left_out: tuple[LeftOut, ...] = ()
    not_in_genome: tuple[LeftOut, ...] = ()
    commits: int | None = None
    commits_left_out: tuple[LeftOut, ...] = ()
    ngram: int | None = None
    cut: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def of_genome(self) -> bool:
        """Whether it is made from a genome, and not from one's own data."""
        return self.unit == "file"

    @property
    def units(self) -> str:
        """The plural of `unit`."""
        return f"{self.unit}s"

    @property
    def part(self) -> str:
        """What one of `parts` is: a repository of a genome, or a file of rows."""
        return "repository" if self.of_genome else "file"

    @property
    def tokens(self) -> int:
        """Of all sides."""
        return sum(side.tokens for side in self.sides)


def read_material(run: Run, repositories: Iterable[RepositoryRecord]) -> Material | None:
    """The corpus of a run; None while there is none.

    Args:
        repositories: of the run's genome.
    """
    if run.stage("corpus").get("status") != "done":
        return None
    report, file = run.stage("corpus")["report"], run.path("corpus", "expression.json")
    account = read_account(file) if file.is_file() else {}
    contamination = report.get("contamination", {})
    history = account.get("history")
    return Material(
        unit="row" if "data" in run.record else "file",
        considered=report["considered"],
        expressed=report["expressed"],
        sides=tuple(_side(report, name) for name in report["rows"]),
        framings=report["framings"],
        parts=tuple(sorted(_parts(report), key=lambda part: -part.tokens)),
        left_out=_left_out(report["left_out"], account),
        not_in_genome=_not_in_genome(repositories),
        commits=sum(entry["commits"] for entry in history["repositories"]) if history else None,
        commits_left_out=_commits_left_out(history) if history else (),
        ngram=next((found["ngram"] for found in contamination.values()), None),
        cut=report["cut"],
        notes=tuple(told(account["data"])) if "data" in account else (),
    )


def _side(report: Mapping[str, Any], name: str) -> Side:
    documents, rows, tokens, supervised = (
        report[figure][name] for figure in ("documents", "rows", "tokens", "supervised")
    )
    share = report.get("contamination", {}).get(name, {}).get("share")
    return Side(name, documents, rows, tokens, supervised, share)


def _parts(report: Mapping[str, Any]) -> Iterable[Part]:
    return (Part(name, **counts) for name, counts in report["repositories"].items())


def _left_out(reasons: Mapping[str, int], account: Mapping[str, Any]) -> tuple[LeftOut, ...]:
    examples: dict[str, list[str]] = {}
    for file in account.get("files", ()):
        if not file["expressed"]:
            examples.setdefault(_kind(file["rule"]), []).append(f"{file['repository']}/{file['path']}")
    for row in account.get("data", {}).get("left_out", {}).get("rows", ()):
        detail = f" ({row['detail']})" if row["detail"] else ""
        examples.setdefault(row["reason"], []).append(f"{row['file']}, row {row['number']}{detail}")
    return tuple(
        LeftOut(rule, number, _why(rule), tuple(examples.get(rule, ())[:_EXAMPLES])) for rule, number in reasons.items()
    )


def _kind(rule: str) -> str:
    """A file's rule as the report counts it: without the file that it names."""
    return next((kind for kind in ("copy", "near copy") if rule.startswith(f"{kind} of ")), rule)


def _why(rule: str) -> str:
    return _WHY.get(rule) or _WHY.get(rule.split(":")[0], "")


def _not_in_genome(repositories: Iterable[RepositoryRecord]) -> tuple[LeftOut, ...]:
    examples: dict[str, list[str]] = {}
    for repository in repositories:
        for item in repository.left_out:
            examples.setdefault(item.reason, []).append(f"{repository.name}/{item.path}: {item.detail}")
    return tuple(
        LeftOut(reason, len(found), _WHY_NOT_IN_GENOME.get(reason, ""), tuple(found[:_EXAMPLES]))
        for reason, found in sorted(examples.items(), key=lambda item: -len(item[1]))
    )


def _commits_left_out(history: Mapping[str, Any]) -> tuple[LeftOut, ...]:
    reasons: Counter[str] = Counter(history["left_out"])
    for entry in history["repositories"]:
        reasons.update(entry["left_out"])
    return tuple(LeftOut(reason, number) for reason, number in reasons.most_common())
