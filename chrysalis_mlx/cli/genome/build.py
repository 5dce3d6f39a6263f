"""chrysalis-mlx genome build: write the genome."""

from __future__ import annotations

import dataclasses
from collections import Counter
from functools import partial
from pathlib import Path

import click

from chrysalis_mlx.cli.genome.options import (
    clones_option,
    genome_beside,
    keep_going_option,
    lock_option,
)
from chrysalis_mlx.cli.output import console, json_option, out, print_json, printable, progress, say, table
from chrysalis_mlx.genome.build import BuildReport, build_genome
from chrysalis_mlx.genome.manifest import manifest_path
from chrysalis_mlx.genome.sources.pins import Lock
from chrysalis_mlx.genome.sources.schema import FileRules
from chrysalis_mlx.genome.stage import clones_beside, lock_now, read_fresh_lock

LEFT_OUT_SHOWN = 20


@click.command("build", short_help="Write one text and its manifest.")
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="The genome.")
@lock_option("The lock to build from when no SOURCE is named; genome.lock.json by default.")
@clones_option
@click.option(
    "--include", metavar="GLOB", multiple=True, help="Take these files instead of the text types. Repeatable."
)
@click.option("--exclude", metavar="GLOB", multiple=True, help="Leave these files out. Repeatable.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Largest file taken; 2 MiB by default.")
@click.option("--allow-secrets", is_flag=True, help="Take files in which detect-secrets finds a secret.")
@keep_going_option
@json_option
def build(
    sources: tuple[str, ...],
    output: Path | None,
    lock_file: Path | None,
    clones: Path | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    max_bytes: int | None,
    allow_secrets: bool,
    keep_going: bool,
    as_json: bool,
) -> None:
    """Write the text of every locked repository into one genome, with its manifest beside it (.xz and .gz are packed).

    With SOURCEs (see `genome lock`) these are pinned at once, in this order, and no lock is needed. Of a checkout the
    commit counts, not the work tree. A GLOB with a slash is compared with the path in the repository, one without with
    the file's name.

    \b
    Examples:
      chrysalis-mlx genome build -o genome.txt.xz
      chrysalis-mlx genome build ~/code/notes docs=~/work/handbook -o mine.txt.xz --exclude "*.log"
    """
    quiet = partial(progress, quiet=as_json)
    if sources and output is None:
        raise click.UsageError("with SOURCEs the genome needs a name: -o FILE")
    if sources and lock_file:
        raise click.UsageError("SOURCEs are pinned at once; --lock names repositories that are pinned: use one of them")
    lock_file = lock_file or Path("genome.lock.json")
    output = output or genome_beside(lock_file)
    place = clones or clones_beside(output if sources else lock_file)
    lock = lock_now(sources, place, keep_going=keep_going, progress=quiet) if sources else read_fresh_lock(lock_file)
    lock = _with_rules(lock, include, exclude, max_bytes, allow_secrets)
    report = build_genome(lock, place, output, keep_going=keep_going, progress=quiet)
    if as_json:
        print_json({**dataclasses.asdict(report), "manifest": manifest_path(output)})
    else:
        _show(report, lock.files)


def _with_rules(
    lock: Lock, include: tuple[str, ...], exclude: tuple[str, ...], max_bytes: int | None, allow_secrets: bool
) -> Lock:
    """The lock with what the options say instead of its own rules."""
    files = dataclasses.replace(
        lock.files,
        include=include or lock.files.include,
        exclude=exclude or lock.files.exclude,
        max_bytes=max_bytes or lock.files.max_bytes,
        secrets="keep" if allow_secrets else lock.files.secrets,
    )
    return dataclasses.replace(lock, files=files).at(lock.base)


def _show(report: BuildReport, rules: FileRules) -> None:
    rows = [
        (
            item.repository,
            item.files,
            item.bytes,
            sum(item.left_out.values()),
            (item.commit or "")[:12],
            item.licence or "",
        )
        for item in report.repositories
    ]
    out().print(table("repository", ">files", ">bytes", ">left out", "commit", "licence", rows=rows))
    if report.notable:
        shown = [(repository, path, detail) for repository, path, _, detail in report.notable[:LEFT_OUT_SHOWN]]
        out().print(table("left out of", "file", "because", rows=shown))
        if len(report.notable) > LEFT_OUT_SHOWN:
            more = len(report.notable) - LEFT_OUT_SHOWN
            say(f"and {more:,} more, all in {manifest_path(report.path)}")
    for failure in report.failed:
        line = f"note: without {failure.name}: {failure.reason}"
        console().print(printable(line, lines=True), markup=False, soft_wrap=True)
    empty = [item.repository for item in report.repositories if not item.files]
    if empty:
        types = " ".join(sorted(rules.text + rules.notebook + rules.table))
        console().print(f"note: nothing was taken from {', '.join(empty)}; the types are {types}", markup=False)
    reasons = sum((Counter(item.left_out) for item in report.repositories), Counter[str]())
    if reasons:
        told = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
        say(f"left out: {told}; file by file in {manifest_path(report.path)}")
    if reasons["secret"]:
        say("no secret? put `# pragma: allowlist secret` on its line, or use --allow-secrets")
    say(f"{report.path}: {report.files:,} files, {report.bytes:,} bytes", f"sha256 {report.sha256}")
