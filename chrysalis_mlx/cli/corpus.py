"""chrysalis-mlx corpus: the texts that a model will be trained on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from chrysalis_mlx.cli.options import origin_options, run_argument
from chrysalis_mlx.cli.output import json_option, print_json, progress
from chrysalis_mlx.cli.reports import tell


class _BuildUnlessNamed(click.Group):
    """A group in which `corpus RUN` is `corpus build RUN`, as `train RUN` and the other stages are written."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["build", *args])


# An option that is not the group's own is one of `build`, so that it may stand before RUN as with every other stage.
@click.group(name="corpus", cls=_BuildUnlessNamed, context_settings={"ignore_unknown_options": True})
def command() -> None:
    """Make the training texts of a run, or look at them. `corpus RUN` makes them.

    \b
    Examples:
      chrysalis-mlx corpus runs/first --genome g.txt.xz --model Qwen/Qwen3-0.6B
      chrysalis-mlx corpus show runs/first
    """


@command.command()
@run_argument
@origin_options
@json_option
def build(run: Path, origin: dict[str, Any], as_json: bool) -> None:
    """Make train.jsonl, valid.jsonl and test.jsonl in RUN/corpus.

    A new RUN needs --genome or --data, and --model unless the blueprint names one.

    \b
    Example:
      chrysalis-mlx corpus build runs/first --genome g.txt.xz --model Qwen/Qwen3-0.6B
    """
    from chrysalis_mlx.library.run import begin

    begun = begin(run, **origin)
    tell(begun, begun.make_corpus(progress=partial(progress, quiet=as_json)), as_json)


@command.command()
@run_argument
@click.option("--rows", default=3, show_default=True, type=click.IntRange(min=0), help="How many rows to draw.")
@click.option(
    "--side",
    default="train",
    show_default=True,
    type=click.Choice(["train", "valid", "test"]),
    help="Whose rows to look at.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Which rows these are.")
@click.option("--framing", help="Only rows framed this way, such as chat, or of this form of your own data.")
@click.option("--path", help="Only rows whose REPOSITORY/PATH matches this glob.")
@click.option("--files", is_flag=True, help="Tell for every file whether it is in, by which rule, with its score.")
@json_option
def show(
    run: Path, rows: int, side: str, seed: int, framing: str | None, path: str | None, files: bool, as_json: bool
) -> None:
    """Show RUN's corpus as the model will see it.

    What is in by repository and what is out by rule; how long the rows are and what was cut; and some rows token by
    token, the chat template applied, with marks around what is learned.

    \b
    Examples:
      chrysalis-mlx corpus show runs/first --framing chat --rows 2
      chrysalis-mlx corpus show runs/first --rows 0 --files --path 'notes/*'
    """
    from chrysalis_mlx.batches.rows import read_rows
    from chrysalis_mlx.cli.corpus_show import as_json as plain
    from chrysalis_mlx.cli.corpus_show import show as print_view
    from chrysalis_mlx.cli.corpus_view import look
    from chrysalis_mlx.corpus.write import read_account
    from chrysalis_mlx.workspace import Workspace

    workspace = Workspace.open(run)
    workspace.run.output_hashes("corpus")  # whole, as it was made
    found = read_rows(workspace.run.path("corpus", f"{side}.jsonl"))
    view = look(side, found, workspace.model.tokenizer, count=rows, seed=seed, framing=framing, path=path)
    account = read_account(workspace.run.path("corpus", "expression.json"))
    if as_json:
        print_json({"run": run, **plain(view, account, files=files, path=path)})
    else:
        print_view(view, account, files=files, path=path)
