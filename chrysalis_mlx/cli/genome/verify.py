"""chrysalis-mlx genome verify: prove a genome."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import click

from chrysalis_mlx.cli.genome.options import lock_option
from chrysalis_mlx.cli.output import json_option, print_json, progress, say
from chrysalis_mlx.genome.sources.pins import Lock
from chrysalis_mlx.genome.stage import clones_beside
from chrysalis_mlx.genome.verify import verify_genome


@click.command("verify", short_help="Prove a genome, byte for byte.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--manifest", metavar="FILE", type=click.Path(path_type=Path), help="Its manifest; the one beside it by default."
)
@lock_option("It must come from this lock, and agree with its repositories.")
@click.option(
    "--clones",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the clones of --lock are; clones/ beside the lock by default.",
)
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    file: Path,
    manifest: Path | None,
    lock_file: Path | None,
    clones: Path | None,
    as_json: bool,
) -> None:
    """Prove a genome against its manifest, byte for byte; with --lock, against its lock and its repositories too.

    Exit status 1 when anything differs, with the list.

    \b
    Examples:
      chrysalis-mlx genome verify genome.txt
      chrysalis-mlx genome verify genome.txt --lock genome.lock.json
    """
    if clones and not lock_file:
        raise click.UsageError("--clones needs --lock: relative locations count from the lock's folder")
    found = verify_genome(
        file,
        manifest,
        clones=clones or (clones_beside(lock_file) if lock_file else None),
        lock=Lock.read(lock_file) if lock_file else None,
        progress=partial(progress, quiet=as_json),
    )
    if as_json:
        print_json(dataclasses.asdict(found))
    elif found.problems:
        say(*found.problems, f"{file}: {len(found.problems):,} differences")
    else:
        sources = "" if found.repositories is None else f" and with {found.repositories} repositories"
        say(f"{file}: {found.files:,} files agree with {found.manifest}{sources}", f"sha256 {found.sha256}")
    if found.problems:
        ctx.exit(1)
