"""Stage 2: genome and blueprint to train.jsonl, valid.jsonl and test.jsonl in mlx-lm's text format.

A row is `{"text", "repository", "path", "part", "parts"}`; mlx-lm reads the first field and passes over the rest.
Beside them expression.json tells for every file of the genome whether it is expressed, and by which rule.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chrysalis_mlx.blueprint.schema import Blueprint
from chrysalis_mlx.corpus.express import Verdict, content_digest, express
from chrysalis_mlx.corpus.frame import chunks
from chrysalis_mlx.corpus.split import SIDES, split_documents
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.genome.text.format import read_genome
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import atomic_path, write_json


@dataclass(frozen=True)
class CorpusReport:
    """What became of a genome. Counts; tokens are those of the rows as trained, end tokens included."""

    files: int
    expressed: int
    left_out: dict[str, int]
    documents: dict[str, int]
    rows: dict[str, int]
    tokens: dict[str, int]


def build_corpus(
    genome: Path, blueprint: Blueprint, tokenizer: Tokenizer, directory: Path, *, progress: Progress = silent
) -> CorpusReport:
    """Write the corpus and its account into `directory`.

    Raises:
        GenomeError: the genome is malformed.
        CorpusError: no document, or too few, are left after expression.
    """
    verdicts = list(express(read_genome(genome), blueprint.expression))
    documents = [verdict for verdict in verdicts if verdict.expressed]
    if not documents:
        raise CorpusError(
            f"none of the genome's {len(verdicts)} files is expressed",
            where=genome,
            fix="loosen the blueprint's expression (include, exclude, min_characters)",
        )
    sides = split_documents([document.digest for document in documents], blueprint.split)
    rows = _rows(documents, sides, blueprint, tokenizer, progress)
    _drop_repeats(rows)
    for side in SIDES:
        if not rows[side]:
            raise CorpusError(
                f"no row is left for {side}",
                where=genome,
                fix="its documents repeat others word for word; change split.seed or raise the split's shares",
            )
        _write_rows(directory / f"{side}.jsonl", rows[side])
    report = CorpusReport(
        files=len(verdicts),
        expressed=len(documents),
        left_out=dict(Counter(_rule_kind(verdict.rule) for verdict in verdicts if not verdict.expressed)),
        documents=dict(Counter(sides)),
        rows={side: len(rows[side]) for side in SIDES},
        tokens={side: sum(row_tokens(row, tokenizer) for row in rows[side]) for side in SIDES},
    )
    account = {"report": asdict(report), "files": list(_account(verdicts, sides))}
    write_json(directory / "expression.json", account)
    return report


def row_tokens(row: dict[str, Any], tokenizer: Tokenizer) -> int:
    """Tokens of a row as it is trained: an end token follows the last part of a document."""
    return len(tokenizer.encode(row["text"])) + int(row["part"] == row["parts"])


def _rows(
    documents: list[Verdict], sides: list[str], blueprint: Blueprint, tokenizer: Tokenizer, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with progress("framing", len(documents), unit="document") as bar:
        for document, side in zip(documents, sides, strict=True):
            origin = {"repository": document.file.repository, "path": document.file.path}
            header = blueprint.framing.header.format(**origin)
            text = document.file.text.removeprefix("\ufeff").replace("\r\n", "\n")
            texts = list(chunks(header, text, tokenizer, blueprint.training.row_length))
            rows[side] += [
                {"text": chunk, **origin, "part": part, "parts": len(texts), "header": len(header)}
                for part, chunk in enumerate(texts, 1)
            ]
            bar.update()
    return rows


def _drop_repeats(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Keep each chunk's content once, on the side that comes first: what was trained on is never tested on."""
    seen: set[str] = set()
    for side in SIDES:
        kept = []
        for row in rows[side]:
            digest = content_digest(row["text"][row.pop("header") :])
            if digest not in seen:
                seen.add(digest)
                kept.append(row)
        rows[side] = kept


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _rule_kind(rule: str) -> str:
    """A rule without the file that it names, so that it can be counted."""
    return "duplicate" if rule.startswith("duplicate of ") else rule


def _account(verdicts: list[Verdict], sides: list[str]) -> Iterator[dict[str, Any]]:
    side = iter(sides)
    for verdict in verdicts:
        entry = {"repository": verdict.file.repository, "path": verdict.file.path, "rule": verdict.rule}
        yield entry | ({"side": next(side)} if verdict.expressed else {"side": None})
