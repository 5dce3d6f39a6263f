"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

run_argument = click.argument("run", type=click.Path(path_type=Path))
backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "mlx", "torch"]),
    default="auto",
    help="auto takes MLX where it imports; a run stays on the backend it began with.",
)


def origin_options(function: F) -> F:
    """Add `--genome`, `--model` and `--blueprint`: what a run is made from."""
    for option in (
        click.option("--blueprint", help="A shipped blueprint's name or a YAML file."),
        click.option("--model", help="A Hugging Face directory, a Hub id or a .gguf file."),
        click.option("--genome", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A genome file."),
    ):
        function = option(function)
    return function
