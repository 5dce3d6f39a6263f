"""chrysalis-mlx blueprint new: a copy to edit."""

from __future__ import annotations

from pathlib import Path

import click

from chrysalis_mlx.cli.options import BlueprintName
from chrysalis_mlx.cli.output import json_option, print_json, say


@click.command(short_help="Copy a blueprint to a file to edit.")
@click.option(
    "--from",
    "origin",
    type=BlueprintName(),
    metavar="NAME",
    required=True,
    help="A shipped blueprint's name or a YAML file.",
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def new(origin: str, file: Path, as_json: bool) -> None:
    """Copy a blueprint with its comments to FILE, under FILE's name; a file that is there stays as it is.

    \b
    Example:
      chrysalis-mlx blueprint new --from qwen3-0.6b own.yaml
    """
    from chrysalis_mlx.blueprint.library import copy_blueprint

    blueprint = copy_blueprint(origin, file)
    if as_json:
        print_json({"file": file, "name": blueprint.name, "from": origin})
    else:
        say(f"{file}: '{blueprint.name}', a copy of {origin}; use it with --blueprint {file}")
