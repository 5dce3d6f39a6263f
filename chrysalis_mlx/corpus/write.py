"""A corpus on disk, and the account of what it was made from.

train.jsonl, valid.jsonl, test.jsonl    rows of batches/rows.py, in curriculum order
text/, completion/, messages/           the same rows by form, where there are several: mlx-lm reads one form from
                                        one directory, and no file without rows
expression.json                         the report, and what became of every file
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chrysalis_mlx.batches.rows import Row, form_of, write_rows
from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.corpus.contamination import contamination
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.split import SIDES
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import write_text

_BLOCK = 256  # rows whose tokens are held at once, to be counted


@dataclass
class Corpus:
    """A corpus before it is written.

    Attributes:
        considered: how many files each repository has, or rows each file of one's own.
        ngram: words in a row that no text kept back may share with one that is trained on.
        rows: of each side, in curriculum order.
        documents: that the rows of each side are made of.
        files: what became of each: repository, path, expressed, rule, score and more.
        left_out: how many rows of one's own could not be used, by reason.
        account: what else is to be told: history, data.
    """

    considered: Mapping[str, int]
    ngram: int
    rows: dict[str, list[Row]] = field(default_factory=lambda: {side: [] for side in SIDES})
    documents: dict[str, list[Document]] = field(default_factory=lambda: {side: [] for side in SIDES})
    files: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    account: dict[str, Any] = field(default_factory=dict)


def write_corpus(
    corpus: Corpus, directory: Path, tokenizer: Tokenizer, *, progress: Progress = silent
) -> dict[str, Any]:
    """Write the corpus and its account into `directory`.

    Returns:
        the report: counts of files by rule; documents, rows and tokens by side, by framing and by repository; what was
        cut; contamination.

    Raises:
        CorpusError: a side has no rows.
    """
    for side in SIDES:
        if not corpus.rows[side]:
            raise CorpusError(
                f"no row is left for {side}",
                fix="loosen the blueprint's expression, change split.seed or raise the split's shares",
            )
    forms = sorted({form_of(row) or "" for rows in corpus.rows.values() for row in rows})
    for side, rows in corpus.rows.items():
        write_rows(directory / f"{side}.jsonl", rows)
        for form in forms if len(forms) > 1 else ():
            if of_form := [row for row in rows if form_of(row) == form]:
                write_rows(directory / form / f"{side}.jsonl", of_form)
    report = _report(corpus, tokenizer, progress)
    _write_account(directory / "expression.json", {"report": report, **corpus.account}, corpus.files)
    return report


def read_account(path: Path) -> dict[str, Any]:
    """What an expression.json says."""
    account: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return account


def _report(corpus: Corpus, tokenizer: Tokenizer, progress: Progress) -> dict[str, Any]:
    sizes = _sizes(corpus, tokenizer, progress)
    left_out = Counter(corpus.left_out)
    left_out.update(_rule_kind(file["rule"]) for file in corpus.files if not file["expressed"])
    documents = {side: len(expressed) for side, expressed in corpus.documents.items()}
    return {
        "considered": sum(corpus.considered.values()),
        "expressed": sum(documents.values()),
        "left_out": dict(left_out.most_common()),
        "documents": documents,
        "rows": {side: len(rows) for side, rows in corpus.rows.items()},
        "tokens": {side: sum(tokens for tokens, _ in sizes[side]) for side in SIDES},
        "supervised": {side: sum(learned for _, learned in sizes[side]) for side in SIDES},
        "framings": _by_framing(corpus.rows["train"], sizes["train"]),
        "repositories": _by_repository(corpus, sizes),
        "cut": sum(row.get("part") == 1 and row.get("parts", 1) > 1 for rows in corpus.rows.values() for row in rows),
        "contamination": {side: _contamination(corpus, side) for side in SIDES if side != "train"},
    }


def _sizes(corpus: Corpus, tokenizer: Tokenizer, progress: Progress) -> dict[str, list[tuple[int, int]]]:
    """Tokens, and those that are learned, of every row."""
    sizes: dict[str, list[tuple[int, int]]] = {side: [] for side in SIDES}
    with progress("counting", sum(map(len, corpus.rows.values())), unit="row") as bar:
        for side, rows in corpus.rows.items():
            for start in range(0, len(rows), _BLOCK):
                block = segments(rows[start : start + _BLOCK], tokenizer)
                sizes[side] += [(len(segment.tokens), int(segment.supervised.sum())) for segment in block]
                bar.update(len(block))
    return sizes


def _by_framing(rows: Sequence[Row], sizes: Sequence[tuple[int, int]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row, (tokens, learned) in zip(rows, sizes, strict=True):
        counts = found.setdefault(row["framing"], {"rows": 0, "tokens": 0, "supervised": 0})
        counts["rows"] += 1
        counts["tokens"] += tokens
        counts["supervised"] += learned
    return found


def _by_repository(corpus: Corpus, sizes: dict[str, list[tuple[int, int]]]) -> dict[str, dict[str, int]]:
    """Files and tokens of each repository, the tokens as they are trained on, validated and tested."""
    found = {name: {"files": files, "expressed": 0, "tokens": 0} for name, files in corpus.considered.items()}
    for side, rows in corpus.rows.items():
        for document in corpus.documents[side]:
            found[document.repository]["expressed"] += 1
        for row, (tokens, _) in zip(rows, sizes[side], strict=True):
            found[row["repository"]]["tokens"] += tokens
    return found


def _contamination(corpus: Corpus, side: str) -> dict[str, Any]:
    trained_on, kept_back = ([document.text for document in corpus.documents[name]] for name in ("train", side))
    found = contamination(trained_on, kept_back, corpus.ngram)
    return {
        "ngram": corpus.ngram,
        "documents": found.documents,
        "contaminated": len(found.contaminated),
        "share": round(found.share, 4),
    }


def _rule_kind(rule: str) -> str:
    """A rule without the file that it names, so that it can be counted."""
    return next((kind for kind in ("copy", "near copy") if rule.startswith(f"{kind} of ")), rule)


def _write_account(path: Path, head: dict[str, Any], files: Iterable[dict[str, Any]]) -> None:
    """One line for each file, so that an account can be read and compared by eye."""
    lines = ",\n".join(" " + json.dumps(file, ensure_ascii=False) for file in files)
    text = json.dumps(head, ensure_ascii=False, indent=1)
    write_text(path, f'{text[:-2]},\n "files": [\n{lines}\n]\n}}\n')
