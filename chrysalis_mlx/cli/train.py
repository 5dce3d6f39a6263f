"""chrysalis-mlx train: adapters for the corpus."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from chrysalis_mlx.cli.options import backend_option, force_option, max_minutes_option, run_argument
from chrysalis_mlx.cli.output import json_option, print_json, progress
from chrysalis_mlx.cli.reports import show_stage


@click.command(name="train")
@run_argument
@backend_option
@max_minutes_option
@force_option
@json_option
def command(run: Path, backend: str, max_minutes: float | None, force: bool, as_json: bool) -> None:
    """Train RUN's adapter on RUN/corpus; goes on from the last checkpoint when it was interrupted or paused.

    Ctrl-C finishes the step under way and saves it; a second Ctrl-C stops at once.
    """
    from chrysalis_mlx.pipeline.train import train
    from chrysalis_mlx.workspace import Workspace

    workspace = Workspace.open(run)
    record = train(workspace, backend, max_minutes=max_minutes, force=force, progress=partial(progress, quiet=as_json))
    if record["rank"]:  # of several processes the first one speaks
        return
    if as_json:
        print_json({"run": run, "stage": "train", **record})
    else:
        show_stage("train", workspace.run, record)
