"""Stage 2: a blueprint, and a genome or rows of one's own, to the rows that a model is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from chrysalis_mlx.batches.rows import Row
from chrysalis_mlx.blueprint.schema import Blueprint, ExpressionSection, GatesSection
from chrysalis_mlx.corpus.contamination import NgramIndex, shares_ngram
from chrysalis_mlx.corpus.data.compared import documents_of
from chrysalis_mlx.corpus.data.convert import DataSet, divide, missing_sides, read_data, require_rows
from chrysalis_mlx.corpus.data.fit import fit_rows
from chrysalis_mlx.corpus.data.report import count_reasons
from chrysalis_mlx.corpus.document import Document, Selected, Verdict
from chrysalis_mlx.corpus.frame.chunks import NoRoomError
from chrysalis_mlx.corpus.frame.framer import Framer
from chrysalis_mlx.corpus.frame.history import commit_rows, occurrences
from chrysalis_mlx.corpus.select.patterns import is_backup, weight_of
from chrysalis_mlx.corpus.select.select import Selection, select
from chrysalis_mlx.corpus.split import split_documents
from chrysalis_mlx.corpus.write import Corpus
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.genome.history import Commit, History
from chrysalis_mlx.genome.text.format import read_genome
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import sha256_json

OPEN_GATES = GatesSection(
    min_zlib_ratio=None,
    max_repeated_lines=None,
    max_repeated_ngrams=None,
    max_symbols=None,
    max_log_lines=None,
    generated=False,
    max_boilerplate=None,
)
"""Nothing but a blank text is left out."""


def corpus_of_genome(
    genome: Path,
    blueprint: Blueprint,
    tokenizer: Tokenizer,
    history: History | None = None,
    *,
    progress: Progress = silent,
) -> Corpus:
    """Express and frame a genome.

    Args:
        history: the commits of its repositories, where the mix wants them. They are trained on only, and only those
            that share no n-gram with what is kept back.

    Raises:
        GenomeError: the genome, or a clone, cannot be read.
        CorpusError: the model cannot learn what the mix frames, or too few documents are left after expression and
            have room in a row beside their header.
    """
    section = blueprint.expression
    framer = Framer(blueprint.framing, tokenizer, blueprint.training.row_length, blueprint.training.seed)
    framer.require_a_way()
    files = read_genome(genome)
    documents = [Document.of(file, backup=is_backup(file.repository, section.copies)) for file in files]
    selection = select(
        documents,
        section,
        tokenizer.count_batch,
        can_be_framed=lambda document: bool(framer.ways(document)),
        progress=progress,
    )
    if not selection.selected:
        raise CorpusError(
            f"none of the genome's {len(documents)} files is expressed",
            where=genome,
            fix="loosen the blueprint's expression (patterns, weights, gates, copies, budget) or its framing.mix",
        )
    sides = split_documents(selection.selected, blueprint.split)
    considered = Counter(document.repository for document in documents)
    entries = _entries(selection, sides)
    corpus = Corpus(considered, blueprint.split.ngram, files=list(entries.values()))
    passes: list[list[Row]] = []
    refused: NoRoomError | None = None
    with progress("framing", len(sides), unit="document") as bar:
        for item, side in zip(selection.selected, sides, strict=True):
            refused = _frame(item, side, framer, corpus, passes, entries[id(item.document)]) or refused
            bar.update()
    if refused and not all(corpus.documents.values()):
        raise refused
    if history is not None:
        _add_history(passes, corpus, history, blueprint, tokenizer)
    corpus.rows["train"] = [row for rows in passes for row in rows]
    return corpus


def _frame(
    item: Selected, side: str, framer: Framer, corpus: Corpus, passes: list[list[Row]], entry: dict[str, Any]
) -> NoRoomError | None:
    """Add the rows of a document. Where it gives none, its entry says why; that it has no room is returned."""
    document, refused = item.document, None
    try:
        times = framer.frame(document, item.weight) if side == "train" else [framer.frame_once(document)]
        rule = "" if times else "not due in an epoch"
    except NoRoomError as error:
        refused, rule = error, "no room"
    if rule:
        entry |= {"expressed": False, "rule": rule, "side": None}
        return refused
    if side == "train":
        _append(passes, times)
    else:
        corpus.rows[side] += times[0]
    corpus.documents[side].append(document)
    return None


def _append(passes: list[list[Row]], times: Sequence[list[Row]]) -> None:
    """Add what is seen several times in an epoch to as many passes, so that it does not stand beside itself."""
    for number, rows in enumerate(times):
        if number == len(passes):
            passes.append([])
        passes[number] += rows


def corpus_of_data(path: Path, blueprint: Blueprint, tokenizer: Tokenizer, *, progress: Progress = silent) -> Corpus:
    """Convert rows of one's own; gates, copies and families judge them where the blueprint's `data` asks for it.

    Raises:
        CorpusError: a file cannot be read, or too few rows are left.
        ModelError: the model's chat template cannot be used.
    """
    section, split = blueprint.data, blueprint.split
    data = read_data(path, section, chat=tokenizer.chat is not None)
    corpus = Corpus({file.name: file.rows for file in data.report.files}, split.ngram)
    data, parts = _fitted(data, path, tokenizer, blueprint.training.row_length, progress)
    documents = documents_of(data.rows)
    selection = Selection([], [])
    if section.gates or section.copies or missing_sides(data, section):
        selection = select(documents, _expression_of_data(blueprint), _uncounted, progress=progress)
        kept = [number for number, verdict in enumerate(selection.verdicts) if verdict.expressed]
        data, parts, documents = data.kept(kept), [parts[i] for i in kept], [documents[i] for i in kept]
        if not kept:
            raise CorpusError(
                "the gates and the search for copies leave no row",
                where=path,
                fix="set data.gates or data.copies to false, or loosen expression.gates",
            )
    sides = divide(data, section, split, lambda: selection.selected)
    for rows, document, side in zip(parts, documents, sides, strict=True):
        corpus.rows[side] += rows
        corpus.documents[side].append(document)
    if section.gates or section.copies:
        corpus.files = list(_entries(selection, sides).values())
    corpus.left_out = count_reasons(data.report.left_out)
    corpus.account["data"] = data.report.plain()
    return corpus


def _fitted(
    data: DataSet, path: Path, tokenizer: Tokenizer, row_length: int, progress: Progress
) -> tuple[DataSet, list[list[Row]]]:
    """The rows that fit into `row_length` tokens, and what each of them has become."""
    fitted = fit_rows(data.rows, tokenizer, row_length, progress=progress)
    data.report.left_out += fitted.left_out
    data.report.changed += fitted.cut
    parts: dict[int, list[Row]] = {}
    for row, origin in zip(fitted.rows, fitted.origins, strict=True):
        parts.setdefault(origin, []).append(row)
    left = data.kept(parts)
    require_rows(left, path, has_sides=any(data.sides), fix="raise training.row_length, or shorten the rows")
    return left, list(parts.values())


def _expression_of_data(blueprint: Blueprint) -> ExpressionSection:
    """How rows are judged: by nothing but what is asked for. Families are found in any case, for the split."""
    section, expression = blueprint.data, blueprint.expression
    copies = expression.copies if section.copies else replace(expression.copies, exact=False, near=None)
    return ExpressionSection(
        gates=expression.gates if section.gates else OPEN_GATES, copies=replace(copies, backups="keep")
    )


def _add_history(
    passes: list[list[Row]], corpus: Corpus, history: History, blueprint: Blueprint, tokenizer: Tokenizer
) -> None:
    """Add the rows of commits, and tell what became of the others."""
    training, mix = blueprint.training, blueprint.framing.mix
    left_out: Counter[str] = Counter()
    with closing(iter(history)) as commits:
        for commit in _fit_to_train(commits, corpus, blueprint, left_out):
            weight = mix.history * weight_of(commit.repository, blueprint.expression)
            times = occurrences(weight, training.seed, commit)
            rows = commit_rows(commit, tokenizer, training.row_length) if times else []
            left_out["does not fit into rows" if times else "not due in an epoch"] += not rows
            _append(passes, [rows] * times)
    accounts = [asdict(account) for account in history.accounts]
    corpus.account["history"] = {"repositories": accounts, "left_out": dict(+left_out)}


def _fit_to_train(
    commits: Iterable[Commit], corpus: Corpus, blueprint: Blueprint, left_out: Counter[str]
) -> Iterator[Commit]:
    """Commits without changes of files that are kept back or that a gate has closed on; those that say something new.

    What is kept back is kept back with its copies, and in their older versions, too.
    """
    copies = blueprint.expression.copies
    kept_back = [document for side in ("valid", "test") for document in corpus.documents[side]]
    protected = NgramIndex.of((document.text for document in kept_back), corpus.ngram)
    families = {file["family"] for file in corpus.files if file.get("side") in ("valid", "test")}
    closed = {
        (file["repository"], file["path"])
        for file in corpus.files
        if file["rule"].startswith("gate: ") or file.get("family") in families
    }
    seen: set[str] = set()
    for commit in commits:
        of = commit.repository
        files = tuple(file for file in commit.files if not closed & {(of, file.path), (of, file.old_path or file.path)})
        commit = replace(commit, files=files)
        if copies.backups != "keep" and is_backup(of, copies):
            left_out["of a backup repository"] += 1
        elif not files:
            left_out["changes only what is kept back or closed on"] += 1
        elif any(shares_ngram([commit.text, commit.diff], protected)):
            left_out[f"shares {corpus.ngram} words in a row with what is kept back"] += 1
        elif (digest := sha256_json(commit.diff)) in seen:
            left_out["the same change as another commit's"] += 1
        else:
            seen.add(digest)
            yield commit


def _entries(selection: Selection, sides: Sequence[str]) -> dict[int, dict[str, Any]]:
    """What became of every file, in genome order, by the id of its document."""
    chosen = {id(item.document): (item, side) for item, side in zip(selection.selected, sides, strict=True)}
    entries = {}
    for verdict in selection.verdicts:
        entry = _entry(verdict)
        if verdict.expressed:
            item, side = chosen[id(verdict.document)]
            entry |= {"side": side, "weight": item.weight, "tokens": item.tokens}
        entries[id(verdict.document)] = entry
    return entries


def _entry(verdict: Verdict) -> dict[str, Any]:
    document = verdict.document
    head = {"repository": document.repository, "path": document.path, "expressed": verdict.expressed}
    score = {} if verdict.score is None else {"score": verdict.score}
    family = {} if verdict.family is None else {"family": verdict.family}
    return {**head, "rule": verdict.rule, **score, "scores": verdict.scores, **family}


def _uncounted(texts: Sequence[str]) -> list[int]:
    """Rows of one's own have no budget."""
    return [0] * len(texts)
