"""Which shipped blueprint suits a model and a machine, and why.

A blueprint fits when every rule of its `match` section holds and its rows fit into the model's context. Of those that
fit, the most specific comes first: a rule on the name says more than one on the model_type, then the parameters, base
or instruct, the memory. When none fits, the nearest comes first: what the machine can hold, of the same kind, next in
size. Blueprints without rules are found by their names alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from chrysalis_mlx.blueprint.library import library
from chrysalis_mlx.blueprint.load import load_blueprint
from chrysalis_mlx.blueprint.schema import Blueprint, MatchSection
from chrysalis_mlx.errors import BlueprintError, ModelError
from chrysalis_mlx.models.facts import ModelFacts

_SPECIFIC = ("names", "model_types", "parameters", "variant", "memory")  # what says most comes first
_NEAREST = ("names", "memory", "row_length", "variant")  # when none fits: what matters before the size


@dataclass(frozen=True)
class Match:
    """A blueprint, judged for a model and a machine.

    Attributes:
        name: of the blueprint.
        path: its file.
        fits: every rule holds.
        specificity: how much its rules say, 0 to 31: 16 for names, 8 model_types, 4 parameters, 2 variant, 1 memory.
        reasons: why it fits; or what does not hold, and how near it comes.
    """

    name: str
    path: Path
    fits: bool
    specificity: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Rule:
    """A rule that is set: whether it holds, whom the blueprint is for, and what was found instead."""

    holds: bool
    wanted: str
    found: str

    @property
    def words(self) -> str:
        return self.wanted if self.holds else f"{self.wanted}, not {self.found}"


def rank(facts: ModelFacts, memory_bytes: int, files: Mapping[str, Path] | None = None) -> list[Match]:
    """Every blueprint that has rules, the best first.

    Args:
        facts: of the model.
        memory_bytes: of the machine.
        files: name -> file of the blueprints; None: the shipped ones.

    Raises:
        BlueprintError: one of the files is not a valid blueprint.
    """
    judged = []
    for name, path in (library() if files is None else files).items():
        blueprint = load_blueprint(path)
        rules = _rules(blueprint, facts, memory_bytes)
        if not any(rule in rules for rule in _SPECIFIC):
            continue
        fits = all(rule.holds for rule in rules.values())
        specificity = sum(16 >> place for place, rule in enumerate(_SPECIFIC) if rule in rules)
        octaves = _octaves(blueprint.match, facts.parameters)
        match = Match(name, path, fits, specificity, _reasons(rules, fits))
        if fits:
            closeness: tuple[float, ...] = (-specificity, _width(blueprint.match))
        else:
            missed = {rule for rule in rules if not rules[rule].holds}
            closeness = (*(rule in missed for rule in _NEAREST), octaves, "model_types" in missed, specificity)
        judged.append(((not fits, closeness, name), match))
    return [match for _, match in sorted(judged, key=lambda item: item[0])]


def best_blueprint(facts: ModelFacts, memory_bytes: int) -> Match:
    """The shipped blueprint that comes first for a model on a machine.

    Raises:
        ModelError: the model is too large for the machine, see `too_large`.
        BlueprintError: the package has no blueprint to choose from.
    """
    if problem := too_large(facts, memory_bytes):
        fix = "use a smaller or a quantized model; to try all the same, choose with --blueprint"
        raise ModelError(problem, where=facts.name, fix=fix)
    if not (ranked := rank(facts, memory_bytes)):
        raise BlueprintError("no blueprint comes with the package", fix="name your own with --blueprint")
    first = ranked[0]
    if first.fits:
        return first
    return replace(first, reasons=("none is made for this model and machine, and it comes nearest", *first.reasons))


def too_large(facts: ModelFacts, memory_bytes: int) -> str | None:
    """Why a model cannot be trained here whatever the blueprint; None when it can.

    A rule of thumb: half of the memory for the weights leaves the other half for what training holds of a row, for the
    system and for what else is open.
    """
    if facts.weight_bytes * 2 <= memory_bytes:
        return None
    return (
        f"the model's weights take {_gigabytes(facts.weight_bytes)}, "
        f"more than half of the machine's {_gigabytes(memory_bytes)}"
    )


def _rules(blueprint: Blueprint, facts: ModelFacts, memory_bytes: int) -> dict[str, _Rule]:
    """Every rule that is set, and that on the rows when it does not hold."""
    match, memory = blueprint.match, memory_bytes / 1e9
    rules = {}
    if match.names:
        holds = any(fnmatchcase(facts.name.lower(), pattern.lower()) for pattern in match.names)
        rules["names"] = _Rule(holds, f"for models named {' or '.join(match.names)}", facts.name)
    if match.model_types:
        holds = facts.model_type in match.model_types
        rules["model_types"] = _Rule(holds, f"for the type {' or '.join(match.model_types)}", facts.model_type)
    if match.min_parameters or match.max_parameters is not None:
        span = _span(match.min_parameters, match.max_parameters)
        holds = _octaves(match, facts.parameters) == 0
        rules["parameters"] = _Rule(holds, f"for {span} million parameters", f"{facts.parameters / 1e6:,.0f}")
    if match.variant != "any":
        rules["variant"] = _Rule(facts.variant == match.variant, f"for {match.variant} models", facts.variant)
    if match.min_memory or match.max_memory is not None:
        holds = match.min_memory <= memory and (match.max_memory is None or memory < match.max_memory)
        span = _span(match.min_memory, match.max_memory)
        rules["memory"] = _Rule(holds, f"for {span} GB of memory", f"{memory:,.1f}")
    length, context = blueprint.training.row_length, facts.context_length
    if length > context:
        rules["row_length"] = _Rule(False, f"for contexts of {length:,} tokens or more", f"{context:,}")
    return rules


def _reasons(rules: Mapping[str, _Rule], fits: bool) -> tuple[str, ...]:
    """Why it fits; else what does not hold, and whether the size at least is right."""
    reasons = tuple(rule.words for rule in rules.values() if rule.holds is fits)
    sized = "parameters" in rules and rules["parameters"].holds
    return (*reasons, "of the right size") if sized and not fits else reasons


def _octaves(match: MatchSection, parameters: int) -> float:
    """How often the size must be doubled or halved to lie in the blueprint's range; 0 inside."""
    millions = max(parameters, 1) / 1e6
    if millions < match.min_parameters:
        return math.log2(match.min_parameters / millions)
    if match.max_parameters is not None and millions >= match.max_parameters:
        # The end itself lies outside, by less than any distance that could be told.
        return max(math.log2(millions / match.max_parameters), 1e-9) if match.max_parameters else math.inf
    return 0.0


def _width(match: MatchSection) -> float:
    """Octaves of the range of parameters: of two that fit, the narrower one says more."""
    if not match.min_parameters or match.max_parameters is None:
        return math.inf
    return math.log2(match.max_parameters / match.min_parameters)


def _span(low: float, high: float | None) -> str:
    if high is None:
        return f"{low:,g} or more"
    return f"{low:,g} to {high:,g}" if low else f"less than {high:,g}"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
