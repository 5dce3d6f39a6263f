"""Arguments and options that several commands share, and what a shell completes them with."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

if typing.TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])


class RunPath(click.Path):
    """The directory of a run; a shell offers the runs that are near."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from chrysalis_mlx.cli.candidates import runs

        return _items("dir", incomplete, runs(incomplete))


class Exported(click.Path):
    """The directory of a run, or a .gguf file."""

    def __init__(self, *, exists: bool = False) -> None:
        super().__init__(exists=exists, path_type=Path)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from chrysalis_mlx.cli.candidates import exported

        return _items("file", incomplete, exported(incomplete))


class _Text(click.ParamType[str]):
    """Any text, for which a shell has something to offer."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value)


class ModelName(_Text):
    """A Hugging Face directory, a .gguf file or a Hub id."""

    name = "model"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from chrysalis_mlx.cli.candidates import models

        return _items("dir", incomplete, models(incomplete))


class BlueprintName(_Text):
    """A shipped blueprint's name or a YAML file."""

    name = "blueprint"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from chrysalis_mlx.cli.candidates import blueprints

        return _items("file", incomplete, blueprints(incomplete))


class TypeName(_Text):
    """The name of a GGUF type."""

    name = "type"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from chrysalis_mlx.cli.candidates import types

        return [CompletionItem(name) for name in types(incomplete)]


def _items(kind: str, incomplete: str, found: Sequence[str]) -> list[CompletionItem]:
    """What was found; where that is nothing the shell's own names of this kind, "dir" or "file"."""
    from click.shell_completion import CompletionItem

    # The order counts: bash forgets what came before a kind.
    return [CompletionItem(incomplete, type=kind), *map(CompletionItem, found)]


run_argument = click.argument("run", type=RunPath())
exported_argument = click.argument("model", metavar="RUN|FILE.gguf", type=Exported())
quantize_option = click.option(
    "--quantize",
    type=TypeName(),
    metavar="TYPE",
    help="Which of the run's GGUFs; without it, the one the Modelfile names.",
)
context_option = click.option(
    "--context", type=click.IntRange(16), metavar="N", help="Tokens; without it the model's, at most 8192."
)
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
            "--blueprint",
            type=BlueprintName(),
            help="A shipped blueprint's name or a YAML file; without it the one that matches the model.",
        ),
        click.option("--model", type=ModelName(), help="A Hugging Face directory, a Hub id or a .gguf file."),
        click.option(
            "--data",
            type=click.Path(exists=True, path_type=Path),
            help="Rows of your own instead of a genome: .jsonl, .json, .csv, .parquet, .txt, or a directory of them.",
        ),
        click.option("--genome", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A genome file."),
    ):
        decorated = option(decorated)
    return typing.cast(F, decorated)
