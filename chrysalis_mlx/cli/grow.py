"""chrysalis-mlx grow: every stage in order."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from chrysalis_mlx.cli.options import backend_option, force_option, max_minutes_option, origin_options, run_argument
from chrysalis_mlx.cli.output import json_option, print_json, progress
from chrysalis_mlx.cli.reports import show_next, show_stage


@click.command(name="grow")
@run_argument
@click.option(
    "--sources",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A genome.yaml, instead of --genome: its repositories are locked, cloned, audited and built first.",
)
@origin_options
@backend_option
@max_minutes_option
@force_option
@json_option
def command(
    run: Path,
    sources: Path | None,
    origin: dict[str, Any],
    backend: str,
    max_minutes: float | None,
    force: bool,
    as_json: bool,
) -> None:
    """Genome, corpus, train, eval and fuse in one go; run again, it skips what is done and goes on where it stopped.

    \b
    Examples:
      chrysalis-mlx grow runs/first --sources genome.yaml --model Qwen/Qwen3-0.6B --blueprint qwen3-0.6b
      chrysalis-mlx grow runs/second --genome g.txt.xz --model Qwen/Qwen3-0.6B
      chrysalis-mlx grow runs/third --data rows.jsonl --model Qwen/Qwen3-0.6B
    """
    from chrysalis_mlx.library.run import begin

    if sources and (origin["genome"] or origin["data"]):
        raise click.UsageError("--sources builds the genome; use it without --genome and --data")
    show = partial(progress, quiet=as_json)
    begun = begin(run, sources=sources, **origin, progress=show)
    records = {}
    for stage in begun.grow(backend, max_minutes=max_minutes, force=force, progress=show):
        records[stage.name] = stage.record
        if not as_json:
            show_stage(stage.name, begun.record, stage.record)
    if as_json:
        print_json({"run": run, "stages": records})
    elif "fuse" in records:
        show_next(run / "export", run)
