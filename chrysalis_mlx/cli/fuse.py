"""chrysalis-mlx fuse: from an adapter to files that run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from chrysalis_mlx.cli.options import backend_option, run_argument
from chrysalis_mlx.cli.output import json_option, print_json, progress
from chrysalis_mlx.cli.reports import show_stage


@click.command(name="fuse")
@run_argument
@click.option("--quantize", multiple=True, metavar="TYPE", help="GGUF type (F16, Q8_0, Q4_K_M ...); more than once.")
@backend_option
@json_option
def command(run: Path, quantize: tuple[str, ...], backend: str, as_json: bool) -> None:
    """Merge the adapter into the exact base: RUN/fused, and GGUF files in RUN/export, proved in llama.cpp."""
    from chrysalis_mlx import pipeline
    from chrysalis_mlx.workspace import Workspace

    workspace = Workspace.open(run)
    record = pipeline.fuse(workspace, quantize, backend, progress=partial(progress, quiet=as_json))
    if as_json:
        print_json({"run": run, "stage": "fuse", **record})
    else:
        show_stage("fuse", workspace.run, record)
