"""The loss, fused with the output head: over vocabularies of real size, and with everything that heads do."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
import torch

from chrysalis_mlx.backends import reference
from chrysalis_mlx.backends.mlx.loss import chunk_size, fused_loss_sum, target_logprobs
from chrysalis_mlx.backends.torch import loss as torch_loss
from tests.backends.cases import TOLERANCE, difference

POSITIONS, HIDDEN = (3, 41), 16
Array = npt.NDArray[np.float32]


class Rows(NamedTuple):
    """Hidden states (B, T, H), targets and mask (B, T), and the head's weight (V, H)."""

    hidden: Array
    targets: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]
    weight: Array


def rows(share: float, vocabulary: int = 509) -> Rows:
    """Random rows in which this share of the positions has a target."""
    random = np.random.default_rng(4)
    hidden = random.normal(0.0, 1.0, (*POSITIONS, HIDDEN)).astype(np.float32)
    targets = random.integers(0, vocabulary, POSITIONS).astype(np.int32)
    weight = random.normal(0.0, 0.7, (vocabulary, HIDDEN)).astype(np.float32)
    return Rows(hidden, targets, random.random(POSITIONS) < share, weight)


def capped(logits: npt.NDArray[np.float64], cap: float | None, scale: float) -> npt.NDArray[np.float64]:
    """What an architecture does to the product of hidden states and head."""
    return (logits if cap is None else np.tanh(logits / cap) * cap) * scale


def expected(data: Rows, cap: float | None, scale: float) -> tuple[float, npt.NDArray[np.float64]]:
    """The sum and its gradient for the hidden states, from all logits at once in float64."""
    hidden, weight = data.hidden.astype(np.float64), data.weight.astype(np.float64)
    product = hidden @ weight.T
    total, _, pull = reference.loss_sum(capped(product, cap, scale), data.targets, data.mask)
    slope = scale * (1.0 if cap is None else 1.0 - np.tanh(product / cap) ** 2)
    return total, (pull(1.0) * slope) @ weight


def in_torch(data: Rows, cap: float | None, scale: float) -> tuple[float, Array]:
    weight = torch.from_numpy(data.weight)

    def head(x: torch.Tensor) -> torch.Tensor:
        assert len(x) <= torch_loss.CHUNK
        logits = x @ weight.T
        return (logits if cap is None else torch.tanh(logits / cap) * cap) * scale

    hidden = torch.from_numpy(data.hidden).requires_grad_()
    total = torch_loss.loss_sum(hidden, torch.from_numpy(data.targets), torch.from_numpy(data.mask), head)
    (3.0 * total).backward()
    assert hidden.grad is not None
    return total.item(), hidden.grad.numpy() / 3.0


def in_mlx(data: Rows, cap: float | None, scale: float) -> tuple[float, Array]:
    weight, at = mx.array(data.weight), mx.array(np.flatnonzero(data.mask))
    targets = mx.array(data.targets.reshape(-1))[at]

    def head(x: mx.array) -> mx.array:
        assert x.shape[0] <= 16
        logits = x @ weight.T
        return (logits if cap is None else mx.tanh(logits / cap) * cap) * scale

    def total(hidden: mx.array) -> mx.array:
        return 3.0 * fused_loss_sum(head, hidden.reshape(-1, HIDDEN)[at], targets, 16)

    value, gradient = mx.value_and_grad(total)(mx.array(data.hidden))
    return value.item() / 3.0, np.array(gradient) / 3.0


FUSED: dict[str, Callable[[Rows, float | None, float], tuple[float, Array]]] = {"torch": in_torch, "mlx": in_mlx}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize(("cap", "scale"), [(None, 1.0), (2.0, 1.0), (None, 0.25), (3.0, 0.5)])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_fused_loss_and_its_gradient_equal_the_plain_ones(
    name: str, cap: float | None, scale: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_loss, "CHUNK", 16)  # several chunks, the last one not full
    data = rows(share)
    total, gradient = expected(data, cap, scale)
    found, found_gradient = FUSED[name](data, cap, scale)
    assert found == pytest.approx(total, rel=TOLERANCE)
    assert difference(found_gradient, gradient) < TOLERANCE
    assert not found_gradient[~data.mask].any()


def logprobs_in_torch(data: Rows, cap: float | None, scale: float) -> Array:
    weight = torch.from_numpy(data.weight)

    def head(x: torch.Tensor) -> torch.Tensor:
        assert len(x) <= torch_loss.CHUNK
        logits = x @ weight.T
        return (logits if cap is None else torch.tanh(logits / cap) * cap) * scale

    return torch_loss.target_logprobs(*map(torch.from_numpy, data[:3]), head).numpy()


