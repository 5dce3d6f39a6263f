"""chrysalis-mlx genome clone: bring the locked commits."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from chrysalis_mlx.cli.genome.options import (
    clones_option,
    jobs_option,
    locked_option,
    retries_option,
    show_failures,
)
from chrysalis_mlx.cli.output import json_option, out, print_json, progress, say, table
from chrysalis_mlx.genome.build import refuse_inside_source
from chrysalis_mlx.genome.git.clone import clone as clone_all
from chrysalis_mlx.genome.sources.pins import Lock
from chrysalis_mlx.genome.stage import clones_beside


@click.command("clone", short_help="Bring exactly the locked commits.")
@locked_option
@clones_option
@click.option(
    "--offline",
    is_flag=True,
    help="Ask no remote and bring nothing, only say what is here; --retries and --jobs count for nothing then.",
)
@retries_option
@jobs_option
@click.option(
    "--keep-going",
    is_flag=True,
    help="Exit with 0 all the same; `build --keep-going` records what is missing in the manifest.",
)
@json_option
@click.pass_context
def clone(
    ctx: click.Context,
    lock_file: Path,
    clones: Path | None,
    offline: bool,
    retries: int,
    jobs: int,
    keep_going: bool,
    as_json: bool,
) -> None:
    """Clone exactly the locked commits, in parallel; run again, it goes on where it stopped.

    Nothing that a repository holds is run: no hook, no submodule, no filter. Exit status 1 when a repository could not
    be had, unless --keep-going.

    \b
    Example:
      chrysalis-mlx genome clone --jobs 8
    """
    lock, place = Lock.read(lock_file), clones or clones_beside(lock_file)
    refuse_inside_source(lock, place, place)
    outcomes = clone_all(
        lock, place, offline=offline, jobs=jobs, retries=retries, progress=partial(progress, quiet=as_json)
    )
    if as_json:
        print_json({"clones": place, "repositories": [vars(outcome) for outcome in outcomes]})
    else:
        out().print(table("repository", "outcome", rows=[(item.name, item.outcome) for item in outcomes]))
        show_failures({item.name: item.reason or "" for item in outcomes if item.outcome == "failed"})
        kept = sum(outcome.outcome != "failed" for outcome in outcomes)
        say(f"{place}: {kept} of {len(outcomes)} remotes are here")
    if not keep_going and any(outcome.outcome == "failed" for outcome in outcomes):
        ctx.exit(1)
