"""chrysalis-mlx runs: what became of the runs below a directory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from chrysalis_mlx.cli.output import json_option, out, print_json, say, table
from chrysalis_mlx.errors import RunError
from chrysalis_mlx.run import STAGES, Run


@click.command(name="runs")
@click.argument(
    "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default="runs", required=False
)
@json_option
def command(directory: Path, as_json: bool) -> None:
    """List the runs below DIRECTORY (./runs): how far each one is, and why it failed.

    \b
    Example:
      chrysalis-mlx runs ~/experiments
    """
    found = [described(path, directory) for path in find_runs(directory)]
    if as_json:
        print_json({"directory": directory, "runs": found})
    elif not found:
        say(f"there is no run below {directory}")
    else:
        _show(found)


def find_runs(directory: Path) -> Iterator[Path]:
    """Every directory with a run.json, in order; there are no runs inside of runs."""
    for path, folders, files in os.walk(directory):
        folders.sort()
        if "run.json" in files:
            folders.clear()
            yield Path(path)


def described(path: Path, below: Path) -> dict[str, Any]:
    """One run: `name`, `model`, `blueprint`, `stages` done, `state`, `reason`, `step` of `steps`, last losses."""
    told: dict[str, Any] = {"name": path.name if path == below else path.relative_to(below).as_posix(), "path": path}
    try:
        run = Run.open(path)
        state, stage, reason = run.state()
    except RunError as error:
        return told | _nothing() | {"state": "damaged", "reason": error.what}
    return told | {
        "model": run.record.get("model", {}).get("source"),
        "blueprint": run.record.get("blueprint", {}).get("name"),
        "stages": [name for name in STAGES if run.status(name) == "done"],
        "state": state,
        "reason": f"{stage}: {reason}" if reason else None,
        **_training(run),
    }


def _nothing() -> dict[str, Any]:
    names = ("model", "blueprint", "step", "steps", "train_loss", "valid_loss")
    return {**dict.fromkeys(names), "stages": []}


def _training(run: Run) -> dict[str, Any]:
    """How far the training is, from its record and its metrics."""
    from chrysalis_mlx.training.metrics import read_metrics

    stage, file = run.stage("train"), run.path("training", "metrics.jsonl")
    events = read_metrics(file) if stage and file.is_file() else []
    last = {event["kind"]: event for event in events}
    return {
        "step": last["train"]["step"] if "train" in last else (0 if stage else None),
        "steps": stage.get("steps"),
        "train_loss": last.get("train", {}).get("loss"),
        "valid_loss": last.get("valid", {}).get("loss"),
    }


def _show(runs: list[dict[str, Any]]) -> None:
    rows = [
        (
            run["name"],
            Path(run["model"]).name if run["model"] else "",
            run["blueprint"] or "",
            run["stages"][-1] if run["stages"] else "",  # so that the table fits into 80 columns
            run["state"],
            f"{run['step']}/{run['steps']}" if run["steps"] else "",
            _loss(run["train_loss"]),
            _loss(run["valid_loss"]),
        )
        for run in runs
    ]
    out().print(table("run", "model", "blueprint", "done", "state", ">steps", ">train", ">valid", rows=rows))
    failed = [run for run in runs if run["state"] in ("failed", "damaged")]
    if failed:
        say("the archive of failed chrysalides:")
        say(*(f"  {run['name']}: {line}" for run in failed for line in run["reason"].splitlines()))


def _loss(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3f}"
