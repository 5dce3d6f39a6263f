"""chrysalis-mlx genome audit: four levels of proof."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from chrysalis_mlx.cli.genome.options import clones_option, jobs_option, locked_option, offline_option
from chrysalis_mlx.cli.output import json_option, out, print_json, progress, say, table
from chrysalis_mlx.genome.audit.levels import NAMES, AuditReport, Verdict
from chrysalis_mlx.genome.audit.levels import audit as audit_all
from chrysalis_mlx.genome.sources.pins import Lock
from chrysalis_mlx.genome.stage import clones_beside

EVIDENCE_SHOWN = 10


@click.command("audit", short_help="Examine every repository on four levels.")
@locked_option
@clones_option
@offline_option
@jobs_option
@json_option
@click.pass_context
def audit(ctx: click.Context, lock_file: Path, clones: Path | None, offline: bool, jobs: int, as_json: bool) -> None:
    """Examine every repository on four levels; exit status 1 when one of them fails.

    \b
    L1  the checked-out commit is the locked one; the remote is current, behind or unreachable (no failure)
    L2  git fsck: no object is missing or corrupt
    L3  every tracked file's bytes and mode on disk are those of the index, and there is nothing else
    L4  the tree recomputed from the files on disk is the commit's tree

    \b
    Example:
      chrysalis-mlx genome audit --offline --json
    """
    report = audit_all(
        Lock.read(lock_file),
        clones or clones_beside(lock_file),
        offline=offline,
        jobs=jobs,
        progress=partial(progress, quiet=as_json),
    )
    if as_json:
        print_json(report.as_dict())
    else:
        _show(report)
    if report.failed:
        ctx.exit(1)


def _show(report: AuditReport) -> None:
    rows = [
        (
            item.name,
            item.remote,
            *("-" if verdict.status == "not applicable" else verdict.status for verdict in item.verdicts),
        )
        for item in report.repositories
    ]
    columns = (f"{level} {name}" for level, name in NAMES.items())
    out().print(table("repository", "remote", *columns, rows=rows))
    for item in report.repositories:
        for verdict in item.verdicts:
            if verdict.status == "fail":
                _show_evidence(item.name, verdict)
    sound = len(report.repositories) - len(report.failed)
    say(f"{sound} of {len(report.repositories)} repositories are sound")


def _show_evidence(repository: str, verdict: Verdict) -> None:
    say(f"{repository}, {verdict.level} {verdict.name}:", *(f"  {line}" for line in verdict.evidence[:EVIDENCE_SHOWN]))
    if len(verdict.evidence) > EVIDENCE_SHOWN:
        say(f"  and {len(verdict.evidence) - EVIDENCE_SHOWN:,} more (--json has all of it)")
