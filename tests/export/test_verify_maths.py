"""The measures of the gate: divergence, positions, lines, budgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.export.verify import BUDGETS, _failures, divergence, held_out_positions, sample_lines
from chrysalis_mlx.gguf.quantize import TYPES


def log_softmax(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.asarray(values - np.logaddexp.reduce(values))


def distributions(seed: int, size: int = 50) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    p = 3 * rng.standard_normal(size)
    return log_softmax(p), log_softmax(p + 0.3 * rng.standard_normal(size))


def top(log_q: npt.NDArray[np.float64], count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    ids = np.argsort(-log_q)[:count]
    return ids, log_q[ids].astype(np.float32)


@given(st.integers(0, 1000))
@settings(max_examples=30)
def test_over_the_whole_vocabulary_it_is_the_divergence(seed: int) -> None:
    log_p, log_q = distributions(seed)
    exact = float((np.exp(log_p) * (log_p - log_q)).sum())
    assert divergence(log_p, *top(log_q, 50)) == pytest.approx(exact, abs=1e-6)


@given(st.integers(0, 1000), st.integers(1, 49))
@settings(max_examples=30)
def test_with_one_bucket_for_the_rest_it_is_a_lower_bound(seed: int, count: int) -> None:
    """Log-sum inequality: joining outcomes never raises a divergence."""
    log_p, log_q = distributions(seed)
    exact = float((np.exp(log_p) * (log_p - log_q)).sum())
    assert -1e-6 <= divergence(log_p, *top(log_q, count)) <= exact + 1e-6


def test_the_bucket_counts() -> None:
    log_p, log_q = np.log([0.5, 0.25, 0.25]), np.log([0.25, 0.5, 0.25])
    expected = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    assert divergence(log_p, *top(log_q, 1)) == pytest.approx(expected, abs=1e-7)


def test_how_the_files_distribution_is_normalized_plays_no_part() -> None:
    log_p, log_q = distributions(3)
    ids, known = top(log_q, 50)
    assert divergence(log_p, ids, known + np.float32(0.01)) == pytest.approx(divergence(log_p, ids, known), abs=1e-6)


def test_equal_distributions_do_not_diverge() -> None:
    log_p, _ = distributions(0)
    assert divergence(log_p, *top(log_p, 10)) == pytest.approx(0, abs=1e-6)


class LengthEngine:
    """Logits that name the position: token t is certain after t + 1 tokens."""

    def logits(self, batch: Batch) -> npt.NDArray[np.float32]:
        return np.asarray(20 * np.eye(batch.tokens.shape[1], 64, dtype=np.float32)[None])


def test_positions_are_spread_over_the_longest_texts_and_hold_what_comes_before() -> None:
    segments = [Segment(np.arange(n, dtype=np.int32) + n, np.arange(n) > 0) for n in range(20, 60)]
    found = held_out_positions(LengthEngine(), segments, 40, 64)  # type: ignore[arg-type]
    assert len(found) == 40
    starts = {position.context[0] for position in found}
    assert starts == {57, 58, 59}  # the three longest, sixteen to a text; a text's first token is its length
    for position in found:
        length = len(position.context)
        assert 1 <= length < position.context[0]
        assert position.context == list(range(position.context[0], position.context[0] + length))
        assert int(np.argmax(position.log_p)) == length - 1  # the distribution after exactly these tokens
        assert np.exp(position.log_p).sum() == pytest.approx(1)


def test_fewer_positions_than_asked_for_when_texts_are_short() -> None:
    segments = [Segment(np.arange(4, dtype=np.int32), np.arange(4) > 0)]
    found = held_out_positions(LengthEngine(), segments, 100, 16)  # type: ignore[arg-type]
    assert [len(position.context) for position in found] == [1, 2, 3]


def test_lines_are_different_not_blank_and_spread_evenly() -> None:
    texts = ["a\nb\n\n  \na\n", "\n".join(f"line {n}" for n in range(100))]
    everything = sample_lines(texts, 1000)
    assert everything == ["a", "b", *(f"line {n}" for n in range(100))]
    some = sample_lines(texts, 4)
    assert some == ["a", everything[33], everything[67], "line 99"]


@pytest.mark.parametrize(
    ("kind", "equal", "kl", "top1", "count"),
    [
        ("F16", 50, 9e-5, 0.996, 0),
        ("F16", 49, 9e-5, 0.996, 1),
        ("F16", 50, 2e-4, 0.996, 1),
        ("F16", 50, 9e-5, 0.99, 1),
        ("F16", 49, 1.0, 0.5, 3),
        ("Q8_0", 50, 9e-3, 0.9, 0),
        ("Q8_0", 50, 1.1e-2, 1.0, 1),
        ("Q4_K_M", 50, 0.5, 0.1, 0),
        ("Q4_K_M", 49, 0.5, 0.1, 1),
        ("Q4_K_M", 50, float("nan"), 0.1, 1),
        ("F16", 50, float("nan"), 1.0, 1),
    ],
)
def test_what_fails_the_gate(kind: str, equal: int, kl: float, top1: float, count: int) -> None:
    assert len(_failures(kind, 50, equal, kl, top1)) == count


def test_every_budget_is_of_a_type_that_can_be_written() -> None:
    assert set(BUDGETS) < set(TYPES)
