"""What goes into the linear layers of mlx-lm's models, squared and summed (contract: backends/base.py)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from chrysalis_mlx.backends.base import InputSquares
from chrysalis_mlx.backends.mlx import blas
from chrysalis_mlx.backends.mlx.adapter import LoRALinear
from chrysalis_mlx.backends.squares import LAYERS, SquareSums, unpadded_rows
from chrysalis_mlx.batches.packing import Batch

_EXPERTS = (SwitchLinear, QuantizedSwitchLinear)
_LINEAR = (nn.Linear, nn.QuantizedLinear, LoRALinear)


def input_squares(
    model: nn.Module, hidden: Callable[[Batch], mx.array], batches: Iterable[Batch]
) -> dict[str, InputSquares]:
    """Sums of squared inputs, see `Engine.input_squares`; a row's are added up in float32, the rows' in float64.

    Args:
        hidden: runs the model's body.
    """
    found = SquareSums()
    blas.use_threads(os.cpu_count() or 1)  # lanes leave one to each
    with _watched(model, found):
        for batch in batches:
            for row in unpadded_rows(batch):
                hidden(row)
    return found.result()


@contextmanager
def _watched(model: nn.Module, found: SquareSums) -> Iterator[None]:
    """Add up what goes into the linear layers, as long as the block runs."""
    modules = [(name, module) for name, module in model.named_modules() if name.startswith(LAYERS)]
    inside = {id(module.linear) for _, module in modules if isinstance(module, LoRALinear)}
    kinds = [
        (name.replace(".switch_mlp.", ".experts."), module, type(module))
        for name, module in modules
        if isinstance(module, (*_LINEAR, *_EXPERTS)) and id(module) not in inside
    ]
    try:
        for name, module, kind in kinds:
            # A class of its own, because Python looks calls up in the class; the module and its values stay.
            module.__class__ = _watching(kind, name, found)
        yield
    finally:
        for _, module, kind in kinds:
            module.__class__ = kind


def _watching(kind: Any, name: str, found: SquareSums) -> Any:
    """A kind of linear layer that adds up its inputs, and else does what it does."""
    see = _squares_by_expert if issubclass(kind, _EXPERTS) else _squares

    def call(module: Any, x: mx.array, *more: Any, **options: Any) -> Any:
        sums, counts = see(module, x, *more)
        # At once: left lazy, MLX would keep the inputs of all layers until the last is computed.
        mx.eval(sums, counts)
        found.add(name, np.array(sums), np.array(counts))
        return kind.__call__(module, x, *more, **options)

    return type(kind.__name__, (kind,), {"__call__": call})


def _squares(_: Any, x: mx.array) -> tuple[mx.array, mx.array]:
    rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)  # (tokens, in)
    return mx.square(rows).sum(axis=0, keepdims=True), mx.array([float(len(rows))])


def _squares_by_expert(module: Any, x: mx.array, indices: mx.array) -> tuple[mx.array, mx.array]:
    """x is (..., 1, in) and indices (...): the expert of each; x has ones where it is the same for several experts."""
    rows = mx.broadcast_to(x, (*indices.shape, 1, x.shape[-1])).reshape(-1, x.shape[-1]).astype(mx.float32)
    experts, own = module.num_experts, indices.reshape(-1)
    sums = mx.zeros((experts, rows.shape[-1])).at[own].add(mx.square(rows))
    return sums, mx.zeros((experts,)).at[own].add(1.0)
