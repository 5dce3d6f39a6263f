"""Build one genome from pinned repositories: the same lock, the same bytes, on every machine.

Files are read from the pinned commits through git, so that nothing uncommitted can leak in; nothing depends on the
clock, the locale or the work tree. Beside the genome lies its manifest, which accounts for every file of every
repository, taken or left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.files.licence import is_licence_file, licence_of
from chrysalis_mlx.genome.files.rules import LeftOut, Reason, Refusal, Rules, shown_path
from chrysalis_mlx.genome.git.clone import read_failures
from chrysalis_mlx.genome.git.command import GitError, git
from chrysalis_mlx.genome.git.disk import PASSED_OVER, quoted
from chrysalis_mlx.genome.manifest import ManifestWriter, RepositoryRecord, file_record, manifest_path, recorded_genome
from chrysalis_mlx.genome.snapshot import Snapshot, open_snapshot
from chrysalis_mlx.genome.sources.pins import Failure, Lock
from chrysalis_mlx.genome.text.format import GenomeFile, write_genome
from chrysalis_mlx.progress import Bar, Progress, silent


@dataclass
class RepositorySummary:
    """What was taken from one repository, in figures, and what was left out, counted by reason."""

    repository: str
    commit: str | None
    licence: str | None
    files: int
    bytes: int
    left_out: dict[str, int]


@dataclass
class BuildReport:
    """What was built.

    Attributes:
        path: the genome; its manifest is `manifest_path(path)`.
        sha256: of the genome's text, however it is packed.
        bytes: the size of that text, markers included.
        files: how many.
        repositories: each one, in order.
        notable: files that were left out though their type is asked for: repository, path, reason, detail.
        failed: repositories that could not be had (--keep-going).
    """

    path: Path
    sha256: str = ""
    bytes: int = 0
    files: int = 0
    repositories: list[RepositorySummary] = field(default_factory=list)
    notable: list[tuple[str, str, str, str]] = field(default_factory=list)
    failed: tuple[Failure, ...] = ()


def build_genome(
    lock: Lock, clones: Path, output: Path, *, keep_going: bool = False, progress: Progress = silent
) -> BuildReport:
    """Write the genome of a lock and its manifest; packed when `output` ends in .gz or .xz.

    Args:
        lock: the repositories, pinned.
        clones: where remotes were cloned to.
        output: the file to write.
        keep_going: go without a repository that cannot be had; the manifest records it.

    Raises:
        GenomeError: a repository that is missing or damaged, an output inside of a source, or nothing to write.
    """
    written = manifest_path(output)
    refuse_inside_source(lock, clones, output, written)
    if written.exists() and recorded_genome(written) is None:
        raise GenomeError(
            f"the genome's manifest would replace {written.name}, which is none",
            where=written,
            fix="give the genome another name, or move that file away",
        )
    opened, failed = _open(lock, clones, keep_going)
    report = BuildReport(output, failed=failed)

    def finished(record: RepositoryRecord) -> None:
        manifest.add(record)
        _count(report, record)

    total = sum(len(snapshot.entries) for _, snapshot in opened)
    with ManifestWriter(written, lock, failed) as manifest, progress("building", total, unit="file") as bar:
        identity = write_genome(_files(opened, Rules(lock.files), finished, bar), output)
        totals = manifest.finish(identity)
    report.sha256, report.bytes, report.files = identity.sha256, identity.bytes, totals["files"]
    return report


def express(snapshot: Snapshot, rules: Rules, record: RepositoryRecord, bar: Bar | None = None) -> Iterator[GenomeFile]:
    """The files of one repository as they stand in the genome; what becomes of each file is noted in `record`.

    Raises:
        GenomeError: a content is missing, damaged or no longer what was pinned.
    """
    small = [entry for entry in snapshot.top if entry.size <= rules.files.max_bytes]
    licences = [entry for entry in small if is_licence_file(shown_path(entry.path))]
    refusals = {entry.path: rules.refuse(entry) for entry in snapshot.entries}
    wanted = [entry for entry in snapshot.entries if refusals[entry.path] is None]
    with closing(snapshot.read([*licences, *wanted])) as contents:
        texts = {shown_path(entry.path): next(contents).decode("utf-8", "replace") for entry in licences}
        record.licence = licence_of(texts)
        if refusal := rules.refuse_licence(record.licence):
            refusals, wanted = dict.fromkeys(refusals, refusal), []
        record.left_out = [LeftOut(quoted(path), _skipped(why), why) for path, why in snapshot.skipped]
        record.left_out += [LeftOut(quoted(path), *refusal) for path, refusal in refusals.items() if refusal]
        if bar is not None:
            bar.update(len(refusals) - len(wanted))
        for entry, content in zip(wanted, contents, strict=False):
            path = shown_path(entry.path)
            text = rules.text_of(path, content)
            if isinstance(text, Refusal):
                record.left_out.append(LeftOut(quoted(entry.path), *text))
            else:
                file = GenomeFile(record.name, path, text)
                record.files.append(file_record(path, file.content, entry.oid))
                yield file
            if bar is not None:
                bar.update(1)
    record.left_out.sort(key=lambda item: item.path)


def refuse_inside_source(lock: Lock, clones: Path, *places: Path) -> None:
    """Refuse places inside of a source: a genome must not eat itself.

    What git ignores in a checkout is no part of it and never will be; such a place is fine.

    Raises:
        GenomeError: a place is a part of a source, or would become one.
    """
    for pin in lock.repositories:
        root = lock.root(pin, clones)
        for place in places:
            if is_inside(place, root) and not (pin.kind == "checkout" and _is_ignored(root, place.resolve())):
                raise GenomeError(
                    f"the genome would be read into itself: this place is inside of the source {pin.name!r}",
                    where=place,
                    fix="write it outside of the source, or into a folder that its .gitignore names",
                )


def refuse_lock_inside_directory(lock: Lock, lock_file: Path) -> None:
    """Refuse a lock that lies in a plain directory which it pins: it would be out of date by its own writing.

    Raises:
        GenomeError: it does.
    """
    directories = tuple(pin for pin in lock.repositories if pin.kind == "directory")
    refuse_inside_source(replace(lock, repositories=directories).at(lock.base), Path(), lock_file)


def is_inside(place: Path, folder: Path) -> bool:
    """Whether a place is the folder or lies in it, by whatever name: some file systems know no upper case."""
    place = place.resolve()
    return folder.exists() and any(part.exists() and part.samefile(folder) for part in (place, *place.parents))


def _is_ignored(root: Path, place: Path) -> bool:
    try:
        git(root, "check-ignore", "--quiet", "--", str(place))
    except GitError as error:
        if error.status == 1:
            return False
        raise
    return True


def _open(
    lock: Lock, clones: Path, keep_going: bool
) -> tuple[list[tuple[RepositoryRecord, Snapshot]], tuple[Failure, ...]]:
    """Every repository, or all that cannot be had in one error."""
    opened, failed, errors = [], list(lock.failed), []
    words = read_failures(clones)
    for pin in lock.repositories:
        try:
            opened.append((RepositoryRecord(**vars(pin)), open_snapshot(pin, lock.root(pin, clones))))
        except GenomeError as error:
            failed.append(Failure(pin.name, pin.location, words.get(pin.name, error.what)))
            errors.append(error)
    if not failed or keep_going:
        return opened, tuple(failed)
    if len(errors) == len(failed) == 1:
        raise errors[0]
    raise GenomeError(
        f"{len(failed)} repositories cannot be had:" + "".join(f"\n  - {item.name}: {item.reason}" for item in failed),
        fix="bring them with `chrysalis-mlx genome clone`, or go without them: --keep-going",
    )


def _skipped(why: str) -> Reason:
    return "rule" if why in PASSED_OVER else "unreadable"


def _files(
    opened: list[tuple[RepositoryRecord, Snapshot]],
    rules: Rules,
    finished: Callable[[RepositoryRecord], None],
    bar: Bar,
) -> Iterator[GenomeFile]:
    for record, snapshot in opened:
        yield from express(snapshot, rules, record, bar)
        finished(record)


def _count(report: BuildReport, record: RepositoryRecord) -> None:
    counts: dict[str, int] = {}
    for item in record.left_out:
        counts[item.reason] = counts.get(item.reason, 0) + 1
        if item.reason not in ("type", "rule"):
            report.notable.append((record.name, item.path, item.reason, item.detail))
    report.repositories.append(
        RepositorySummary(record.name, record.commit, record.licence, len(record.files), record.bytes, counts)
    )
