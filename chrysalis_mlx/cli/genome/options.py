"""Options that several genome commands share, and where their files lie by default.

The files of a genome lie together: genome.yaml, genome.lock.json, clones/, genome.txt and genome.json.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from chrysalis_mlx.cli.output import say

F = TypeVar("F", bound=Callable[..., Any])


def lock_option(help: str, default: str | None = None) -> Callable[[F], F]:
    """`--lock FILE`, as the parameter `lock_file`."""
    kind = click.Path(path_type=Path, dir_okay=False)
    return click.option("--lock", "lock_file", metavar="FILE", default=default, show_default=True, type=kind, help=help)


locked_option = lock_option("The lock.", default="genome.lock.json")
clones_option = click.option(
    "--clones",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where remotes are cloned to; clones/ beside the lock by default.",
)
offline_option = click.option("--offline", is_flag=True, help="Ask no remote; use what is here.")
jobs_option = click.option(
    "--jobs", default=4, show_default=True, type=click.IntRange(min=1), help="Repositories at once."
)
retries_option = click.option(
    "--retries", default=3, show_default=True, type=click.IntRange(min=0), help="Further tries, after growing pauses."
)
keep_going_option = click.option(
    "--keep-going", is_flag=True, help="Go without a repository that cannot be had; the manifest records it."
)


def genome_beside(lock_file: Path) -> Path:
    """What a lock's genome is called: genome.txt for genome.lock.json."""
    return lock_file.with_name(lock_file.name.removesuffix(".json").removesuffix(".lock") + ".txt")


def show_failures(failures: dict[str, str]) -> None:
    """Print what kept each repository from being had; git's own words may be many lines."""
    for name, reason in failures.items():
        say(f"{name} cannot be had:", *(f"  {line}" for line in reason.splitlines()))