def logprobs_in_mlx(data: Rows, cap: float | None, scale: float) -> Array:
    weight = mx.array(data.weight)

    def head(x: mx.array) -> mx.array:
        assert x.shape[0] <= 16
        logits = x @ weight.T
        return (logits if cap is None else mx.tanh(logits / cap) * cap) * scale

    found = np.zeros(POSITIONS, np.float32)
    hidden, targets = mx.array(data.hidden[data.mask]), mx.array(data.targets[data.mask])
    found[data.mask] = np.array(target_logprobs(head, hidden, targets, 16))
    return found


@pytest.mark.parametrize("logprobs", [logprobs_in_torch, logprobs_in_mlx])
@pytest.mark.parametrize(("cap", "scale"), [(None, 1.0), (2.0, 1.0), (3.0, 0.5)])
@pytest.mark.parametrize("share", [1.0, 0.3, 0.0])
def test_target_log_probabilities_by_chunks_equal_the_plain_ones(
    logprobs: Callable[[Rows, float | None, float], Array],
    cap: float | None,
    scale: float,
    share: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_loss, "CHUNK", 16)
    data = rows(share)
    logits = capped(data.hidden.astype(np.float64) @ data.weight.astype(np.float64).T, cap, scale)
    found = logprobs(data, cap, scale)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference.target_logprobs(logits, data.targets, data.mask), atol=1e-5)
    assert not found[~data.mask].any()
    assert -found.sum() == pytest.approx(expected(data, cap, scale)[0], rel=TOLERANCE)


def test_where_no_gradient_is_wanted_none_is_computed() -> None:
    data = rows(0.3)
    seen: list[bool] = []

    def head(x: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_grad_enabled())
        return x @ torch.from_numpy(data.weight).T

    tensors = [torch.from_numpy(part) for part in data[:3]]
    with torch.no_grad():
        total = torch_loss.loss_sum(*tensors, head)
    assert total.item() == pytest.approx(expected(data, None, 1.0)[0], rel=TOLERANCE)
    assert seen == [False]
    assert total.grad_fn is None
    targets = mx.array(data.targets[data.mask])
    weight = mx.array(data.weight)
    evaluated = fused_loss_sum(lambda x: x @ weight.T, mx.array(data.hidden[data.mask]), targets, 16, learn=False)
    assert evaluated.item() == pytest.approx(total.item(), rel=TOLERANCE)


def test_without_targets_the_loss_is_zero_and_so_is_the_gradient() -> None:
    total, gradient = in_torch(rows(0.0), None, 1.0)
    assert total == 0.0
    assert not gradient.any()


@pytest.mark.parametrize("vocabulary", [49_152, 151_936, 32_003, 509])  # 32,003 is prime
def test_the_loss_does_not_drift_with_the_size_of_the_vocabulary(vocabulary: int) -> None:
    random = np.random.default_rng(vocabulary)
    logits = random.normal(0.0, 3.0, (1, 24, vocabulary)).astype(np.float32)
    logits[..., 0] += 12.0  # one likely token, and very many unlikely ones
    targets = random.integers(0, vocabulary, (1, 24)).astype(np.int32)
    mask = np.arange(24)[None] % 3 > 0
    total, count, _ = reference.loss_sum(logits.astype(np.float64), targets, mask)
    assert count == 16
    size = chunk_size(vocabulary)
    in_mlx = fused_loss_sum(lambda x: x, mx.array(logits[mask]), mx.array(targets[mask]), size, learn=False).item()
    # A prime vocabulary cannot be summed in two stages; it keeps MLX's own rounding.
    assert in_mlx == pytest.approx(total, rel=1e-4 if vocabulary == 32_003 else 1e-6)
    tensors = torch.from_numpy(logits), torch.from_numpy(targets), torch.from_numpy(mask)
    assert torch_loss.loss_sum(*tensors, lambda x: x).item() == pytest.approx(total, rel=1e-6)
    log_p = reference.target_logprobs(logits.astype(np.float64), targets, mask)
    np.testing.assert_allclose(torch_loss.target_logprobs(*tensors, lambda x: x), log_p, rtol=2e-6)
    one_by_one = target_logprobs(lambda x: x, mx.array(logits[mask]), mx.array(targets[mask]), 5)
    np.testing.assert_allclose(np.array(one_by_one), log_p[mask], rtol=1e-4 if vocabulary == 32_003 else 2e-6)
