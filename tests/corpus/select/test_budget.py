"""Token budgets."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrysalis_mlx.blueprint.schema import BudgetSection
from chrysalis_mlx.corpus.select.budget import PER_REPOSITORY, TOTAL, Cost, fair_shares, within_budget

COSTS = st.lists(
    st.builds(Cost, st.sampled_from("abc"), st.integers(0, 50), st.just(1.0)).map(
        lambda cost: cost._replace(weight={"a": 1.0, "b": 2.0, "c": 0.5}[cost.repository])
    ),
    max_size=20,
)


def of(repository: str, *tokens: int, weight: float = 1.0, backup: bool = False) -> list[Cost]:
    return [Cost(repository, count, weight, backup) for count in tokens]


def kept(costs: list[Cost], section: BudgetSection) -> dict[str, int]:
    counter: Counter[str] = Counter()
    for cost, rule in zip(costs, within_budget(costs, section), strict=True):
        counter[cost.repository] += cost.tokens if rule is None else 0
    return dict(counter)


def test_without_a_budget_everything_fits() -> None:
    assert within_budget(of("a", 10**9, 1), BudgetSection()) == [None, None]


def test_a_smaller_document_may_fit_where_a_larger_does_not() -> None:
    rules = within_budget([*of("a", 60, 50, 30), *of("b", 100, 1)], BudgetSection(per_repository=100))
    assert rules == [None, PER_REPOSITORY, None, None, PER_REPOSITORY]


def test_the_largest_repository_gives_way() -> None:
    costs = [*of("a", *[10] * 100), *of("b", *[10] * 3), *of("c", *[10] * 5)]
    assert kept(costs, BudgetSection(total=200)) == {"a": 120, "b": 30, "c": 50}


def test_shares_follow_the_weights() -> None:
    costs = [*of("a", *[1] * 500), *of("b", *[1] * 500, weight=3.0)]
    assert kept(costs, BudgetSection(total=400)) == {"a": 100, "b": 300}


def test_backups_get_what_is_left() -> None:
    costs = [*of("a", *[1] * 90), *of("old", *[1] * 90, weight=9.0, backup=True)]
    assert kept(costs, BudgetSection(total=100)) == {"a": 90, "old": 10}
    assert kept(costs, BudgetSection(total=80)) == {"a": 80, "old": 0}


def test_both_budgets() -> None:
    costs = [*of("a", 50, 50), *of("b", 40, 40)]
    rules = within_budget(costs, BudgetSection(total=60, per_repository=60))
    assert rules == [None, PER_REPOSITORY, TOTAL, PER_REPOSITORY]


def test_what_no_share_holds_goes_to_documents_that_fit() -> None:
    assert within_budget([*of("a", 50), *of("b", 50), *of("c", 50)], BudgetSection(total=100)) == [None, None, TOTAL]


@given(COSTS, st.integers(1, 300))
def test_a_total_is_kept_and_used(costs: list[Cost], total: int) -> None:
    rules = within_budget(costs, BudgetSection(total=total))
    used = sum(cost.tokens for cost, rule in zip(costs, rules, strict=True) if rule is None)
    assert used <= total
    assert all(used + cost.tokens > total for cost, rule in zip(costs, rules, strict=True) if rule == TOTAL)


@pytest.mark.parametrize(
    ("wanted", "weights", "shares"),
    [
        ({"a": 10, "b": 100, "c": 1000}, {"a": 1, "b": 1, "c": 1}, {"a": 10, "b": 45, "c": 45}),
        ({"a": 100, "b": 100}, {"a": 1, "b": 4}, {"a": 20, "b": 80}),
        ({"a": 100, "b": 50}, {"a": 1, "b": 4}, {"a": 50, "b": 50}),
        ({"a": 100, "b": 100}, {"a": 0, "b": 1}, {"a": 0, "b": 100}),
        ({"a": 100}, {"a": 0}, {"a": 0}),
        ({}, {}, {}),
    ],
)
def test_fair_shares(wanted: dict[str, int], weights: dict[str, float], shares: dict[str, int]) -> None:
    assert fair_shares(wanted, weights, 100) == shares
