"""LoRA and DoRA beside an MLX linear layer (the formulas: backends/reference.py)."""

from __future__ import annotations

from collections.abc import Mapping

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from chrysalis_mlx.adapters.spec import AdapterSpec, Array
from chrysalis_mlx.errors import BackendError


class LoRALinear(nn.Module):
    """y = x Wᵀ + b + s · (x Aᵀ) Bᵀ; the frozen layer is `linear`, A and B are float32 masters."""

    def __init__(self, linear: nn.Linear, scale: float, A: mx.array, B: mx.array) -> None:
        super().__init__()
        self.linear = linear
        self.scale = scale
        self.A = A  # (r, in)
        self.B = B  # (out, r)

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.linear(x) + self._update(x)
        return y

    def _update(self, x: mx.array) -> mx.array:
        low = x @ self.A.T.astype(x.dtype)  # (B, T, r)
        return (self.scale * low) @ self.B.T.astype(x.dtype)  # (B, T, out)


class DoRALinear(LoRALinear):
    """y = (m / n) ⊙ (x Wᵀ + s · (x Aᵀ) Bᵀ) + b, n constant in the gradient; m is a float32 master."""

    def __init__(self, linear: nn.Linear, scale: float, A: mx.array, B: mx.array, m: mx.array) -> None:
        super().__init__(linear, scale, A, B)
        self.m = m  # (out,)
        self._base_norm_squared = mx.square(linear.weight.astype(mx.float32)).sum(axis=1)  # (out,)

    def __call__(self, x: mx.array) -> mx.array:
        ratio = (self.m / mx.stop_gradient(self._norm())).astype(x.dtype)  # (out,)
        y: mx.array = ratio * (x @ self.linear.weight.T + self._update(x))
        return y + self.linear.bias if "bias" in self.linear else y

    def _norm(self) -> mx.array:
        """‖W + s·B·A‖ per output row without the (out, in) matrix."""
        A, B, s = self.A, self.B, self.scale
        cross = (self.linear.weight.astype(mx.float32) @ A.T) * B
        own = (B @ (A @ A.T)) * B
        return mx.sqrt(self._base_norm_squared + 2 * s * cross.sum(axis=1) + s * s * own.sum(axis=1))


def attach(model: nn.Module, spec: AdapterSpec, arrays: Mapping[str, Array]) -> None:
    """Freeze the model and put adapters beside the spec's linear layers.

    Raises:
        BackendError: the MLX model has no plain linear layer of that name.
    """
    model.freeze()
    linears = dict(model.named_modules())
    adapted = []
    for module in spec.modules:
        linear = linears.get(module)
        if not isinstance(linear, nn.Linear):
            raise BackendError(
                f"{module} is {type(linear).__name__} in the MLX model, not a linear layer",
                fix="leave it out of the blueprint's adapter.modules",
            )
        values = [mx.array(arrays[f"{module}.{part}"]) for part in ("A", "B", "m") if f"{module}.{part}" in arrays]
        adapted.append((module, (DoRALinear if spec.kind == "dora" else LoRALinear)(linear, spec.scale, *values)))
    model.update_modules(tree_unflatten(adapted))
    for _, layer in adapted:
        layer.unfreeze(recurse=False)
