"""chrysalis-mlx blueprint match: which blueprint suits a model on this machine, and why."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import click

from chrysalis_mlx.cli.options import ModelName
from chrysalis_mlx.cli.output import json_option, out, print_json, say, table

_UNITS = {"": 10**9, "G": 10**9, "GB": 10**9, "GIB": 2**30, "M": 10**6, "MB": 10**6, "MIB": 2**20}


class Memory(click.ParamType[int]):
    """An amount of memory: 16GB, 7.5 GiB, or gigabytes without a unit."""

    name = "memory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip(), re.IGNORECASE)
        if match is None or match[2].upper() not in _UNITS or not float(match[1]):
            self.fail(f"{value!r} is no amount of memory; write 16GB or 15.5GiB", param, ctx)
        return round(float(match[1]) * _UNITS[match[2].upper()])


@click.command(short_help="Rank the blueprints for a model and this machine.")
@click.option("--model", type=ModelName(), required=True, help="A Hugging Face directory, a Hub id or a .gguf file.")
@click.option("--revision", help="Commit, tag or branch of a Hub id.")
@click.option("--memory", type=Memory(), metavar="SIZE", help="For a machine with so much: 16GB. This one by default.")
@json_option
def match(model: str, revision: str | None, memory: int | None, as_json: bool) -> None:
    """Rank the shipped blueprints for a model and this machine's memory, and say why.

    `grow` without --blueprint uses the first. Of a model on the Hub only a few small files are downloaded.

    \b
    Example:
      chrysalis-mlx blueprint match --model Qwen/Qwen3-0.6B --memory 16GB
    """
    from chrysalis_mlx.blueprint.match import rank, too_large
    from chrysalis_mlx.machine import memory_bytes
    from chrysalis_mlx.models.facts import resolve_facts

    facts = resolve_facts(model, revision)
    memory = memory or memory_bytes()
    ranked, problem = rank(facts, memory), too_large(facts, memory)
    if as_json:
        blueprints = [dataclasses.asdict(item) for item in ranked]
        print_json(
            {"model": dataclasses.asdict(facts), "memory_bytes": memory, "too_large": problem, "blueprints": blueprints}
        )
        return
    quantized = f", {facts.bits}-bit" if facts.bits else ""
    say(f"{facts.name} ({facts.model_type}{quantized}): {'; '.join(facts.reasons)}")
    rows = [
        (place, item.name, "yes" if item.fits else "no", "; ".join(item.reasons))
        for place, item in enumerate(ranked, start=1)
    ]
    out().print(table(">", "blueprint", "fits", "why", rows=rows))
    if problem:
        say(f"{problem}: `grow` asks for --blueprint")
