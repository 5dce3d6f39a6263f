"""Build one genome from many sources, byte for byte the same whenever the sources are the same.

Repositories come in the order given, files by the bytes of their path; nothing depends on the clock. Beside the genome
FILE lies FILE.json, its manifest: where every file comes from, with size and sha256, and the commit of every checkout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.sources import LeftOut, Listing, Selection, Source, list_source, read_text
from chrysalis_mlx.genome.text import GenomeFile, write_genome
from chrysalis_mlx.run import write_json

MANIFEST_SCHEMA = 1


@dataclass
class RepositoryReport:
    """One source of a genome: what was taken from it.

    Attributes:
        repository: its name in the genome.
        files: how many were taken.
        bytes: the size of their contents.
        commit: of a git checkout, 40 hexadecimal digits.
        dirty: whether its tracked files differed from that commit.
        not_selected: how many files are of other types or excluded.
    """

    repository: str
    files: int = 0
    bytes: int = 0
    commit: str | None = None
    dirty: bool | None = None
    not_selected: int = 0


@dataclass
class BuildReport:
    """What was built.

    Attributes:
        path: the genome; its manifest is `manifest_path(path)`.
        sha256: of the genome's text, however it is packed.
        repositories: how many.
        files: how many.
        bytes: the size of the genome's text, markers included.
        by_repository: each source, in order.
        left_out: what could not be taken, with the reason.
    """

    path: Path
    sha256: str = ""
    repositories: int = 0
    files: int = 0
    bytes: int = 0
    by_repository: list[RepositoryReport] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def manifest_path(genome: Path) -> Path:
    """Where the manifest of a genome lies: FILE.json beside FILE."""
    return genome.with_name(genome.name + ".json")


def build_genome(sources: Sequence[Source], output: Path, selection: Selection | None = None) -> BuildReport:
    """Write the genome of `sources` and its manifest; packed when `output` ends in .gz or .xz.

    `output` may lie inside a source as long as it is no file of it: a git checkout that does not track it is fine
    (an ignored folder, say), a plain directory is not, because the next build would read it.

    Raises:
        GenomeError: a source that cannot be listed, an output that would be read into itself, or nothing to write.
    """
    selection = selection or Selection()
    listings = [list_source(source, selection) for source in sources]
    for listing in listings:
        _refuse_own_output(listing, selection, output)
    if not any(listing.paths for listing in listings):
        raise GenomeError(
            "the sources hold no file for a genome",
            where=", ".join(str(source.root) for source in sources),
            fix="choose files with --include GLOB; of a git checkout only tracked files count (git add)",
        )
    manifest: list[dict[str, Any]] = []
    identity = write_genome(_read(listings, manifest), output)
    reports = [_report(listing, manifest) for listing in listings]
    report = BuildReport(
        path=output,
        sha256=identity.sha256,
        repositories=sum(item.files > 0 for item in reports),
        files=len(manifest),
        bytes=identity.bytes,
        by_repository=reports,
        left_out=[item for listing in listings for item in listing.left_out],
    )
    about = {"schema": MANIFEST_SCHEMA, **report.as_dict(), "path": output.name, "content": manifest}
    write_json(manifest_path(output), about)
    return report


def _read(listings: Sequence[Listing], manifest: list[dict[str, Any]]) -> Iterator[GenomeFile]:
    for listing in listings:
        name = listing.source.name
        for path in listing.paths:
            text = read_text(listing, path)
            if text is None:
                continue
            content = text.encode("utf-8")
            digest = hashlib.sha256(content).hexdigest()
            manifest.append({"repository": name, "path": path, "bytes": len(content), "sha256": digest})
            yield GenomeFile(name, path, text)


def _report(listing: Listing, manifest: Sequence[dict[str, Any]]) -> RepositoryReport:
    sizes = [entry["bytes"] for entry in manifest if entry["repository"] == listing.source.name]
    return RepositoryReport(
        repository=listing.source.name,
        files=len(sizes),
        bytes=sum(sizes),
        commit=listing.commit,
        dirty=listing.dirty,
        not_selected=listing.not_selected,
    )


def _refuse_own_output(listing: Listing, selection: Selection, output: Path) -> None:
    root = listing.source.root
    for written in (output.resolve(), manifest_path(output.resolve())):
        if not written.is_relative_to(root):
            continue
        path = written.relative_to(root).as_posix()
        if path in listing.paths or (not listing.tracked and selection.wants(path)):
            raise GenomeError(
                f"the genome would be read into itself: {path} is a file of the source {listing.source.name!r}",
                where=written,
                fix="write it outside of the source, or leave it out with --exclude",
            )
