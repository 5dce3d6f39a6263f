"""chrysalis-mlx eval: what the training changed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from chrysalis_mlx.cli.options import backend_option, run_argument
from chrysalis_mlx.cli.output import json_option, progress
from chrysalis_mlx.cli.reports import tell


@click.command(name="eval")
@run_argument
@backend_option
@json_option
def command(run: Path, backend: str, as_json: bool) -> None:
    """Measure what the training changed: the base, the tuned model and every exported file on the same texts.

    Perplexity on held-out texts and on general English, copies from the corpus, and answers to fixed prompts. Run it
    again after `fuse` to measure the new files alone; interrupted, it goes on where it stopped.

    \b
    Example:
      chrysalis-mlx eval runs/first
    """
    from chrysalis_mlx.library.run import open_run

    opened = open_run(run)
    tell(opened, opened.evaluate(backend, progress=partial(progress, quiet=as_json)), as_json)
