"""chrysalis-mlx blueprint list: what comes with the package."""

from __future__ import annotations

import click

from chrysalis_mlx.cli.output import json_option, out, print_json, table


@click.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the blueprints that come with the package.

    \b
    Example:
      chrysalis-mlx blueprint list
    """
    from chrysalis_mlx.blueprint.library import library
    from chrysalis_mlx.blueprint.load import load_blueprint

    blueprints = [load_blueprint(path) for path in library().values()]
    if as_json:
        print_json({"blueprints": [{"name": item.name, "description": item.description} for item in blueprints]})
    else:
        out().print(table("blueprint", "what it is for", rows=[(item.name, item.description) for item in blueprints]))
