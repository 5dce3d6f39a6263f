"""`chrysalis-mlx blueprint`: what a model is shown, and how it is trained."""

from __future__ import annotations

import click

from chrysalis_mlx.cli.blueprint.check import check
from chrysalis_mlx.cli.blueprint.list import list_
from chrysalis_mlx.cli.blueprint.match import match
from chrysalis_mlx.cli.blueprint.new import new
from chrysalis_mlx.cli.blueprint.show import show


@click.group(name="blueprint")
def command() -> None:
    """List the shipped blueprints, find the one for a model, copy, show or check one.

    \b
    Example:
      chrysalis-mlx blueprint match --model Qwen/Qwen3-0.6B      # which one suits it here, and why
      chrysalis-mlx blueprint new --from qwen3-0.6b own.yaml     # a copy to edit
      chrysalis-mlx blueprint show --schema                      # every field, with its default and meaning
      chrysalis-mlx blueprint check own.yaml
    """


for _command in (list_, match, show, new, check):
    command.add_command(_command)
