"""chrysalis-mlx genome show: what a genome holds, in figures."""

from __future__ import annotations

from pathlib import Path

import click

from chrysalis_mlx.cli.options import ModelName
from chrysalis_mlx.cli.output import json_option, out, print_json, say, table
from chrysalis_mlx.genome.text.summary import GenomeSummary, summarize


@click.command("show", short_help="Count what a genome holds.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--model",
    type=ModelName(),
    help="Count tokens with its tokenizer: a Hugging Face directory, a Hub id or a .gguf file.",
)
@json_option
def show(file: Path, model: str | None, as_json: bool) -> None:
    """Count what a genome holds: repositories, files, bytes, tokens, duplicates, the largest files.

    Tokens are a model's own business, so that they are counted when one is named.

    \b
    Example:
      chrysalis-mlx genome show genome.txt --model Qwen/Qwen3-0.6B
    """
    if model is None:
        summary = summarize(file)
    else:
        from chrysalis_mlx.models.source import resolve_tokenizer

        tokenizer = resolve_tokenizer(model)
        summary = summarize(file, lambda text: len(tokenizer.encode(text)))
    if as_json:
        print_json(summary.as_dict())
    else:
        _show(summary)


def _show(summary: GenomeSummary) -> None:
    counted = summary.tokens is not None
    columns = ["repository", ">files", ">bytes", ">share", *([">tokens"] if counted else []), ">duplicates"]
    total = max(summary.content_bytes, 1)
    rows = [
        (
            item.repository,
            item.files,
            item.bytes,
            f"{item.bytes / total:.1%}",
            *([item.tokens] if counted else []),
            f"{item.duplicate_share:.1%}",
        )
        for item in summary.by_repository
    ]
    out().print(table(*columns, rows=rows))
    largest = [(f"{file.repository}/{file.path}", file.bytes) for file in summary.largest]
    out().print(table("largest files", ">bytes", rows=largest))
    facts = {
        "repositories": f"{summary.repositories:,}",
        "files": f"{summary.files:,}, of them {summary.duplicates:,} exact duplicates and {summary.blank:,} blank",
        "bytes": f"{summary.bytes:,}, {summary.duplicate_share:.1%} of the contents exact duplicates",
        "tokens": f"{summary.tokens:,}" if counted else "not counted; --model M counts them with M's tokenizer",
        "sha256": summary.sha256,
    }
    say(*(f" {name:<14}{value}" for name, value in facts.items()))
