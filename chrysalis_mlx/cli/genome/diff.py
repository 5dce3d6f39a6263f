"""chrysalis-mlx genome diff: what came, went and changed."""

from __future__ import annotations

from pathlib import Path

import click

from chrysalis_mlx.cli.output import json_option, out, print_json, say, table
from chrysalis_mlx.genome.text.diff import GenomeDiff, RepositoryDiff, diff_genomes

FILES_SHOWN = 20


@click.command("diff", short_help="Compare two genomes.")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@json_option
def diff(before: Path, after: Path, as_json: bool) -> None:
    """Compare two genomes: what came, went, changed and moved, by repository.

    \b
    Example:
      chrysalis-mlx genome diff last-month.txt.xz genome.txt
    """
    found = diff_genomes(before, after)
    if as_json:
        print_json(found.as_dict())
    elif found.identical:
        say(f"the same text, byte for byte: sha256 {found.after.sha256}")
    else:
        _show(found)


def _show(found: GenomeDiff) -> None:
    rows = [
        (
            item.repository,
            item.status,
            len(item.came),
            len(item.went),
            len(item.changed),
            len(item.moved),
            item.unchanged,
        )
        for item in found.by_repository
        if item.differs
    ]
    if rows:
        columns = ("repository", "it", ">came", ">went", ">changed", ">moved", ">unchanged")
        out().print(table(*columns, rows=rows))
    files = [line for item in found.by_repository for line in _files(item)]
    say(*files[:FILES_SHOWN])
    if len(files) > FILES_SHOWN:
        say(f"and {len(files) - FILES_SHOWN:,} more (--json has all of them)")
    if found.reordered or any(item.reordered for item in found.by_repository):
        say("the order of what both have is another one")
    totals = found.totals
    say(
        f"{totals.came:,} files came, {totals.went:,} went, {totals.changed:,} changed, {totals.moved:,} moved, "
        f"{totals.unchanged:,} are unchanged; {found.before.bytes:,} -> {found.after.bytes:,} bytes"
    )


def _files(item: RepositoryDiff) -> list[str]:
    name = item.repository
    return [
        *(f"+ {name}/{file.path}  {file.bytes:,} bytes" for file in item.came),
        *(f"- {name}/{file.path}  {file.bytes:,} bytes" for file in item.went),
        *(f"~ {name}/{file.path}  {file.bytes_before:,} -> {file.bytes_after:,} bytes" for file in item.changed),
        *(f"> {name}/{file.path}  from {file.from_repository}/{file.from_path}" for file in item.moved),
    ]
