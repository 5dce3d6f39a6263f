"""chrysalis-mlx train: adapters for the corpus."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from chrysalis_mlx.cli.options import backend_option, force_option, max_minutes_option, run_argument
from chrysalis_mlx.cli.output import json_option, progress
from chrysalis_mlx.cli.reports import tell


@click.command(name="train")
@run_argument
@backend_option
@max_minutes_option
@force_option
@json_option
def command(run: Path, backend: str, max_minutes: float | None, force: bool, as_json: bool) -> None:
    """Train RUN's adapter on RUN/corpus; goes on from the last checkpoint when it was interrupted or paused.

    Ctrl-C finishes the step under way and saves it; a second Ctrl-C stops at once.

    \b
    Examples:
      chrysalis-mlx train runs/first
      chrysalis-mlx train runs/first --max-minutes 60
    """
    from chrysalis_mlx.library.run import open_run

    opened = open_run(run)
    stage = opened.train(backend, max_minutes=max_minutes, force=force, progress=partial(progress, quiet=as_json))
    if not stage.record["rank"]:  # of several processes the first one speaks
        tell(opened, stage, as_json)
