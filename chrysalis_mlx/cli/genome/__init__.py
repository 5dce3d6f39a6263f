"""`chrysalis-mlx genome`: from repositories to one text that can be proved."""

from __future__ import annotations

import click

from chrysalis_mlx.cli.genome.audit import audit
from chrysalis_mlx.cli.genome.build import build
from chrysalis_mlx.cli.genome.clone import clone
from chrysalis_mlx.cli.genome.diff import diff
from chrysalis_mlx.cli.genome.lock import lock
from chrysalis_mlx.cli.genome.show import show
from chrysalis_mlx.cli.genome.verify import verify


@click.group("genome")
def command() -> None:
    """Lock, clone, audit and build a genome from repositories; verify, show and compare genomes.

    \b
    Example:
      chrysalis-mlx genome lock --sources genome.yaml     # every source at one commit: genome.lock.json
      chrysalis-mlx genome clone                          # exactly these commits, into clones/
      chrysalis-mlx genome audit                          # four levels of proof
      chrysalis-mlx genome build                          # genome.txt and its manifest, genome.json
      chrysalis-mlx genome verify genome.txt --lock genome.lock.json
    """


for _command in (lock, clone, audit, build, verify, show, diff):
    command.add_command(_command)
