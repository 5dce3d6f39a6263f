"""Prove a genome: against its manifest, byte for byte, and against the repositories that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chrysalis_mlx.config import to_plain
from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.build import express
from chrysalis_mlx.genome.files.rules import Rules
from chrysalis_mlx.genome.manifest import FileRecord, RepositoryRecord, file_record, manifest_path, read_manifest
from chrysalis_mlx.genome.snapshot import open_snapshot
from chrysalis_mlx.genome.sources.pins import Lock
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
    lock: Lock | None = None,
    clones: Path | None = None,
    progress: Progress = silent,
) -> Verification:
    """Compare a genome with its manifest and, when a lock is named, with the repositories that the lock pins.

    Args:
        genome: the file.
        manifest: its manifest; the one beside it by default.
        lock: what it must have been built from, pin for pin and rule for rule; nothing that the manifest claims is
            taken on trust then, every file is made again from the pinned commits.
        clones: where the lock's remotes were cloned to.

    Returns:
        every difference; none means that the genome is what the manifest says, and what the lock gives.

    Raises:
        GenomeError: there is no genome or no manifest that could be compared.
    """
    manifest = manifest or manifest_path(genome)
    head, records = read_manifest(manifest)
    result = Verification(genome, manifest)
    _compare_text(genome, head["genome"], records, result, progress)
    if lock is not None:
        result.problems += _lock_differences(head, records, lock, manifest)
        _compare_sources(lock, clones or Path(), head, records, result, progress)
    return result


def _compare_text(
    genome: Path, totals: dict[str, Any], records: list[RepositoryRecord], result: Verification, progress: Progress
) -> None:
    expected = {(record.name, file.path): file for record in records for file in record.files}
    in_order, order = list(expected), []
    content_bytes = 0
    reading = read_genome(genome)
    with progress("verifying", len(expected), unit="file") as bar:
        try:
            for file in reading:
                order.append((file.repository, file.path))
                result.problems += _differences(order[-1], file.content, expected.pop(order[-1], None))
                content_bytes += len(file.content)
                bar.update(1)
        except GenomeError as error:
            result.problems.append(f"{error.what} ({error.where}); {len(expected):,} files were not reached")
            return
    result.files = len(order)
    result.problems += [f"{repository}/{path}: missing" for repository, path in expected]
    if not result.problems and order != in_order:
        first = next(found for found, wanted in zip(order, in_order, strict=True) if found != wanted)
        result.problems.append(f"{'/'.join(first)}: not where the manifest has it")
    identity = reading.identity
    assert identity is not None
    result.sha256 = identity.sha256
    if identity.sha256 != totals["sha256"] and not result.problems:
        result.problems.append("every file is as it should be, but something between them was changed")
    counted = {
        "bytes": identity.bytes,
        "repositories": len({repository for repository, _ in order}),
        "files": len(order),
        "content_bytes": content_bytes,
    }
    for name, value in counted.items():
        if totals[name] != value and not result.problems:
            result.problems.append(f"the manifest counts {totals[name]:,} as genome.{name}, it is {value:,}")


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


def _lock_differences(
    head: dict[str, Any], records: list[RepositoryRecord], lock: Lock, manifest: Path
) -> Iterator[str]:
    """Where the manifest speaks of other pins or rules than the lock."""
    if head["rules"] is None:
        raise GenomeError("the genome was made elsewhere; its manifest does not say from what", where=manifest)
    rules = asdict(lock.files)
    for name in sorted(rules.keys() | head["rules"].keys()):
        asked, used = to_plain(rules.get(name)), head["rules"].get(name)
        if asked != used:
            yield f"files.{name}: the lock says {asked}, the genome was built with {used}"
    pins = {pin.name: pin for pin in lock.repositories}
    for record in records:
        if record.pin() != pins.get(record.name):
            yield f"{record.name}: the manifest has {record.pin()}, the lock has {pins.get(record.name, 'nothing')}"
    in_order = [pin.name for pin in lock.repositories if pin.name in {record.name for record in records}]
    if in_order != [record.name for record in records if record.name in pins]:
        yield "the repositories do not follow each other as in the lock"


def _compare_sources(
    lock: Lock,
    clones: Path,
    head: dict[str, Any],
    records: list[RepositoryRecord],
    result: Verification,
    progress: Progress,
) -> None:
    """Make every file of the lock again from its pinned commit; what is left out counts too."""
    rules = Rules(lock.files)
    recorded = {record.name: record for record in records}
    failed = {failure["name"] for failure in head["failed"]}
    result.repositories = 0
    with progress("comparing with the sources", len(lock.repositories), unit="repository") as bar:
        for pin in lock.repositories:
            try:
                snapshot = open_snapshot(pin, lock.root(pin, clones))
                again = RepositoryRecord(**vars(pin))
                for _ in express(snapshot, rules, again):
                    pass
            except GenomeError as error:
                # Who says that it could not be had cannot have its files as well.
                if pin.name not in failed or pin.name in recorded:
                    result.problems.append(f"{pin.name}: {error.what}")
            else:
                result.problems += _record_differences(recorded.get(pin.name), again)
                result.repositories += 1
            bar.update(1, last=pin.name)


def _record_differences(record: RepositoryRecord | None, again: RepositoryRecord) -> Iterator[str]:
    if record is None:
        yield f"{again.name}: the lock has it and it is here, and the genome is without it"
        return
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
