"""Pin every source: a remote at the commit that its ref stands at, a checkout at its own, a directory at its tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path

from chrysalis_mlx.config import to_plain
from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.children import worker_pool
from chrysalis_mlx.genome.git.command import GitError, algorithm_of, git, object_id
from chrysalis_mlx.genome.git.disk import hash_file, scan, tree_id
from chrysalis_mlx.genome.git.remote import resolve, shown
from chrysalis_mlx.genome.sources.find import Source, find_sources
from chrysalis_mlx.genome.sources.pins import Failure, Lock, Pin
from chrysalis_mlx.genome.sources.schema import GenomeConfig
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import sha256_json


@dataclass
class LockReport:
    """What was pinned.

    Attributes:
        lock: the pins.
        notes: repository -> what its owner should know, such as changes that are not committed.
        failures: repository -> the error that kept it from being pinned.
    """

    lock: Lock
    notes: dict[str, str] = field(default_factory=dict)
    failures: dict[str, GenomeError] = field(default_factory=dict)


def config_hash(config: GenomeConfig) -> str:
    """sha256 of what a genome.yaml means, whatever its layout and comments."""
    return sha256_json(to_plain(config))


def lock_sources(
    config: GenomeConfig,
    base: Path,
    *,
    as_written: bool = False,
    previous: Lock | None = None,
    offline: bool = False,
    retries: int = 3,
    jobs: int = 4,
    progress: Progress = silent,
) -> LockReport:
    """Resolve every source of a configuration to a commit.

    Args:
        config: what was asked for.
        base: the folder that relative paths count from.
        as_written: keep the order of the entries (see `find_sources`).
        previous: the lock that is replaced; offline, its pins of remotes are kept.
        offline: ask no remote.
        retries: how often a remote is asked again.
        jobs: how many remotes are asked at once.

    Returns:
        the lock of everything that could be resolved; what could not be is in `failures` and `lock.failed`.

    Raises:
        GenomeError: the sources themselves cannot be used (see `find_sources`).
    """
    sources = find_sources(config, base, as_written=as_written)
    pins: dict[str, Pin] = {}
    report = LockReport(Lock())
    with worker_pool(jobs) as pool, progress("locking", len(sources), unit="repository") as bar:
        work = {pool.submit(_pin, source, base, previous, offline, retries): source for source in sources}
        for done in as_completed(work):
            source = work[done]
            try:
                pins[source.name], note = done.result()
            except GenomeError as error:
                report.failures[source.name] = error
            else:
                if note:
                    report.notes[source.name] = note
            bar.update(1, last=source.name)
    report.failures = {source.name: report.failures[source.name] for source in sources if source.name not in pins}
    report.lock = Lock(
        config=config_hash(config),
        history=config.history,
        fsck_ignore=config.fsck_ignore,
        repositories=tuple(pins[source.name] for source in sources if source.name in pins),
        failed=tuple(_failure(source, report.failures) for source in sources if source.name not in pins),
        files=config.files,
    ).at(base)
    return report


def raise_failures(failures: Mapping[str, GenomeError], what: str) -> None:
    """Raise what kept sources from being had: one error as it is, several as a list with the advice of each.

    Args:
        failures: name of the source -> its error.
        what: the words after their number, such as "sources cannot be locked".

    Raises:
        GenomeError: there is at least one failure.
    """
    if len(failures) == 1:
        raise next(iter(failures.values()))
    if failures:
        lines = "".join(
            f"\n  - {name}: {error.what}" + (f"\n    to do: {error.fix}" if error.fix else "")
            for name, error in failures.items()
        )
        raise GenomeError(f"{len(failures)} {what}:{lines}", fix="mend them, or go without them: --keep-going")


def _failure(source: Source, failures: dict[str, GenomeError]) -> Failure:
    error = failures[source.name]
    return Failure(source.name, shown(source.location), error.words if isinstance(error, GitError) else error.what)


def _pin(source: Source, base: Path, previous: Lock | None, offline: bool, retries: int) -> tuple[Pin, str]:
    if source.kind == "remote":
        return _pin_remote(source, previous, offline, retries), ""
    path = base / os.path.expanduser(source.location)
    if source.kind == "directory":
        tree = tree_id(scan(path / source.folder, plain=True).entries)
        return Pin(source.name, "directory", source.location, tree=tree, folder=source.folder), ""
    return _pin_checkout(source, path)


def _pin_remote(source: Source, previous: Lock | None, offline: bool, retries: int) -> Pin:
    if source.commit:
        return Pin(source.name, "remote", source.location, commit=source.commit, folder=source.folder)
    if not offline:
        ref, commit = resolve(source.location, source.ref, retries=retries)
        return Pin(source.name, "remote", source.location, commit=commit, ref=ref, folder=source.folder)
    never = "it was never locked"
    for pin in previous.repositories if previous else ():
        if (pin.name, pin.location, pin.folder) == (source.name, source.location, source.folder):
            if _is_found_at(pin.ref, source.ref):
                return pin
            never = "it was never locked at this ref"
    raise GenomeError(
        f"{never}, and offline no remote is asked", where=shown(source.location), fix="lock it online once"
    )


def _is_found_at(found: str | None, wanted: str | None) -> bool:
    """Whether a commit that was found at a ref is what a source means that wants this one."""
    if found is None:
        return False  # the commit itself was named
    if wanted in (None, "HEAD"):
        return found == "HEAD" or found.startswith("refs/heads/")
    return found in (wanted, f"refs/{wanted}", f"refs/tags/{wanted}", f"refs/heads/{wanted}")


def _pin_checkout(source: Source, path: Path) -> tuple[Pin, str]:
    wanted = source.commit or source.ref or "HEAD"
    try:
        found = git(path, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{wanted}^{{commit}}")
    except GitError as error:
        if wanted == "HEAD":
            what, fix = "the checkout has no commit yet", "commit what belongs into the genome: git add, git commit"
        else:
            what, fix = f"the checkout has no commit {wanted!r}", "fetch it there, or name another ref"
        raise GenomeError(what, where=path, fix=fix) from error
    commit = found.decode("ascii").strip()
    ref = _branch(path) if wanted == "HEAD" else None
    pin = Pin(source.name, "checkout", source.location, commit=commit, ref=ref, folder=source.folder)
    return pin, _uncommitted(path, source.folder) if wanted == "HEAD" else ""


def _branch(path: Path) -> str | None:
    try:
        return os.fsdecode(git(path, "symbolic-ref", "--quiet", "HEAD")).strip()
    except GitError:
        return None  # detached


def _uncommitted(path: Path, folder: str) -> str:
    """What the work tree holds that its commit does not, told without running a filter of the repository."""
    within: Sequence[str] = ["--", folder] if folder else []
    changes = git(path, "diff-index", "--raw", "-z", "--no-renames", "--ignore-submodules", "HEAD", *within).split(
        b"\0"
    )
    changed = sum(_differs(path, about, name) for about, name in zip(changes[:-1:2], changes[1::2], strict=True))
    new = git(path, "ls-files", "--others", "--exclude-standard", "-z", *within).count(b"\0")
    said = " and ".join(f"{count} {kind}" for count, kind in ((changed, "changed"), (new, "new")) if count)
    return f"{said} file(s) are not committed and stay out" if said else ""


def _differs(path: Path, about: bytes, name: bytes) -> bool:
    """Whether a file that git suspects is really another: a new time stamp alone is suspicious to it."""
    oid = about.split()[2].decode("ascii")
    place = os.path.join(os.fsencode(path), name)
    try:
        mode = os.lstat(place).st_mode
        if stat.S_ISLNK(mode):
            return object_id("blob", os.readlink(place), algorithm_of(oid)) != oid
        # Whatever else took its place is not opened: a pipe or a device may never end.
        return not stat.S_ISREG(mode) or hash_file(place, name, algorithm_of(oid)).oid != oid
    except OSError:
        return True
