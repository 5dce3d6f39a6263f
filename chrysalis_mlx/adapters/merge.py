"""Folding what was trained into the weights it was trained on, one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from chrysalis_mlx.adapters.experts import Matrix, matrices
from chrysalis_mlx.adapters.spec import AdapterSpec, Array
from chrysalis_mlx.models.checkpoint import TensorSource


def merge(scale: float, weight: Array, A: Array, B: Array, m: Array | None = None) -> Array:
    """The weight that computes what base and adapter compute together, in float32.

    LoRA: W + s·B·A. DoRA: diag(m / ‖W + s·B·A‖) · (W + s·B·A), norms per output row (backends/reference.py).

    Args:
        scale: s.
        weight: (out, in), the exact base.
        A: (r, in).
        B: (out, r).
        m: (out,), DoRA only.
    """
    merged: Array = weight + np.float32(scale) * (B @ A)
    if m is not None:
        merged *= (m / np.linalg.norm(merged, axis=1))[:, None]
    return merged


class MergedSource:
    """A checkpoint in which each tensor is, as it is read, what training made of it: a `TensorSource`."""

    def __init__(self, base: TensorSource, spec: AdapterSpec, arrays: Mapping[str, Array]) -> None:
        self._base, self._spec, self._arrays = base, spec, arrays
        self.names = base.names

    def shape(self, name: str) -> tuple[int, ...]:
        return self._base.shape(name)

    def read(self, name: str) -> Array:
        """float32; the trained weight, or the base's with the adapter merged where there is one."""
        shape = self.shape(name)
        return self.rows(name, 0, math.prod(shape[:-1])).reshape(shape)

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Some rows of the same; what is merged is merged row by row, DoRA's norms too."""
        if name in self._spec.weights:
            trained = self._arrays[name]
            return trained.reshape(-1, trained.shape[-1])[start:stop]
        weight: Array = self._base.rows(name, start, stop)
        pieces: list[Array] = []
        for matrix in matrices(name, self._base.shape(name)):
            first, last = max(start, matrix.start), min(stop, matrix.stop)
            if first < last:
                pieces.append(self._merged(matrix, weight[first - start : last - start], first - matrix.start))
        if not pieces:
            return weight
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _merged(self, matrix: Matrix, weight: Array, start: int) -> Array:
        """Rows of one matrix, from `start` on, with its adapter where there is one."""
        module = matrix.module
        adapted = self._spec.modules.get(module)
        if adapted is None:
            return weight
        rows = slice(start, start + len(weight))
        A, B, m = self._arrays[f"{module}.A"], self._arrays[f"{module}.B"], self._arrays.get(f"{module}.m")
        return merge(adapted.scale, weight, A, B[rows], None if m is None else m[rows])
