"""The tables of a report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chrysalis_mlx.evaluation.results import Change, Copying, Evaluation, Score, Subject, Texts
from chrysalis_mlx.export.results import Exports
from chrysalis_mlx.report.facts import Facts
from chrysalis_mlx.report.material import LeftOut, Material
from chrysalis_mlx.report.measured import Measured
from chrysalis_mlx.report.origin import Origin
from chrysalis_mlx.report.words import NONE, count, figure, interval, megabytes, plural, share

BEFORE, AFTER = "before", "after"

Cell = str | tuple[str, str]
"""What is written in a cell; of two texts the second stands smaller below the first."""


@dataclass(frozen=True)
class Table:
    """A table for a page.

    Attributes:
        caption: what it shows; read aloud, not seen.
        heads: of the columns; one that begins with ">" is aligned to the right.
        rows: the cells; the first of a row names it.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __bool__(self) -> bool:
        return bool(self.rows)


def name_of(subject: Subject) -> str:
    """What a subject is called on a page."""
    return {"base": BEFORE, "tuned": AFTER}.get(subject.name, subject.name)


def sides(material: Material) -> Table:
    """Train, valid and test."""
    documents = "files" if material.of_genome else "texts"
    rows = tuple(
        (side.name, *map(count, (side.documents, side.rows, side.tokens, side.supervised)), share(side.contaminated))
        for side in material.sides
    )
    heads = ("side", f">{documents}", ">rows", ">tokens", ">learned", ">overlap")
    return Table("The sides of the corpus", heads, rows)


def framings(material: Material) -> Table:
    """How the training texts are framed."""
    rows = tuple(
        (name, *(count(found[figure_]) for figure_ in ("rows", "tokens", "supervised")))
        for name, found in material.framings.items()
    )
    return Table("Framings of the training texts", ("framing", ">rows", ">tokens", ">learned"), rows)


def parts(material: Material) -> Table:
    """Every repository, or every file of one's own."""
    what = material.part
    rows = tuple(
        (part.name, count(part.files), count(part.expressed), count(part.tokens), share(_of(part.tokens, material)))
        for part in material.parts
    )
    return Table(f"Tokens by {what}", (what, f">{material.units}", ">taken", ">tokens", ">share"), rows)


def _of(tokens: int, material: Material) -> float | None:
    return tokens / material.tokens if material.tokens else None


def left_out(found: Iterable[LeftOut], caption: str, unit: str) -> Table:
    """Reasons, with how many each one met."""
    rows = tuple(((item.rule, item.why) if item.why else item.rule, count(item.number)) for item in found)
    return Table(caption, ("reason", f">{unit}"), rows)


def perplexity(measured: Measured) -> Table:
    """Before and after, with what the bootstrap says of each and of their ratio."""
    before, after = measured.before, measured.after
    texts = (measured.name, f"{after.targets:,} tokens of {plural(after.documents, 'text')}")
    heads = ("texts", f">{BEFORE}", f">{AFTER}", ">after / before")
    row = (texts, scored(before), scored(after), ratio(measured.change))
    return Table("Perplexity before and after", heads, (row,))


def scored(score: Score | None) -> Cell:
    """A perplexity and its interval."""
    return NONE if score is None else (figure(score.perplexity), interval(score.interval))


def ratio(change: Change | None) -> Cell:
    """A ratio of perplexities and its interval."""
    return NONE if change is None else (figure(change.ratio, 3), interval(change.interval, 3))


def by_kind(what: str, before: Mapping[str, Score], after: Mapping[str, Score]) -> Table:
    """Perplexity of test texts by where they come from, those with most tokens first."""
    names = sorted(set(before) & set(after), key=lambda name: (-after[name].targets, name))
    rows = tuple(
        (
            name,
            count(after[name].targets),
            figure(before[name].perplexity),
            figure(after[name].perplexity),
            figure(after[name].perplexity / before[name].perplexity, 3) if before[name].perplexity else NONE,
        )
        for name in names
    )
    return Table(f"Test perplexity by {what}", (what, ">tokens", f">{BEFORE}", f">{AFTER}", ">after / before"), rows)


def kinds(evaluation: Evaluation) -> tuple[Table, Table]:
    """By repository and by framing."""
    before: Texts = evaluation.base.test
    after: Texts = evaluation.tuned.test
    return (
        by_kind("repository", before.repositories, after.repositories),
        by_kind("framing", before.framings, after.framings),
    )


def files(evaluation: Evaluation) -> Table:
    """Perplexity of every file, against the tuned model on the same few tokens."""
    rows = tuple(
        (
            name,
            scored(subject.test.overall),
            ratio(subject.against.get("test")),
            scored(subject.general),
            ratio(subject.against.get("general")),
        )
        for name, subject in evaluation.files.items()
    )
    heads = ("file", ">test", ">file / trained", ">general text", ">file / trained on it")
    return Table("Perplexity of the exported files", heads, rows)


def copying(subjects: Sequence[Subject]) -> Table:
    """How many continuations copy, of every model."""
    measured = [subject for subject in subjects if subject.copying]
    rows = tuple(
        (
            name_of(subject),
            *(_copies(subject.copying.get(source)) for source in ("train", "held_out")),
            *(
                f"{subject.copying[source].longest:,}" if source in subject.copying else NONE
                for source in ("train", "held_out")
            ),
        )
        for subject in measured
    )
    heads = ("model", ">of training texts", ">of held-out texts", ">longest, training", ">longest, held-out")
    return Table("Continuations that copy", heads, rows)


def _copies(found: Copying | None) -> Cell:
    return NONE if found is None else (f"{found.copies:,} of {found.continuations:,}", share(found.share, 0))


def export(exports: Exports) -> Table:
    """Size, bits, KL, verdict."""
    rows = tuple(
        (
            file.file,
            megabytes(file.bytes),
            figure(file.bits_per_weight, 3),
            (figure(file.kl, 2), f"± {figure(file.kl_error, 2)}" if file.kl_error is not None else ""),
            share(file.top1),
            (figure(file.perplexity), f"trained: {figure(file.reference_perplexity)}")
            if file.reference_perplexity is not None
            else figure(file.perplexity),
            f"{count(file.lines_equal)} of {count(file.lines)}" if file.lines is not None else NONE,
            file.verdict,
        )
        for file in exports.files
    )
    heads = (
        "file",
        ">size",
        ">bits per weight",
        ">KL (nats)",
        ">same top token",
        ">perplexity",
        ">same tokens",
        "verdict",
    )
    return Table("Exported files", heads, rows)


def settings(facts: Facts) -> Table:
    """Those that the blueprint does not leave at their default."""
    rows = tuple(
        (name, written(value), written(facts.defaults.get(name))) for name, value in facts.own_settings.items()
    )
    return Table("Settings that differ from the defaults", ("setting", "value", "default"), rows)


def written(value: object) -> str:
    """A setting as YAML has it, or nearly."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "(none)"
    return str(value) or "(empty)"


def repositories(origin: Origin) -> Table:
    """Down to the commits."""
    rows = tuple(
        (
            (place.name, place.url or ""),
            place.state or "not recorded",
            place.ref or NONE,
            place.licence,
            count(place.files),
        )
        for place in origin.repositories
    )
    heads = ("repository", "commit", "ref", "licence", ">files")
    return Table("Repositories of the genome", heads, rows)


def hashes(named: Mapping[str, str], what: str) -> Table:
    """Files and their sha256."""
    return Table(f"sha256 of {what}", ("file", "sha256"), tuple(named.items()))
