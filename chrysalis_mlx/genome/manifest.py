"""The manifest of a genome: what every byte of it was made from. genome.json lies beside genome.txt.

    schema, genome {sha256, bytes, repositories, files, content_bytes}, lock, rules, failed,
    repositories [{name, kind, location, commit, tree, ref, folder, licence, files [...], left_out [...]}]
    files [{path, blob, sha256, bytes}]           in the genome's order; sha256 and bytes of what stands in the genome
    left_out [{path, reason, detail}]             everything else that the repository holds

A genome that was made elsewhere has no lock, no rules and no blobs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import IO, Any, Self

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.files.rules import LeftOut
from chrysalis_mlx.genome.sources.pins import Failure, Kind, Lock, Pin
from chrysalis_mlx.genome.text.format import GenomeFile, GenomeIdentity, read_genome
from chrysalis_mlx.run import atomic_path

SCHEMA = 2
_PACKED, _PLAIN = (".xz", ".gz"), ".txt"


def manifest_path(genome: Path) -> Path:
    """Where the manifest of a genome lies: genome.json beside genome.txt, genome.txt.xz or genome."""
    name = genome.name
    for suffix in _PACKED:
        name = name.removesuffix(suffix)
    return genome.with_name(name.removesuffix(_PLAIN) + ".json")


@dataclass(frozen=True)
class FileRecord:
    """One file of a genome.

    Attributes:
        path: in its repository.
        sha256: of what stands in the genome, UTF-8, without the format's escapes.
        bytes: the size of that.
        blob: the git object it was made from; None in a genome that was made elsewhere.
    """

    path: str
    sha256: str
    bytes: int
    blob: str | None = None


def file_record(path: str, content: bytes, blob: str | None = None) -> FileRecord:
    """The record of a file whose text in the genome has these bytes."""
    return FileRecord(path, hashlib.sha256(content).hexdigest(), len(content), blob)


@dataclass
class RepositoryRecord:
    """One repository of a genome: its pin, its licence and every file of it, taken or left out."""

    name: str
    kind: Kind | None = None
    location: str | None = None
    commit: str | None = None
    tree: str | None = None
    ref: str | None = None
    folder: str = ""
    licence: str | None = None
    files: list[FileRecord] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def pin(self) -> Pin:
        """What the repository was pinned at.

        Raises:
            GenomeError: the genome was made elsewhere, and its repositories are pinned nowhere.
        """
        if self.kind is None or self.location is None:
            raise GenomeError(f"the manifest does not say where {self.name!r} comes from")
        return Pin(self.name, self.kind, self.location, self.commit, self.tree, self.ref, self.folder)


class ManifestWriter:
    """Writes a manifest while its genome is written; memory for one repository. A context manager."""

    def __init__(self, path: Path, lock: Lock | None = None, failed: Sequence[Failure] = ()) -> None:
        self._path, self._lock, self._failed = path, lock, failed
        self._totals = {"repositories": 0, "files": 0, "content_bytes": 0}

    def __enter__(self) -> Self:
        # Beside the manifest, so that a disk that is too small is known before the genome gets its name.
        folder = self._path.parent if self._path.parent.is_dir() else None
        self._spool: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def add(self, record: RepositoryRecord) -> None:
        """Append one finished repository."""
        self._spool.write(",\n" if self._spool.tell() else "")
        files, left_out = ([asdict(item) for item in items] for items in (record.files, record.left_out))
        head = {name: value for name, value in vars(record).items() if name not in ("files", "left_out")}
        self._spool.write(
            " " + _json(head)[:-1] + f',\n  "files": [{_lines(files)}],\n  "left_out": [{_lines(left_out)}]}}'
        )
        self._totals["repositories"] += bool(record.files)
        self._totals["files"] += len(record.files)
        self._totals["content_bytes"] += record.bytes

    def finish(self, identity: GenomeIdentity) -> dict[str, Any]:
        """Write the manifest; returns what it says of the genome as a whole. No older one is left when it cannot."""
        totals = {"sha256": identity.sha256, "bytes": identity.bytes, **self._totals}
        head = {
            "schema": SCHEMA,
            "genome": totals,
            "lock": self._lock.sha256 if self._lock else None,
            "rules": asdict(self._lock.files) if self._lock else None,
            "failed": [asdict(failure) for failure in self._failed],
        }
        self._spool.seek(0)
        self._path.unlink(missing_ok=True)
        with atomic_path(self._path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
            stream.write(json.dumps(head, indent=1, ensure_ascii=False)[:-2] + ',\n "repositories": [\n')
            shutil.copyfileobj(self._spool, stream)
            stream.write("\n]}\n")
        return totals


def read_manifest(path: Path) -> tuple[dict[str, Any], list[RepositoryRecord]]:
    """Read a manifest.

    Returns:
        its head (`schema`, `genome`, `lock`, `rules`, `failed`) and its repositories, in order.

    Raises:
        GenomeError: not there, or not a manifest of this schema.
    """
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        if head["schema"] != SCHEMA:
            raise GenomeError(
                f"the manifest has schema {head['schema']}, this version reads {SCHEMA}", where=path, fix="build again"
            )
        repositories = [
            RepositoryRecord(
                **{**entry, "files": [FileRecord(**file) for file in entry["files"]]}
                | {"left_out": [LeftOut(**item) for item in entry["left_out"]]}
            )
            for entry in head.pop("repositories")
        ]
    except FileNotFoundError as error:
        raise GenomeError(
            "the genome has no manifest", where=path, fix="name it with --manifest, or build the genome again"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GenomeError(
            f"the manifest cannot be read: {error!r}", where=path, fix="build the genome again"
        ) from error
    _refuse_twice([record.name for record in repositories], path)
    for record in repositories:
        _refuse_twice([f"{record.name}/{item.path}" for item in record.files], path)
        _refuse_twice([f"{record.name}/{item.path} (left out)" for item in record.left_out], path)
    return head, repositories


def _refuse_twice(names: list[str], manifest: Path) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise GenomeError(f"the manifest has {twice} twice", where=manifest, fix="build the genome again")


def copy_manifest(genome: Path, target: Path) -> GenomeIdentity:
    """Put the manifest of a genome to `target`; one that was made elsewhere gets what it tells itself.

    Raises:
        GenomeError: the genome cannot be read, or is not what its manifest says.
    """
    reading = read_genome(genome)
    with ManifestWriter(target) as writer:
        for record in _records(reading):
            writer.add(record)
        assert reading.identity is not None  # it was read to its end
        source = manifest_path(genome)
        recorded = recorded_genome(source)
        if recorded is None:
            writer.finish(reading.identity)
        elif recorded != reading.identity.sha256:
            raise GenomeError(
                "the genome is not the one that its manifest tells of",
                where=source,
                fix="`chrysalis-mlx genome verify` says what differs; build it again",
            )
        elif source.absolute() != target.absolute():
            with atomic_path(target) as partial:
                shutil.copyfile(source, partial)
    return reading.identity


def recorded_genome(manifest: Path) -> str | None:
    """The genome that a manifest tells of; None when there is no manifest, or a file of that name and another kind."""
    try:
        sha256: str = read_manifest(manifest)[0]["genome"]["sha256"]
    except GenomeError:
        return None
    return sha256


def _records(files: Iterable[GenomeFile]) -> Iterator[RepositoryRecord]:
    for name, group in groupby(files, key=attrgetter("repository")):
        records = [file_record(file.path, file.content) for file in group]
        yield RepositoryRecord(name, files=records)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(items: list[dict[str, Any]]) -> str:
    """One line for each item, so that a manifest can be read and compared by eye."""
    return ",".join(f"\n   {_json(item)}" for item in items)
