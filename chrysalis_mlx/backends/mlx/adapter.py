"""LoRA and DoRA beside an MLX linear layer, quantized or not (the formulas: backends/reference.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from chrysalis_mlx.adapters.spec import AdapterSpec, Array
from chrysalis_mlx.errors import BackendError


class LoRALinear(nn.Module):
    """y = x Wᵀ + b + s · (x Aᵀ) Bᵀ; the frozen layer is `linear`, A and B are float32 masters.

    Args:
        dtype: that the base computes in.
        dropout: share of `x` that the low-rank path does not see, after `use` was given a key.
    """

    def __init__(
        self, linear: nn.Module, dtype: mx.Dtype, scale: float, dropout: float, A: mx.array, B: mx.array
    ) -> None:
        super().__init__()
        self.linear = linear
        self.A = A  # (r, in)
        self.B = B  # (out, r)
        self._dtype, self._scale, self._dropout = dtype, scale, dropout
        self._norm: mx.array | None = None
        self._key: mx.array | None = None

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.linear(x) + self._update(x)
        return y

    def norm(self) -> mx.array | None:
        """What of a step depends on A and B and is a constant in its gradient; LoRA has none."""
        return None

    def use(self, norm: mx.array | None, key: mx.array | None) -> None:
        """Compute with this `norm()`, and draw the dropout from this key, from now on."""
        self._norm, self._key = norm, key

    def _update(self, x: mx.array) -> mx.array:
        if self._key is not None:
            kept = mx.random.bernoulli(1.0 - self._dropout, x.shape, self._key)
            x = mx.where(kept, x * (1.0 / (1.0 - self._dropout)), 0.0).astype(x.dtype)
        low = x @ self.A.T.astype(x.dtype)  # (B, T, r)
        return (self._scale * low) @ self.B.T.astype(x.dtype)  # (B, T, out)


class DoRALinear(LoRALinear):
    """y = (m / n) ⊙ (x Wᵀ + s · (x Aᵀ) Bᵀ) + b, n constant in the gradient; m is a float32 master."""

    def __init__(
        self, linear: nn.Module, dtype: mx.Dtype, scale: float, dropout: float, A: mx.array, B: mx.array, m: mx.array
    ) -> None:
        super().__init__(linear, dtype, scale, dropout, A, B)
        self.m = m  # (out,)
        self._base_squared = _norm_squared(linear)  # (out,)

    def __call__(self, x: mx.array) -> mx.array:
        assert self._norm is not None
        ratio = (self.m / self._norm).astype(x.dtype)  # (out,)
        y: mx.array = ratio * (_multiply(self.linear, x) + self._update(x))
        return y + self.linear.bias if "bias" in self.linear else y

    def norm(self) -> mx.array:
        """n = ‖W + s·B·A‖ per output row, (out,) float32, without the (out, in) matrix."""
        A, B, s = self.A, self.B, self._scale
        cross = _multiply(self.linear, A.astype(self._dtype)).T * B  # W Aᵀ ⊙ B: (out, r)
        own = (B @ (A @ A.T)) * B
        return mx.sqrt(self._base_squared + 2 * s * cross.sum(axis=1) + s * s * own.sum(axis=1))


def attach(model: nn.Module, spec: AdapterSpec, arrays: Mapping[str, Array], dtype: mx.Dtype) -> list[LoRALinear]:
    """Freeze the model and put adapters beside the spec's linear layers; of `full`, unfreeze the spec's weights.

    Returns:
        the adapters, in the model's order.

    Raises:
        BackendError: the MLX model has no linear layer, or no weight, of that name.
    """
    model.freeze()
    parts = dict(model.named_modules())
    adapted = []
    for module, own in spec.modules.items():
        linear = parts.get(module)
        if not isinstance(linear, (nn.Linear, nn.QuantizedLinear)):
            raise _missing(module, f"{type(linear).__name__}, not a linear layer,")
        values = [mx.array(arrays[f"{module}.{part}"]) for part in ("A", "B", "m") if f"{module}.{part}" in arrays]
        kind = DoRALinear if spec.kind == "dora" else LoRALinear
        adapted.append((module, kind(linear, dtype, own.scale, spec.dropout, *values)))
    if adapted:
        model.update_modules(tree_unflatten(adapted))
    for _, layer in adapted:
        layer.unfreeze(recurse=False)
    for name in spec.weights:
        module, _, weight = name.rpartition(".")
        if module not in parts or weight not in parts[module]:
            raise _missing(name, "missing")
        parts[module].unfreeze(recurse=False, keys=weight)
        parts[module].update({weight: mx.array(arrays[name])})
    return [layer for _, layer in adapted]


def _norm_squared(linear: Any) -> mx.array:
    """‖W‖² of every output row, (out,) float32."""
    weight = linear.weight
    if isinstance(linear, nn.QuantizedLinear):
        weight = mx.dequantize(
            weight,
            linear.scales,
            linear.get("biases"),
            group_size=linear.group_size,
            bits=linear.bits,
            mode=linear.mode,
        )
    norm = mx.square(weight.astype(mx.float32)).sum(axis=1)
    mx.eval(norm)  # now, so that no dequantized matrix waits for the first step
    return norm


def _multiply(linear: Any, x: mx.array) -> mx.array:
    """x Wᵀ without the bias."""
    if isinstance(linear, nn.QuantizedLinear):
        product: mx.array = mx.quantized_matmul(
            x,
            linear.weight,
            scales=linear.scales,
            biases=linear.get("biases"),
            group_size=linear.group_size,
            bits=linear.bits,
            mode=linear.mode,
        )
    else:
        product = x @ linear.weight.T
    return product


def _missing(name: str, what: str) -> BackendError:
    return BackendError(
        f"{name} is {what} in the MLX model", fix="leave it out of the blueprint's adapter.modules, or report the model"
    )
