"""Sums of squared inputs on their way through the batches; both backends add to them row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.backends.base import InputSquares
from chrysalis_mlx.batches.packing import PADDING, Batch

LAYERS = "model.layers."
"""What the names of modules inside the transformer layers begin with."""


def unpadded_rows(batch: Batch) -> Iterator[Batch]:
    """Every row as a batch of its own, without its padding: what then goes into a layer are tokens alone."""
    for row, segments in enumerate(batch.segments):
        real = segments != PADDING
        if real.any():
            yield Batch(*(getattr(batch, field.name)[row, real][None] for field in fields(Batch)))


class SquareSums:
    """Sums in float64, by module name."""

    def __init__(self) -> None:
        self._sums: dict[str, npt.NDArray[np.float64]] = {}
        self._counts: dict[str, npt.NDArray[np.float64]] = {}

    def add(self, module: str, sums: npt.ArrayLike, counts: npt.ArrayLike) -> None:
        """Add one row's: sums (matrices, in) and counts (matrices,)."""
        self._sums[module] = self._sums.get(module, 0.0) + np.asarray(sums, np.float64)
        self._counts[module] = self._counts.get(module, 0.0) + np.asarray(counts, np.float64)

    def result(self) -> dict[str, InputSquares]:
        return {
            module: InputSquares(sums.astype(np.float32), self._counts[module].astype(np.float32))
            for module, sums in self._sums.items()
        }
