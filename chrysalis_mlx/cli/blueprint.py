"""chrysalis-mlx blueprint: what a model is shown, and how it is trained."""

from __future__ import annotations

import click

from chrysalis_mlx.cli.output import json_option, out, print_json, table


@click.group(name="blueprint")
def command() -> None:
    """List, show or check blueprints."""


@command.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the blueprints that come with the package."""
    from chrysalis_mlx.blueprint.library import library
    from chrysalis_mlx.blueprint.load import load_blueprint

    blueprints = [load_blueprint(path) for path in library().values()]
    if as_json:
        print_json({"blueprints": [{"name": item.name, "description": item.description} for item in blueprints]})
    else:
        out().print(table("blueprint", "what it is for", rows=[(item.name, item.description) for item in blueprints]))


@command.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show a blueprint with every default explicit; NAME is a shipped one or a YAML file."""
    from chrysalis_mlx.blueprint.library import find_blueprint
    from chrysalis_mlx.blueprint.load import dump_blueprint, load_blueprint, to_dict

    blueprint = load_blueprint(find_blueprint(name))
    if as_json:
        print_json(to_dict(blueprint))
    else:
        click.echo(dump_blueprint(blueprint), nl=False)


@command.command()
@click.argument("file")
@json_option
def check(file: str, as_json: bool) -> None:
    """Check a blueprint file and tell all its problems at once."""
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
