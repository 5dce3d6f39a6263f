"""The measures of the gate: divergence, positions, texts, budgets."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.export.gate.budgets import BUDGETS, WITH_IMPORTANCE, budget_of, over_budget
from chrysalis_mlx.export.gate.divergence import Distance, divergence
from chrysalis_mlx.export.gate.reference import held_out_positions, held_out_segments, sample_lines, sample_text
from chrysalis_mlx.gguf.quantize import TYPES
from chrysalis_mlx.models.tokenizer import Tokenizer


def log_softmax(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(values - np.logaddexp.reduce(values)).astype(np.float32)


def distributions(seed: int, size: int = 50) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    p = 3 * rng.standard_normal(size)
    return log_softmax(p), log_softmax(p + 0.3 * rng.standard_normal(size))


def top(log_q: npt.NDArray[np.float32], count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
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
    log_p, log_q = log_softmax(np.log([0.5, 0.25, 0.25])), log_softmax(np.log([0.25, 0.5, 0.25]))
    expected = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    assert divergence(log_p, *top(log_q, 1)) == pytest.approx(expected, abs=1e-6)


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


def segment(tokens: npt.NDArray[np.int32]) -> Segment:
    return Segment(tokens, np.arange(len(tokens)) > 0)


def test_positions_are_spread_over_the_longest_texts_and_hold_what_comes_before_and_after() -> None:
    segments = [segment(np.arange(n, dtype=np.int32) + n) for n in range(20, 60)]
    found = held_out_positions(LengthEngine(), segments, 40, 64)  # type: ignore[arg-type]
    assert len(found) == 40
    starts = {position.context[0] for position in found}
    assert starts == {57, 58, 59}  # the three longest, sixteen to a text; a text's first token is its length
    for position in found:
        length = len(position.context)
        assert 1 <= length < position.context[0]
        assert position.context == list(range(position.context[0], position.context[0] + length))
        assert position.target == position.context[-1] + 1
        assert int(np.argmax(position.log_p)) == length - 1  # the distribution after exactly these tokens
        assert np.exp(position.log_p).sum() == pytest.approx(1)


def test_fewer_positions_than_asked_for_when_texts_are_short() -> None:
    segments = [segment(np.arange(4, dtype=np.int32))]
    found = held_out_positions(LengthEngine(), segments, 100, 16)  # type: ignore[arg-type]
    assert [len(position.context) for position in found] == [1, 2, 3]


def test_texts_of_one_token_have_no_position() -> None:
    single = segment(np.array([7], dtype=np.int32))
    found = held_out_positions(LengthEngine(), [single, segment(np.array([3, 4], np.int32))], 100, 16)  # type: ignore[arg-type]
    assert [(position.context, position.target) for position in found] == [([3], 4)]
    with pytest.raises(ExportError, match="no held-out text"):
        held_out_positions(LengthEngine(), [single], 4, 16)  # type: ignore[arg-type]


def test_lines_are_different_not_blank_and_spread_evenly() -> None:
    texts = ["a\nb\n\n  \na\n", "\n".join(f"line {n}" for n in range(100))]
    everything = sample_lines(texts, 1000)
    assert everything == ["a", "b", *(f"line {n}" for n in range(100))]
    some = sample_lines(texts, 4)
    assert some == ["a", everything[33], everything[67], "line 99"]


@pytest.mark.parametrize("row_length", [128, 512])
def test_the_built_in_text_gives_whole_texts_and_lines(tokenizer: Tokenizer, row_length: int) -> None:
    text = sample_text()
    segments = held_out_segments(text, tokenizer, row_length)
    assert max(len(segment.tokens) for segment in segments) <= row_length
    assert tokenizer.eos_id in segments[-1].tokens
    assert sum(len(segment.tokens) for segment in segments) > 2000
    assert len(sample_lines([text], 200)) > 80
    for part in ("def note", "蝴蝶", "Бабочка", "फूल"):
        assert part in text


def distance(**changes: Any) -> Distance:
    sound = {"positions": 256, "kl": 1e-6, "kl_error": 1e-7, "kl_max": 1e-5, "kl_whole_vocabulary": 1e-6, "top1": 1.0}
    return Distance(**{**sound, "perplexity": 20.0, "reference_perplexity": 20.0, "perplexity_error": 1e-3, **changes})


@pytest.mark.parametrize(
    ("kind", "found", "words"),
    [
        ("F16", {"kl": 9e-5, "top1": 0.996}, []),
        ("F16", {"kl": 2e-4}, ["KL 2.00e-04 is above the budget of 0.0001"]),
        ("F16", {"top1": 0.99}, ["top-1 agreement 99.00% is below the budget of 99.5%"]),
        ("F16", {"perplexity": 20.3}, ["perplexity 20.3 is 1.015 times the trained model's"]),
        ("F32", {"kl": 1.0, "top1": 0.5, "perplexity": 40.0}, ["KL", "top-1", "perplexity"]),
        ("Q8_0", {"kl": 9e-3, "top1": 0.96, "perplexity": 20.1}, []),
        ("Q4_K_M", {"kl": 2.5, "top1": 0.1, "perplexity": 400.0}, ["KL", "top-1", "perplexity"]),
        ("Q2_K", {"kl": float("nan"), "perplexity": float("nan")}, ["KL", "perplexity"]),
        ("F16", {"kl": float("nan")}, ["KL nan"]),
    ],
)
def test_what_is_over_budget(kind: str, found: dict[str, float], words: list[str]) -> None:
    failures = over_budget(budget_of(kind), distance(**found))
    assert len(failures) == len(words)
    for failure, start in zip(failures, words, strict=True):
        assert failure.startswith(start)


def test_few_positions_are_a_small_sample_of_a_quantized_file_and_not_of_an_exact_one() -> None:
    """Three of four tokens differ: it may happen in a 4-bit file, and is impossible in F16."""
    tie = distance(positions=4, top1=0.75, kl=2e-6)
    assert over_budget(budget_of("F16"), tie) == []
    assert len(over_budget(budget_of("F16"), dataclasses.replace(tie, top1=0.5))) == 1
    assert len(over_budget(budget_of("F16"), dataclasses.replace(tie, positions=400, top1=0.99))) == 1
    few = distance(positions=4, top1=0.25, kl=0.3, kl_error=0.15, perplexity=40.0, perplexity_error=0.3)
    assert over_budget(budget_of("Q4_K_M"), few) == []
    assert len(over_budget(budget_of("F16"), few)) == 3
    many = distance(positions=256, top1=0.25, kl=0.3, kl_error=0.02, perplexity=40.0, perplexity_error=0.03)
    assert len(over_budget(budget_of("Q4_K_M"), many)) == 3


def test_a_random_importance_matrix_is_over_the_budget_of_files_that_have_one() -> None:
    """Measured on SmolLM2-135M: no file without one is as good as a sound one, nor as bad as this."""
    for name, garbage, none, sound in (("Q4_K_M", 0.182, 0.066, 0.042), ("Q2_K", 1.33, 0.618, 0.29)):
        own = budget_of(name, importance=True)
        assert over_budget(own, distance(kl=garbage, kl_error=garbage / 16))
        assert not over_budget(own, distance(kl=sound, kl_error=sound / 16))
        assert not over_budget(budget_of(name), distance(kl=none, kl_error=none / 16))
    assert budget_of("F16", importance=True) == budget_of("F16")


def test_every_type_that_can_be_written_has_a_budget_and_smaller_types_wider_ones() -> None:
    assert set(BUDGETS) == set(TYPES)
    order = ["F32", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"]
    kls = [BUDGETS[name].kl for name in order]
    assert kls == sorted(kls)
    for name, budget in WITH_IMPORTANCE.items():
        assert budget.kl < BUDGETS[name].kl
