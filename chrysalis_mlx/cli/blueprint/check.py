"""chrysalis-mlx blueprint check: all problems of a file at once."""

from __future__ import annotations

import click

from chrysalis_mlx.cli.options import BlueprintName
from chrysalis_mlx.cli.output import json_option, out, print_json


@click.command()
@click.argument("file", type=BlueprintName())
@json_option
def check(file: str, as_json: bool) -> None:
    """Check a blueprint file and tell all its problems at once.

    \b
    Example:
      chrysalis-mlx blueprint check own.yaml
    """
    from chrysalis_mlx.blueprint.library import find_blueprint
    from chrysalis_mlx.blueprint.load import load_blueprint
    from chrysalis_mlx.errors import BlueprintError

    try:
        blueprint = load_blueprint(find_blueprint(file))
    except BlueprintError as error:
        if as_json:
            print_json({"file": file, "valid": False, "error": error.what, "problems": list(error.problems)})
        raise
    if as_json:
        print_json({"file": file, "valid": True, "problems": []})
    else:
        out().print(f"{file}: a valid blueprint, '{blueprint.name}'", markup=False)
