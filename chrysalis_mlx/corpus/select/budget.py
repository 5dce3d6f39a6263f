"""How much of each repository fits into the token budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from chrysalis_mlx.blueprint.schema import BudgetSection

PER_REPOSITORY = "budget: per repository"
TOTAL = "budget: total"


class Cost(NamedTuple):
    """What the budget knows of a document. Tokens of its text; the weight is its repository's."""

    repository: str
    tokens: int
    weight: float = 1.0
    backup: bool = False


def within_budget(costs: Sequence[Cost], section: BudgetSection) -> list[str | None]:
    """Why each document is left out; None where it fits.

    `per_repository` takes a repository's documents in their order, passing over those that do not fit any more.
    `total` then gives every repository a fair share, scaled by its weight, or what it has where that is less; backups
    get what live repositories leave. What the shares leave unused goes to documents that still fit, in their order.

    Args:
        costs: of the documents in curriculum order.
    """
    rules: list[str | None] = [None] * len(costs)
    everything = range(len(costs))
    if section.per_repository is not None:
        fitting = _fitting(everything, costs, {cost.repository: section.per_repository for cost in costs})
        rules = [None if number in fitting else PER_REPOSITORY for number in everything]
    if section.total is not None:
        left = [number for number, rule in enumerate(rules) if rule is None]
        fitting = _fitting(left, costs, _allowances([costs[number] for number in left], section.total))
        spare = section.total - sum(costs[number].tokens for number in fitting)
        for number in left:
            if number in fitting:
                continue
            if costs[number].tokens <= spare:
                spare -= costs[number].tokens
            else:
                rules[number] = TOTAL
    return rules


def fair_shares(wanted: Mapping[str, int], weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Divide a total: each gets what it wants or its fair share by weight, whichever is less (max-min fairness)."""
    shares: dict[str, int] = {}
    weight = sum(weights[name] for name in wanted)
    # Who wants the least for its weight comes first: what it leaves is there for the others.
    for name in sorted(wanted, key=lambda name: wanted[name] / weights[name] if weights[name] else float("inf")):
        fair = total * weights[name] / weight if weight > 0 else 0.0
        shares[name] = min(wanted[name], int(fair))
        total -= shares[name]
        weight -= weights[name]
    return shares


def _allowances(costs: Sequence[Cost], total: int) -> dict[str, int]:
    shares: dict[str, int] = {}
    for backup in (False, True):
        wanted: dict[str, int] = {}
        weights: dict[str, float] = {}
        for cost in costs:
            if cost.backup is backup:
                wanted[cost.repository] = wanted.get(cost.repository, 0) + cost.tokens
                weights[cost.repository] = cost.weight
        shares |= fair_shares(wanted, weights, total - sum(shares.values()))
    return shares


def _fitting(numbers: Iterable[int], costs: Sequence[Cost], allowances: Mapping[str, int]) -> set[int]:
    """The documents that fit into their repository's allowance, taken in order."""
    left = dict(allowances)
    fitting = set()
    for number in numbers:
        cost = costs[number]
        if cost.tokens <= left[cost.repository]:
            left[cost.repository] -= cost.tokens
            fitting.add(number)
    return fitting
