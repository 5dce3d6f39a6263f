"""chrysalis-mlx genome lock: pin every source."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from chrysalis_mlx.cli.genome.options import (
    jobs_option,
    keep_going_option,
    lock_option,
    offline_option,
    retries_option,
    show_failures,
)
from chrysalis_mlx.cli.output import console, json_option, out, print_json, progress, table
from chrysalis_mlx.errors import GenomeError, UsageError
from chrysalis_mlx.genome.build import refuse_lock_inside_directory
from chrysalis_mlx.genome.sources.find import config_of, load_config
from chrysalis_mlx.genome.sources.lock import LockReport, lock_sources, raise_failures
from chrysalis_mlx.genome.sources.pins import Lock
from chrysalis_mlx.genome.stage import lock_beside


@click.command("lock", short_help="Pin every source at one commit.")
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option(
    "--sources",
    "sources_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A genome.yaml; genome.yaml here by default, when no SOURCE is named.",
)
@lock_option("The lock to write; genome.lock.json by default, beside the genome.yaml.")
@offline_option
@retries_option
@jobs_option
@keep_going_option
@json_option
def lock(
    sources: tuple[str, ...],
    sources_file: Path | None,
    lock_file: Path | None,
    offline: bool,
    retries: int,
    jobs: int,
    keep_going: bool,
    as_json: bool,
) -> None:
    """Resolve every source to a commit, in genome.lock.json.

    A SOURCE is a git URL, a checkout, a plain directory, or readme:URL-or-FILE#OWNER, which stands for every repository
    of that owner in the Markdown tables of a document. #REF after a URL or a checkout names a branch or tag; NAME= in
    front gives it another name in the genome. The lock cannot lie inside of a plain directory that it pins.

    \b
    Examples:
      chrysalis-mlx genome lock --sources genome.yaml
      chrysalis-mlx genome lock https://github.com/me/notes docs=~/work/handbook#v2
    """
    if sources and sources_file:
        raise UsageError("both SOURCEs and --sources name what to lock", fix="use one of them")
    file = sources_file or Path("genome.yaml")
    lock_file = lock_file or lock_beside(file)
    config, base = (config_of(sources), Path.cwd()) if sources else (load_config(file), file.absolute().parent)
    if not sources and base != lock_file.absolute().parent:
        raise UsageError(
            "a lock lies beside its genome.yaml: relative paths count from there",
            where=lock_file,
            fix=f"--lock {file.parent / lock_file.name}",
        )
    previous = _previous(lock_file)
    report = lock_sources(
        config,
        base,
        as_written=bool(sources),
        previous=previous,
        offline=offline,
        retries=retries,
        jobs=jobs,
        progress=partial(progress, quiet=as_json),
    )
    if not keep_going:
        raise_failures(report.failures, "sources cannot be locked")
    refuse_lock_inside_directory(report.lock, lock_file)
    report.lock.write(lock_file)
    if as_json:
        print_json({"path": lock_file, "notes": report.notes, "lock": report.lock.as_dict()})
    else:
        _show(report, previous, lock_file)


def _previous(lock_file: Path) -> Lock | None:
    """The lock that is replaced; one that cannot be read is replaced all the same."""
    try:
        return Lock.read(lock_file)
    except GenomeError:
        return None


def _show(report: LockReport, previous: Lock | None, lock_file: Path) -> None:
    before = {pin.name: pin.commit or pin.tree or "" for pin in previous.repositories} if previous else {}
    rows: list[tuple[str, ...]] = []
    for pin in report.lock.repositories:
        now = pin.commit or pin.tree or ""
        was = before.get(pin.name, now)
        ref = (pin.ref or "").removeprefix("refs/heads/").removeprefix("refs/")
        state = now[:12] if was == now else f"{was[:12]} -> {now[:12]}"
        rows.append((pin.name, pin.kind, ref, state, report.notes.get(pin.name, "")))
    out().print(table("repository", "kind", "ref", "commit or tree", "note", rows=rows))
    show_failures({failure.name: failure.reason for failure in report.lock.failed})
    gone = sorted(before.keys() - {pin.name for pin in report.lock.repositories})
    if gone:
        console().print(f"no longer locked: {', '.join(gone)}", markup=False)
    out().print(f"{lock_file}: {len(report.lock.repositories)} repositories", markup=False, soft_wrap=True)
