"""chrysalis-mlx plan: what a training will take, before it is begun."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import click

from chrysalis_mlx.cli.blueprint.match import Memory
from chrysalis_mlx.cli.options import BlueprintName, ModelName, backend_option
from chrysalis_mlx.cli.output import json_option, out, print_json, say, table

if TYPE_CHECKING:
    from chrysalis_mlx.blueprint.schema import Blueprint
    from chrysalis_mlx.training.memory import Memory as Parts
    from chrysalis_mlx.training.plan import Plan, Speed

_MEANING = {
    "weights": "the base model",
    "adapter": "masters and gradients",
    "optimizer": "its moments",
    "activations": "kept for the backward pass",
    "head": "logits, at the loss",
    "layer": "a layer's own arrays",
    "update": "new values beside the old",
}


@click.command(name="plan")
@click.option(
    "--model", type=ModelName(), help="A Hugging Face directory, a Hub id or a .gguf file; by default the blueprint's."
)
@click.option("--revision", help="Commit, tag or branch of a Hub id.")
@click.option(
    "--blueprint",
    type=BlueprintName(),
    help="A shipped blueprint's name or a YAML file; by default the one that matches.",
)
@click.option("--memory", type=Memory(), metavar="SIZE", help="For a machine with so much: 16GB. This one by default.")
@click.option("--device", type=click.Choice(["cpu", "gpu"]), help="What MLX computes on. Of this machine by default.")
@backend_option
@click.option(
    "--measure/--no-measure", default=True, help="Take two real steps for the time, where the weights are here."
)
@json_option
def command(
    model: str | None,
    revision: str | None,
    blueprint: str | None,
    memory: int | None,
    device: Any,
    backend: str,
    measure: bool,
    as_json: bool,
) -> None:
    """Tell what a training will take: memory, part by part, and time; and the largest settings that fit.

    Memory is predicted for MLX. Of a model on the Hub only a few small files are downloaded.

    \b
    Examples:
      chrysalis-mlx plan --model Qwen/Qwen3-0.6B --blueprint qwen3-0.6b
      chrysalis-mlx plan --blueprint qwen3-4b-qlora --memory 16GB --device gpu
    """
    from chrysalis_mlx import machine
    from chrysalis_mlx.training import plan as planning

    memory = memory or machine.memory_bytes()
    chosen, source = _chosen(blueprint, model, revision, memory)
    base = planning.Base.locate(source, revision or chosen.model.revision)
    name = machine.choose_backend(backend).name
    here = planning.mlx_device() if name == "mlx" else None
    plan = planning.make_plan(base, chosen, device or here, memory) if here else None
    speed = planning.measure(base, chosen, name) if measure and base.is_here and device in (None, here) else None
    if as_json:
        print_json(_report(chosen, source, name, memory, plan, speed))
        return
    section, adapter = chosen.training, chosen.adapter
    say(
        f"{source}, blueprint {chosen.name}: {adapter.kind} of rank {adapter.rank}, {section.steps:,} steps of "
        f"{section.gradient_accumulation} x {section.batch_size} rows of {section.row_length:,} tokens"
    )
    if plan:
        _show(plan, chosen, memory)
    else:
        say("memory: predicted for MLX alone")
    say(_time(speed, base.is_here))


def _chosen(name: str | None, model: str | None, revision: str | None, memory: int) -> tuple[Blueprint, str]:
    """The blueprint, and the source of the model."""
    from chrysalis_mlx.blueprint.library import find_blueprint
    from chrysalis_mlx.blueprint.load import load_blueprint
    from chrysalis_mlx.blueprint.match import best_blueprint
    from chrysalis_mlx.models.facts import resolve_facts

    if name is None:
        if model is None:
            raise click.UsageError("name a --model, a --blueprint that names one, or both")
        name = best_blueprint(resolve_facts(model, revision), memory).name
    blueprint = load_blueprint(find_blueprint(name))
    source = model or blueprint.model.source
    if source is None:
        raise click.UsageError(f"the blueprint {blueprint.name} names no model; add --model")
    return blueprint, source


def _show(plan: Plan, blueprint: Blueprint, memory: int) -> None:
    from chrysalis_mlx.training.plan import gigabytes, remedy

    parts = dataclasses.asdict(plan.memory)
    rows = [(name, gigabytes(size), _MEANING[name], _counts(plan.memory, name)) for name, size in parts.items()]
    rows.append(("peak", gigabytes(plan.memory.peak), f"{gigabytes(plan.usable)} may be used", ""))
    out().print(table(f"memory, MLX on {plan.device}", ">size", "of", "in the peak", rows=rows))
    verdict = "it fits" if plan.fits else f"it does not fit: {remedy(plan, blueprint)}"
    say(f"{verdict} (a training may use {plan.usable / memory:.0%} of {gigabytes(memory)})")
    section, fit = blueprint.training, plan.fit
    largest = [
        ("training.row_length", section.row_length, _or_none(fit.row_length)),
        ("training.batch_size", section.batch_size, _or_none(fit.batch_size)),
        ("adapter.rank", blueprint.adapter.rank, _or_none(fit.rank)),
    ]
    out().print(table("setting", ">blueprint", ">largest that fits, all else unchanged", rows=largest))
    if not plan.fits and not fit.checkpointing:
        say("gradient_checkpointing alone would not make it fit")


def _counts(parts: Parts, name: str) -> str:
    """Whether a part is in the peak: of those that are there at different moments only the larger ones are."""
    if name in ("weights", "adapter", "optimizer"):
        return "yes"
    backward = parts.activations + max(parts.head, parts.layer) >= parts.update
    larger = "head" if parts.head >= parts.layer else "layer"
    return "yes" if name in (("activations", larger) if backward else ("update",)) else "no"


def _or_none(value: int | None) -> int | str:
    return "none" if value is None else value


def _time(speed: Speed | None, is_here: bool) -> str:
    from chrysalis_mlx.cli.output import duration

    if speed is None:
        why = "not measured" if is_here else "not known: the model's weights are not here"
        return f"time: {why}"
    return f"time: {speed.tokens_per_second:,.0f} tokens/s in a short step; {duration(speed.seconds)} for all steps"


def _report(
    blueprint: Blueprint, source: str, backend: str, memory: int, plan: Plan | None, speed: Speed | None
) -> dict[str, Any]:
    return {
        "model": os.fspath(source),
        "blueprint": blueprint.name,
        "backend": backend,
        "device": plan.device if plan else None,
        "memory_bytes": memory,
        "usable_bytes": plan.usable if plan else None,
        "memory": dataclasses.asdict(plan.memory) | {"peak": plan.memory.peak} if plan else None,
        "fits": plan.fits if plan else None,
        "largest": dataclasses.asdict(plan.fit) if plan else None,
        "time": dataclasses.asdict(speed) if speed else None,
    }
