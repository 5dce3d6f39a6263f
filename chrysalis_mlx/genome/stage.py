"""Stage 1 as a whole: lock, clone, audit, build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.audit.levels import audit
from chrysalis_mlx.genome.build import BuildReport, build_genome, refuse_inside_source, refuse_lock_inside_directory
from chrysalis_mlx.genome.git.clone import clone
from chrysalis_mlx.genome.manifest import manifest_path, read_manifest
from chrysalis_mlx.genome.sources.find import config_of, load_config
from chrysalis_mlx.genome.sources.lock import config_hash, lock_sources, raise_failures
from chrysalis_mlx.genome.sources.pins import Lock
from chrysalis_mlx.genome.sources.schema import GenomeConfig
from chrysalis_mlx.genome.text.format import genome_identity
from chrysalis_mlx.progress import Progress, silent


def lock_beside(sources: Path) -> Path:
    """Where the lock of a genome.yaml lies: genome.lock.json."""
    return sources.with_name(sources.stem + ".lock.json")


def clones_beside(lock_file: Path) -> Path:
    """Where the clones of a lock lie: clones/."""
    return lock_file.with_name("clones")


def make_genome(sources: Path, output: Path, *, progress: Progress = silent) -> BuildReport:
    """From a genome.yaml to its genome: lock it unless it is locked, clone what is missing, audit, build.

    Raises:
        GenomeError: a source that cannot be used or had, a clone that fails its audit, a lock that is out of date.
    """
    lock_file = lock_beside(sources)
    clones = clones_beside(lock_file)
    if lock_file.exists():
        lock = read_fresh_lock(lock_file)
    else:
        lock = _locked(load_config(sources), sources.absolute().parent, as_written=False, progress=progress)
        refuse_lock_inside_directory(lock, lock_file)
        lock.write(lock_file)
    _bring(lock, clones, keep_going=False, progress=progress)
    _require_sound(lock, clones, progress)
    return build_genome(lock, clones, output, progress=progress)


def lock_now(texts: Sequence[str], clones: Path, *, keep_going: bool = False, progress: Progress = silent) -> Lock:
    """Pin what a command line names, in this order, and bring what is remote; no lock file is written.

    Raises:
        GenomeError: a source that cannot be used or had.
    """
    lock = _locked(config_of(texts), Path.cwd(), as_written=True, keep_going=keep_going, progress=progress)
    _bring(lock, clones, keep_going=keep_going, progress=progress)
    return lock


def read_fresh_lock(lock_file: Path) -> Lock:
    """Read a lock and make sure that the genome.yaml beside it still says the same.

    Raises:
        GenomeError: no lock, or one that is out of date.
    """
    lock = Lock.read(lock_file)
    sources = lock_file.with_name(lock_file.name.removesuffix(".json").removesuffix(".lock") + ".yaml")
    if sources.exists() and lock.config is not None and config_hash(load_config(sources)) != lock.config:
        raise GenomeError(
            f"{sources.name} was changed after it was locked",
            where=sources,
            fix=f"lock it again: chrysalis-mlx genome lock --sources {sources} --lock {lock_file}",
        )
    return lock


def is_built_from(lock: Lock, genome: Path) -> bool:
    """Whether a genome is whole and its manifest says that it was built from this very lock."""
    try:
        head, _ = read_manifest(manifest_path(genome))
        identity = genome_identity(genome)
    except GenomeError:
        return False
    return (head["lock"], head["genome"]["sha256"]) == (lock.sha256, identity.sha256)


def _locked(
    config: GenomeConfig, base: Path, *, as_written: bool, keep_going: bool = False, progress: Progress
) -> Lock:
    report = lock_sources(config, base, as_written=as_written, progress=progress)
    if not keep_going:
        raise_failures(report.failures, "sources cannot be locked")
    return report.lock


def _bring(lock: Lock, clones: Path, *, keep_going: bool, progress: Progress) -> None:
    if all(pin.kind != "remote" for pin in lock.repositories):
        return
    refuse_inside_source(lock, clones, clones)
    outcomes = clone(lock, clones, progress=progress)
    if not keep_going:
        failed = {item.name: item.reason or "" for item in outcomes if item.outcome == "failed"}
        raise_failures(
            {name: GenomeError(words, where=name) for name, words in failed.items()}, "repositories cannot be cloned"
        )


def _require_sound(lock: Lock, clones: Path, progress: Progress) -> None:
    """Audit the clones, which nobody else should have touched. A checkout is its owner's; only its commit is read."""
    remotes = [pin.name for pin in lock.repositories if pin.kind == "remote"]
    if remotes:
        report = audit(lock, clones, offline=True, only=remotes, progress=progress)
        if report.failed:
            raise GenomeError(
                f"the audit found these clones damaged: {', '.join(report.failed)}",
                where=clones,
                fix="see `chrysalis-mlx genome audit`; remove their folders and run this again",
            )
