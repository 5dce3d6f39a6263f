"""Packed attention in MLX against its definition, forward and backward, and what its kernels are made of."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from chrysalis_mlx.backends.mlx import attention
from chrysalis_mlx.backends.mlx.attention import packed_attention
from chrysalis_mlx.backends.mlx.exponential import exp, exp2, swiglu
from chrysalis_mlx.batches.packing import attention_mask
from tests.backends.cases import TOLERANCE, difference
from tests.backends.reference_model import attention as reference_attention

B, H, K, T, D = 2, 6, 2, 37, 8
SEGMENTS = np.array([[1] * 11 + [2] * 3 + [3] * 20 + [0] * 3, [1] * 30 + [2] * 7], np.int32)
SCALE = D**-0.5


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 queries: the last one is short, and segments cross their borders."""
    monkeypatch.setattr(attention, "chunk_size", lambda: 16)


def arrays() -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.normal(size=(B, heads, T, D)) for heads in (H, K, K, H)]


@pytest.mark.parametrize("window", [None, 2, 5, 16, 40])
@pytest.mark.parametrize("packed", [True, False])
def test_values_and_gradients_are_those_of_the_definition(packed: bool, window: int | None) -> None:
    q, k, v, dy = arrays()
    segments = SEGMENTS if packed else np.ones((B, T), np.int32)
    expected, back = reference_attention(q, k, v, attention_mask(segments, window))

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        ours = mx.array(segments) if packed else None
        return packed_attention(q, k, v, scale=SCALE, segments=ours, window=window)

    inputs = [mx.array(array.astype(np.float32)) for array in (q, k, v)]
    assert difference(np.array(attend(*inputs)), expected) < TOLERANCE
    for compiled in (False, True):
        pull = lambda *args: mx.vjp(attend, list(args), [mx.array(dy.astype(np.float32))])[1]  # noqa: E731
        found = (mx.compile(pull) if compiled else pull)(*inputs)
        for gradient, wanted in zip(found, back(dy), strict=True):
            assert difference(np.array(gradient), wanted) < TOLERANCE


@pytest.mark.parametrize("z", [-3e38, -1e9, -130.0, -126.0, -125.5, -1.5, -0.5, 0.0, 0.49, 1.0, 126.3])
def test_powers_of_two(z: float) -> None:
    z = float(np.float32(z))
    expected = 2.0**z if z >= -126 else 0.0
    assert exp2(mx.array([z])).item() == pytest.approx(expected, rel=4e-7, abs=1.3e-38)


def test_exponentials_over_their_whole_range() -> None:
    x = np.linspace(-87.0, 87.0, 100_001).astype(np.float32)
    assert np.abs(np.array(exp(mx.array(x))) / np.exp(x.astype(np.float64)) - 1).max() < 6e-6  # x·log2(e) is rounded
    near = np.linspace(-1.0, 1.0, 10_001).astype(np.float32)
    assert np.abs(np.array(exp(mx.array(near))) / np.exp(near.astype(np.float64)) - 1).max() < 4e-7


def test_the_gate_and_its_gradients() -> None:
    random = np.random.default_rng(1)
    gate, x, dy = (random.normal(0.0, 4.0, 1000) for _ in range(3))
    gate[:4] = -200.0, 200.0, 0.0, -88.0
    share = np.array([1 / (1 + math.exp(-value)) if value > -700 else 0.0 for value in gate])
    inputs = [mx.array(array.astype(np.float32)) for array in (gate, x)]
    values, gradients = mx.vjp(swiglu, inputs, [mx.array(dy.astype(np.float32))])
    assert difference(np.array(values[0]), gate * share * x) < TOLERANCE
    assert difference(np.array(gradients[0]), dy * x * share * (1 + gate * (1 - share))) < TOLERANCE
    assert difference(np.array(gradients[1]), dy * gate * share) < TOLERANCE


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_the_gate_of_half_precision_errs_by_its_last_bits_alone(dtype: mx.Dtype) -> None:
    gate, x, dy = (mx.array(np.linspace(-12.0, 12.0, 500), dtype) * share for share in (1.0, -0.3, 0.7))
    wide = [array.astype(mx.float32) for array in (gate, x, dy)]
    values, gradients = mx.vjp(swiglu, [gate, x], [dy])
    expected, of_gradients = mx.vjp(swiglu, wide[:2], wide[2:])
    for found, exact in zip([*values, *gradients], [*expected, *of_gradients], strict=True):
        assert found.dtype == dtype
        assert difference(np.array(found.astype(mx.float32)), np.array(exact)) < 2.0**-8
