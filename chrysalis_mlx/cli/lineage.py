"""chrysalis-mlx lineage: where a model comes from, and whether that is true."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chrysalis_mlx.cli.options import Exported, RunPath
from chrysalis_mlx.cli.output import json_option, print_json, progress, say
from chrysalis_mlx.errors import ChrysalisError, UsageError

if TYPE_CHECKING:
    from chrysalis_mlx.export.lineage.proof import Check
    from chrysalis_mlx.run import Run

_SHOWN = 12  # repositories


@click.command("lineage", short_help="Tell where an exported model comes from, and prove it.")
@click.argument("target", metavar="FILE.gguf|RUN", type=Exported(exists=True))
@click.option("--run", "run_directory", metavar="RUN", type=RunPath(), help="The run that FILE is said to be of.")
@json_option
@click.pass_context
def command(ctx: click.Context, target: Path, run_directory: Path | None, as_json: bool) -> None:
    """Print what a GGUF says of its model, adapter, training and genome.

    With the run at hand (FILE in RUN/export, --run, or RUN itself) every recorded hash is compared with what lies on
    the disk. Exit status 1 when anything differs.

    \b
    Examples:
      chrysalis-mlx lineage runs/one
      chrysalis-mlx lineage model-Q4_K_M.gguf --run runs/one
    """
    from chrysalis_mlx.export.lineage.proof import prove_run

    run, file = _found(target, run_directory)
    keys, problem = _keys(file, run)
    checks = prove_run(run, file, progress=partial(progress, quiet=as_json)) if run else []
    differs = any(check.state == "differs" for check in checks)
    if as_json:
        proof = {"run": run.directory, "checks": [dataclasses.asdict(check) for check in checks]} if run else None
        print_json({"target": target, "keys": keys, "problem": problem, "proof": proof})
    else:
        _show(target, file, keys, problem)
        _show_proof(checks)
    if differs:
        ctx.exit(1)


def _found(target: Path, run_directory: Path | None) -> tuple[Run | None, Path | None]:
    """The run at hand and the file, of which one may be missing."""
    from chrysalis_mlx.export.lineage.proof import run_of
    from chrysalis_mlx.run import Run

    if target.is_dir():
        if run_directory is not None:
            raise UsageError("--run goes with a file", where=target, fix="name the run alone, or a .gguf file of it")
        return Run.open(target), None
    return Run.open(run_directory) if run_directory else run_of(target), target


def _keys(file: Path | None, run: Run | None) -> tuple[dict[str, Any], str | None]:
    """What the file says, or what the run would write into one; and why the run cannot tell."""
    from chrysalis_mlx.export.lineage.lineage import Lineage, metadata
    from chrysalis_mlx.gguf.keys import read_keys

    if file is not None:
        return {
            name: value for name, value in read_keys(file).items() if name.startswith(("general.", "chrysalis."))
        }, None
    assert run is not None
    try:
        return dict(metadata(Lineage.of_run(run))), None
    except ChrysalisError as error:
        return {}, str(error)


def _show(target: Path, file: Path | None, keys: Mapping[str, Any], problem: str | None) -> None:
    if problem is not None:
        say(f"{target}: its lineage cannot be told", *(f"  {line}" for line in problem.splitlines()))
    elif file is not None and not any(name.startswith("chrysalis.") for name in keys):
        say(f"{target}: chrysalis-mlx did not write this file; it has no chrysalis.* keys")
        say(*(f"  {name}: {_value(value)}" for name, value in keys.items()))
    else:
        say(str(target), *_drawn(_branches(keys)))


_Branch = tuple[str, Sequence[str]]


def _branches(keys: Mapping[str, Any]) -> Iterator[_Branch]:
    """Model, adapter, training, blueprint, material: a line, and the lines below it."""

    def ours(*names: str) -> list[str]:
        found = [(name, keys.get(f"chrysalis.{name}")) for name in names]
        return [
            f"{name.split('.')[-1].replace('_', ' ')} {_value(value)}" for name, value in found if value is not None
        ]

    name, by = keys.get("general.name"), keys.get("general.quantized_by")
    yield f"{name}, written by {by}" if by else f"{name}", ours("created", "seed", "backend")
    base = [f"licence {keys['general.license']}"] if "general.license" in keys else ["licence not known"]
    yield (
        f"model {keys.get('chrysalis.model.source')}",
        [*ours("model.revision", "model.sha256"), *base, *keys.get("chrysalis.model.files", [])],
    )
    if "chrysalis.adapter.kind" in keys:
        kind = ", ".join([keys["chrysalis.adapter.kind"], *ours("adapter.rank", "adapter.alpha")])
        yield f"adapter {kind}", [*ours("adapter.sha256"), *keys.get("chrysalis.adapter.files", [])]
    training = [key.removeprefix("chrysalis.") for key in keys if key.startswith("chrysalis.training.")]
    if training:
        yield "training", ours(*training)
    if "chrysalis.blueprint.name" in keys:
        yield f"blueprint {keys['chrysalis.blueprint.name']}", ours("blueprint.sha256")
    for what in ("genome", "data", "history"):
        if f"chrysalis.{what}.sha256" in keys:
            lock = keys.get("chrysalis.genome.lock", []) if what == "genome" else []
            more = [f"and {len(lock) - _SHOWN:,} more; --json names all"] if len(lock) > _SHOWN else []
            yield what, [*ours(f"{what}.sha256", f"{what}.manifest"), *lock[:_SHOWN], *more]


def _drawn(branches: Iterator[_Branch]) -> Iterator[str]:
    drawn = list(branches)
    for number, (line, below) in enumerate(drawn):
        last = number == len(drawn) - 1
        yield f"{'└──' if last else '├──'} {line}"
        for place, leaf in enumerate(below):
            yield f"{'   ' if last else '│  '} {'└──' if place == len(below) - 1 else '├──'} {leaf}"


def _show_proof(checks: Sequence[Check]) -> None:
    """A line for each check, and both hashes where they are not the same."""
    if not checks:
        return
    say("")
    for check in checks:
        note = f"  ({check.note})" if check.note else ""
        same = f"  {check.found}" if check.state == "ok" and check.found else ""
        say(f"{check.state:8}{check.what}{same}{note}")
        if check.state != "ok":
            told = (("recorded", check.expected), ("found", check.found))
            say(*(f"{'':8}  {what:9}{value}" for what, value in told if value is not None))
    count = Counter[str](check.state for check in checks)
    words = {"differs": "differ", "missing": "cannot be proved"}
    rest = [f"{count[state]} {word}" for state, word in words.items() if count[state]]
    say(", ".join([f"{count['ok']} of {len(checks)} agree", *rest]))


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
