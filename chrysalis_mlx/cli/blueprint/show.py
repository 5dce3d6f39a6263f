"""chrysalis-mlx blueprint show: one blueprint, or everything that one can say."""

from __future__ import annotations

import click

from chrysalis_mlx.cli.options import BlueprintName
from chrysalis_mlx.cli.output import json_option, print_json


@click.command(short_help="Show a blueprint, or every field that one can have.")
@click.argument("name", type=BlueprintName(), required=False)
@click.option("--schema", is_flag=True, help="Show every field with type, default, range and meaning instead.")
@json_option
def show(name: str | None, schema: bool, as_json: bool) -> None:
    """Show a blueprint with every default explicit; NAME is a shipped one or a YAML file.

    With --schema, show every field that a blueprint can have, as commented YAML, or with --json as a JSON Schema, which
    editors check and complete a file with.

    \b
    Examples:
      chrysalis-mlx blueprint show qwen3-0.6b
      chrysalis-mlx blueprint show --schema --json > blueprint.schema.json
    """
    if (name is None) != schema:
        raise click.UsageError("give the NAME of a blueprint, or --schema, and not both")
    if name is None:
        from chrysalis_mlx.blueprint.describe import json_schema, schema_text

        print_json(json_schema()) if as_json else click.echo(schema_text(), nl=False)
        return
    from chrysalis_mlx.blueprint.library import find_blueprint
    from chrysalis_mlx.blueprint.load import dump_blueprint, load_blueprint, to_dict

    blueprint = load_blueprint(find_blueprint(name))
    print_json(to_dict(blueprint)) if as_json else click.echo(dump_blueprint(blueprint), nl=False)
