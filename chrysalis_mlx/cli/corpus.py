"""chrysalis-mlx corpus: the texts that a model will be trained on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from chrysalis_mlx.cli.options import origin_options, run_argument
from chrysalis_mlx.cli.output import json_option, print_json, progress
from chrysalis_mlx.cli.reports import show_stage


@click.command(name="corpus")
@run_argument
@origin_options
@json_option
def command(run: Path, genome: Path | None, model: str | None, blueprint: str | None, as_json: bool) -> None:
    """Make train.jsonl, valid.jsonl and test.jsonl in RUN/corpus.

    A new RUN needs --genome and --blueprint, and --model unless the blueprint names one.

    \b
    Example:
      chrysalis-mlx corpus runs/first --genome g.txt.xz --model Qwen/Qwen3-0.6B --blueprint qwen3-0.6b
    """
    from chrysalis_mlx import pipeline
    from chrysalis_mlx.workspace import Workspace

    workspace = Workspace.ensure(run, genome, model, blueprint)
    record = pipeline.corpus(workspace, progress=partial(progress, quiet=as_json))
    if as_json:
        print_json({"run": run, "stage": "corpus", **record})
    else:
        show_stage("corpus", workspace.run, record)
