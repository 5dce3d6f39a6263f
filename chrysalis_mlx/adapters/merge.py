"""Folding what was trained into the weights it was trained on, one tensor at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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
        if name in self._spec.weights:
            return self._arrays[name]
        weight: Array = self._base.read(name)
        module = name.removesuffix(".weight")
        adapted = self._spec.modules.get(module)
        if adapted is None:
            return weight
        A, B = self._arrays[f"{module}.A"], self._arrays[f"{module}.B"]
        return merge(adapted.scale, weight, A, B, self._arrays.get(f"{module}.m"))
