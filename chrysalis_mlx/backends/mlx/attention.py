"""Attention over packed rows, with a backward pass of its own that keeps nothing as large as (T x T).

Queries are taken in chunks. A chunk sees no key after its own end, so about half of the scores are never computed; in
a sliding window none before the window either. Forward, the log-sum-exp of each query is kept; backward, a chunk's
probabilities are computed again from it (FlashAttention-2, arXiv 2307.08691, without its tiles over keys).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx

from chrysalis_mlx.backends.mlx.exponential import LOG2E, exp2, on_cpu

_MASKED = -1e9  # as a score: its power of two is 0, and it is not infinite


def packed_attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    *,
    scale: float,
    segments: mx.array | None = None,
    window: int | None = None,
) -> mx.array:
    """softmax(scale · q kᵀ) v, causal, inside one segment, and within `window` tokens when given.

    Args:
        queries: (B, H, T, D).
        keys, values: (B, K, T, D), where K divides H.
        segments: (B, T) integer; None when each row is one segment.

    Returns:
        (B, H, T, D) in the dtype of `queries`.
    """
    forward, backward = _rules(scale, segments, window)
    attend: Any = mx.custom_function(forward)

    def pull(primals: list[mx.array], cotangents: list[mx.array], outputs: list[mx.array]) -> tuple[mx.array, ...]:
        return backward(*primals, cotangents[0], *outputs)

    attend.vjp(pull)
    output: mx.array = attend(queries, keys, values)[0]
    return output


Forward = Callable[[mx.array, mx.array, mx.array], tuple[mx.array, mx.array]]
Backward = Callable[..., tuple[mx.array, mx.array, mx.array]]


def _rules(scale: float, segments: mx.array | None, window: int | None) -> tuple[Forward, Backward]:
    def forward(q: mx.array, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array]:
        grouped = _group(q, k.shape[1])  # (B, K, G, T, D)
        outputs, sums = [], []
        for first, last, low in _chunks(q.shape[2], window):
            z = _scores(grouped[..., first:last, :], k[:, :, low:last], scale)  # (B, K, G, c, S)
            z = _masked(z, first, low, segments, window)
            top = z.max(axis=-1, keepdims=True)
            p = exp2(z - top)
            total = p.sum(axis=-1, keepdims=True)
            mixed = _matmul(p.astype(v.dtype), v[:, :, low:last])  # (B, K, G, c, D)
            outputs.append((mixed / total).astype(q.dtype))
            sums.append(top + mx.log2(total))
        return mx.concatenate(outputs, axis=3).reshape(q.shape), mx.concatenate(sums, axis=3)

    def backward(
        q: mx.array, k: mx.array, v: mx.array, dy: mx.array, y: mx.array, lse: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        q, k = mx.depends([q, k], [dy])  # another array for the compiler, which would keep the forward pass's results
        heads = k.shape[1]
        grouped, dy = _group(q, heads), _group(dy, heads)
        delta = (dy * _group(y, heads)).astype(mx.float32).sum(axis=-1, keepdims=True)
        dqs: list[mx.array] = []
        dk, dv = mx.zeros((*k.shape[:2], 0, k.shape[3])), mx.zeros((*v.shape[:2], 0, v.shape[3]))  # float32
        for first, last, low in _chunks(q.shape[2], window):
            # One chunk after the other: all queries' gradients before any keys' would keep the scores of all chunks.
            part, dpart = mx.depends([grouped[..., first:last, :], dy[..., first:last, :]], [dk, dv])
            z = _masked(_scores(part, k[:, :, low:last], scale), first, low, segments, window)
            p = exp2(z - lse[..., first:last, :])
            dp = _matmul(dpart, v[:, :, low:last].swapaxes(-1, -2))
            ds = (p * (dp - delta[..., first:last, :])).astype(q.dtype)
            dqs.append(_matmul(ds, k[:, :, low:last]) * scale)
            dk = _add_from(dk, _transposed_matmul(ds, part) * scale, low)
            dv = _add_from(dv, _transposed_matmul(p.astype(q.dtype), dpart), low)
        return mx.concatenate(dqs, axis=3).reshape(q.shape), dk.astype(k.dtype), dv.astype(v.dtype)

    return forward, backward


def chunk_size() -> int:
    """Queries that are taken at once: few, so that much is left out; enough to be worth a kernel."""
    return 96 if on_cpu() else 512


def _chunks(length: int, window: int | None) -> Iterator[tuple[int, int, int]]:
    """First and last query of each chunk, and the first key that any of them sees."""
    size = chunk_size()
    for first in range(0, length, size):
        last = min(first + size, length)
        yield first, last, max(0, first + 1 - window) if window else 0


def _scores(q: mx.array, k: mx.array, scale: float) -> mx.array:
    """(B, K, G, c, D), (B, K, S, D) -> scores in powers of two, (B, K, G, c, S) float32."""
    return _matmul(q * (scale * LOG2E), k.swapaxes(-1, -2)).astype(mx.float32)


def _masked(z: mx.array, first: int, low: int, segments: mx.array | None, window: int | None) -> mx.array:
    """Scores with `_MASKED` added where a query may not attend."""
    queries = mx.arange(first, first + z.shape[-2])[:, None]
    keys = mx.arange(low, low + z.shape[-1])[None]
    allowed = queries >= keys
    if window is not None:
        allowed = allowed & (queries < keys + window)
    if segments is not None:
        own = segments[:, first : first + z.shape[-2], None] == segments[:, None, low : low + z.shape[-1]]
        allowed = (allowed & own)[:, None, None]  # (B, 1, 1, c, S)
    return z + mx.where(allowed, 0.0, _MASKED)


def _group(x: mx.array, heads: int) -> mx.array:
    """(B, H, T, D) -> (B, K, H/K, T, D): the queries beside the keys that they share."""
    return x.reshape(x.shape[0], heads, -1, *x.shape[2:])


def _matmul(a: mx.array, b: mx.array) -> mx.array:
    """(B, K, G, c, M), (B, K, M, N) -> (B, K, G, c, N), as one product per pair of B and K."""
    flat = a.reshape(*a.shape[:2], -1, a.shape[-1])
    return (flat @ b).reshape(*a.shape[:-1], b.shape[-1])


def _transposed_matmul(a: mx.array, b: mx.array) -> mx.array:
    """(B, K, G, c, M), (B, K, G, c, N) -> (B, K, M, N): summed over queries and over the group."""
    left, right = (x.reshape(*x.shape[:2], -1, x.shape[-1]) for x in (a, b))
    return (left.swapaxes(-1, -2) @ right).astype(mx.float32)


def _add_from(sums: mx.array, part: mx.array, low: int) -> mx.array:
    """Sums over the keys so far, and a part that begins at the key `low` and goes on beyond them."""
    shared = sums.shape[2] - low
    return mx.concatenate([sums[:, :, :low], sums[:, :, low:] + part[:, :, :shared], part[:, :, shared:]], axis=2)
