"""Options that several commands share."""

from __future__ import annotations

import functools
import typing
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
max_minutes_option = click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Pause the training at a checkpoint after so many minutes; the same command goes on.",
)
force_option = click.option("--force", is_flag=True, help="Train even if `plan` says that the memory is too small.")


def origin_options(function: F) -> F:
    """Add `--genome`, `--data`, `--model` and `--blueprint`, as the parameter `origin`.

    It is what `library.run.begin` takes by name.
    """

    @functools.wraps(function)
    def with_origin(*args: Any, **kwargs: Any) -> Any:
        names = ("genome", "data", "model", "blueprint")
        return function(*args, origin={name: kwargs.pop(name) for name in names}, **kwargs)

    decorated: Any = with_origin
    for option in (
        click.option(
            "--blueprint", help="A shipped blueprint's name or a YAML file; without it the one that matches the model."
        ),
        click.option("--model", help="A Hugging Face directory, a Hub id or a .gguf file."),
        click.option(
            "--data",
            type=click.Path(exists=True, path_type=Path),
            help="Rows of your own instead of a genome: .jsonl, .json, .csv, .parquet, .txt, or a directory of them.",
        ),
        click.option("--genome", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A genome file."),
    ):
        decorated = option(decorated)
    return typing.cast(F, decorated)
