"""chrysalis-mlx push: a run's files and their card in a repository of the Hugging Face Hub."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chrysalis_mlx.cli.options import run_argument
from chrysalis_mlx.cli.output import json_option, out, print_json, progress, say, table

if TYPE_CHECKING:
    from chrysalis_mlx.hub.files import Kind
    from chrysalis_mlx.hub.push import Parcel, Pushed


@click.command(name="push")
@run_argument
@click.argument("repository", metavar="OWNER/NAME")
@click.option(
    "--what",
    type=click.Choice(["gguf", "adapter", "fused"]),
    multiple=True,
    help="What to send, more than once for several; without it the GGUF files and the adapter.",
)
@click.option(
    "--private/--public",
    "private",
    default=None,
    help="Who may see a new repository; without it the Hub decides, and what looks private is not sent.",
)
@click.option("--revision", default="main", show_default=True, metavar="BRANCH", help="Made where it is missing.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of writing to the branch.")
@click.option("--message", metavar="TEXT", help="The commit's first line.")
@click.option("--dry-run", is_flag=True, help="Tell what would be sent, and ask nobody.")
@json_option
def command(
    run: Path,
    repository: str,
    what: tuple[Kind, ...],
    private: bool | None,
    revision: str,
    create_pr: bool,
    message: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send RUN's proved GGUF files, its adapter and a card to OWNER/NAME on the Hugging Face Hub, as one commit.

    Log in once with `hf auth login`, or set HF_TOKEN. An upload that stopped goes on when it is run again.

    \b
    Examples:
      chrysalis-mlx push runs/first me/larva --dry-run
      chrysalis-mlx push runs/first me/larva --private
      chrysalis-mlx push runs/first me/larva-lora --what adapter --public
    """
    from chrysalis_mlx.hub.push import pack, push
    from chrysalis_mlx.run import Run

    parcel = pack(Run.open(run), repository, what, branch=revision, progress=partial(progress, quiet=as_json))
    if not as_json:
        _show_parcel(parcel, dry_run)
    pushed = None
    if not dry_run:
        bars = sys.stderr.isatty() and not as_json
        pushed = push(parcel, private=private, create_pr=create_pr, message=message, bars=bars)
    if as_json:
        print_json({"run": run, **_described(parcel, pushed)})
    elif pushed is not None:
        _show_pushed(parcel, pushed)


def _described(parcel: Parcel, pushed: Pushed | None) -> dict[str, Any]:
    return {
        "repository": parcel.repository,
        "branch": parcel.branch,
        "files": [{"path": file.path, "bytes": file.bytes} for file in parcel.files],
        "bytes": parcel.bytes,
        "front_matter": parcel.front_matter,
        "notes": parcel.notes,
        "looks_private": parcel.private,
        "commands": parcel.commands,
        "pushed": asdict(pushed) if pushed else None,
    }


def _show_parcel(parcel: Parcel, dry_run: bool) -> None:
    """What goes, and what to know, before anything is sent."""
    place = parcel.repository if parcel.branch == "main" else f"{parcel.repository}, branch {parcel.branch}"
    say(f"{'nothing is sent; this would go' if dry_run else 'to be sent'} to {place}:")
    out().print(table("file", ">bytes", rows=[(file.path, file.bytes) for file in parcel.files]))
    say(f"{len(parcel.files)} files, {parcel.bytes:,} bytes")
    if dry_run:
        say("", "the card says to the Hub:", *(f"  {line}" for line in parcel.front_matter.splitlines()), "")
    say(*(f"note: {note}" for note in parcel.notes))
    say(*(f"looks private: {found}" for found in parcel.private))


def _show_pushed(parcel: Parcel, pushed: Pushed) -> None:
    seen = "private" if pushed.private else "public"
    state = f"commit {pushed.commit}" if pushed.changed else f"nothing new since commit {pushed.commit}"
    say(f"{pushed.url}: {seen}, {state}")
    if pushed.pull_request:
        say(f"pull request: {pushed.pull_request}")
    say(*(f"warning of the Hub: {warning}" for warning in pushed.warnings))
    if pushed.others:
        say(f"note: the branch also has files that are not of this push: {', '.join(pushed.others)}")
    if parcel.commands and not pushed.pull_request:
        say("run it:", *(f"  {line}" for line in parcel.commands))
