"""Prove a genome: against its manifest, byte for byte, and against the repositories that it was made from."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chrysalis_mlx.config import from_plain
from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.build import express
from chrysalis_mlx.genome.files.rules import Rules
from chrysalis_mlx.genome.manifest import FileRecord, RepositoryRecord, file_record, manifest_path, read_manifest
from chrysalis_mlx.genome.snapshot import open_snapshot
from chrysalis_mlx.genome.sources.pins import Lock
from chrysalis_mlx.genome.sources.schema import FileRules
from chrysalis_mlx.genome.text.format import read_genome
from chrysalis_mlx.progress import Progress, silent


@dataclass
class Verification:
    """What a proof found.

    Attributes:
        path: the genome.
        manifest: what it was compared with.
        sha256: of the genome's text as it is.
        files: how many were compared.
        repositories: how many were compared with their sources; None when that was not asked for.
        problems: one line for each difference; empty when the genome is proved.
    """

    path: Path
    manifest: Path
    sha256: str | None = None
    files: int = 0
    repositories: int | None = None
    problems: list[str] = field(default_factory=list)


def verify_genome(
    genome: Path,
    manifest: Path | None = None,
    *,
    clones: Path | None = None,
    base: Path | None = None,
    lock: Lock | None = None,
    progress: Progress = silent,
) -> Verification:
    """Compare a genome with its manifest and, when `clones` is named, with what it was made from.

    Args:
        genome: the file.
        manifest: its manifest; the one beside it by default.
        clones: where its remotes were cloned to; every file is then made again from the pinned commits.
        base: the folder that relative locations count from; the manifest's by default.
        lock: what it must have been built from.

    Returns:
        every difference; none means that the genome is what the manifest says.

    Raises:
        GenomeError: there is no genome or no manifest that could be compared.
    """
    manifest = manifest or manifest_path(genome)
    head, records = read_manifest(manifest)
    result = Verification(genome, manifest)
    if lock is not None and head["lock"] != lock.sha256:
        result.problems.append("the lock is not the one that the genome was built from")
    _compare_text(genome, head["genome"], records, result, progress)
    if clones is not None:
        sources = Lock(files=_rules(head, manifest)).at(base or manifest.absolute().parent)
        _compare_sources(sources, records, clones, result, progress)
    return result


def _compare_text(
    genome: Path, totals: dict[str, Any], records: list[RepositoryRecord], result: Verification, progress: Progress
) -> None:
    expected = {(record.name, file.path): file for record in records for file in record.files}
    order: list[tuple[str, str]] = []
    in_order = list(expected)
    reading = read_genome(genome)
    with progress("verifying", len(expected), unit="file") as bar:
        try:
            for file in reading:
                key = (file.repository, file.path)
                order.append(key)
                result.problems += _differences(key, file.content, expected.pop(key, None))
                result.files += 1
                bar.update(1)
        except GenomeError as error:
            result.problems.append(f"{error.what} ({error.where}); {len(expected):,} files were not reached")
            return
    result.problems += [f"{repository}/{path}: missing" for repository, path in expected]
    identity = reading.identity
    assert identity is not None
    result.sha256 = identity.sha256
    if not result.problems and order != in_order:
        first = next(found for found, wanted in zip(order, in_order, strict=True) if found != wanted)
        result.problems.append(f"{'/'.join(first)}: not where the manifest has it")
    if identity.sha256 != totals["sha256"] and not result.problems:
        result.problems.append("every file is as it should be, but something between them was changed")


def _differences(key: tuple[str, str], content: bytes, recorded: FileRecord | None) -> Iterator[str]:
    name = "/".join(key)
    if recorded is None:
        yield f"{name}: not in the manifest, or there twice"
        return
    found = file_record(recorded.path, content)
    if (found.sha256, found.bytes) != (recorded.sha256, recorded.bytes):
        yield (
            f"{name}: altered: {found.bytes:,} bytes of sha256 {found.sha256}, "
            f"the manifest has {recorded.bytes:,} of {recorded.sha256}"
        )


def _rules(head: dict[str, Any], manifest: Path) -> FileRules:
    if head["rules"] is None:
        raise GenomeError("the genome was made elsewhere; its manifest does not say from what", where=manifest)
    rules, problems = from_plain(FileRules, head["rules"])
    if problems:
        raise GenomeError("the manifest's rules cannot be read: " + "; ".join(problems), where=manifest)
    return typing.cast(FileRules, rules)


def _compare_sources(
    sources: Lock, records: list[RepositoryRecord], clones: Path, result: Verification, progress: Progress
) -> None:
    """Make every file again from its pinned commit; what is left out counts too: nothing is dropped in silence."""
    rules = Rules(sources.files)
    result.repositories = 0
    with progress("comparing with the sources", len(records), unit="repository") as bar:
        for record in records:
            try:
                pin = record.pin()
                snapshot = open_snapshot(pin, sources.root(pin, clones))
                again = RepositoryRecord(**vars(pin))
                for _ in express(snapshot, rules, again):
                    pass
            except GenomeError as error:
                result.problems.append(f"{record.name}: {error.what}")
            else:
                result.problems += _record_differences(record, again)
                result.repositories += 1
            bar.update(1, last=record.name)


def _record_differences(record: RepositoryRecord, again: RepositoryRecord) -> Iterator[str]:
    if record.licence != again.licence:
        yield f"{record.name}: the manifest says the licence is {record.licence}, its source says {again.licence}"
    for what in ("files", "left_out"):
        recorded = {item.path: item for item in getattr(record, what)}
        found = {item.path: item for item in getattr(again, what)}
        for path in sorted(recorded.keys() | found.keys()):
            if recorded.get(path) != found.get(path):
                yield (
                    f"{record.name}/{path}: the manifest has {recorded.get(path, 'nothing')}, "
                    f"its source gives {found.get(path, 'nothing')}"
                )
