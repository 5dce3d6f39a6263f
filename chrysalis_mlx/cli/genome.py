"""`chrysalis-mlx genome`: build a genome from repositories, or show one."""

from __future__ import annotations

from pathlib import Path

import click

from chrysalis_mlx.cli.output import console, json_option, out, print_json, table
from chrysalis_mlx.genome.build import build_genome, manifest_path
from chrysalis_mlx.genome.sources import MAX_BYTES, TEXT_TYPES, Selection, parse_sources
from chrysalis_mlx.genome.summary import summarize

LEFT_OUT_SHOWN = 20


@click.group("genome")
def command() -> None:
    """Build a genome from repositories, or show one."""


@command.command("build")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--include", metavar="GLOB", multiple=True, help="Take these files instead of the text types. Repeatable."
)
@click.option("--exclude", metavar="GLOB", multiple=True, help="Leave these files out. Repeatable.")
@click.option(
    "--max-bytes", default=MAX_BYTES, show_default=True, type=click.IntRange(min=1), help="Largest file taken."
)
@json_option
def build(
    sources: tuple[str, ...],
    output: Path,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    max_bytes: int,
    as_json: bool,
) -> None:
    """Write the text of each SOURCE, in this order, into one genome FILE (.xz and .gz are packed).

    A SOURCE is a directory or a git checkout, of which the tracked files count; NAME=PATH gives it another name.
    A GLOB with a slash is compared with the path in the source, one without with the file's name.
    """
    report = build_genome(parse_sources(sources), output, Selection(include, exclude, max_bytes))
    if as_json:
        print_json(report.as_dict())
        return
    rows = [
        (item.repository, item.files, item.bytes, item.not_selected, _commit(item.commit, item.dirty))
        for item in report.by_repository
    ]
    out().print(table("repository", ">files", ">bytes", ">other files", "commit", rows=rows))
    if report.left_out:
        left_out = [(item.repository, item.path, item.reason) for item in report.left_out]
        out().print(table("left out of", "file", "because", rows=left_out[:LEFT_OUT_SHOWN]))
        if len(left_out) > LEFT_OUT_SHOWN:
            out().print(f"and {len(left_out) - LEFT_OUT_SHOWN:,} more, all in {manifest_path(output)}", markup=False)
    out().print(f"{output}: {report.files:,} files, {report.bytes:,} bytes", markup=False, soft_wrap=True)
    out().print(f"sha256 {report.sha256}", soft_wrap=True)
    empty = [item.repository for item in report.by_repository if not item.files]
    if empty:
        types = " ".join(sorted(TEXT_TYPES))
        console().print(f"note: nothing was taken from {', '.join(empty)}; the types are {types}", markup=False)


@command.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def show(file: Path, as_json: bool) -> None:
    """Count what a genome FILE holds."""
    summary = summarize(file)
    if as_json:
        print_json(summary.as_dict())
        return
    total = max(summary.content_bytes, 1)
    rows = [(item.repository, item.files, item.bytes, f"{item.bytes / total:.1%}") for item in summary.by_repository]
    out().print(table("repository", ">files", ">bytes", ">share", rows=rows))
    longest = summary.longest
    facts = {
        "repositories": f"{summary.repositories:,}",
        "files": f"{summary.files:,}, of them {summary.duplicates:,} exact duplicates and {summary.blank:,} blank",
        "bytes": f"{summary.bytes:,}",
        "longest file": f"{longest.repository}/{longest.path}, {longest.characters:,} characters",
        "sha256": summary.sha256,
    }
    for name, value in facts.items():
        out().print(f" {name:<14}{value}", markup=False, soft_wrap=True)


def _commit(commit: str | None, dirty: bool | None) -> str:
    return "" if commit is None else f"{commit[:12]}{' and changes' if dirty else ''}"
