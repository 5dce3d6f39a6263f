"""The MLX engine: mlx-lm's models on Metal, CUDA or a CPU (contract: backends/base.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec
from chrysalis_mlx.backends.base import DEFAULT_ADAMW, AdamW, StepResult
from chrysalis_mlx.backends.mlx.adapter import attach
from chrysalis_mlx.backends.mlx.loss import loss_sum
from chrysalis_mlx.backends.mlx.model import load_model, logits
from chrysalis_mlx.batches.packing import Batch

_MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}


class Engine:
    """One model on MLX's default device."""

    name = "mlx"

    def __init__(
        self,
        directory: Path,
        spec: AdapterSpec | None = None,
        arrays: AdapterArrays | None = None,
        *,
        dtype: str = "auto",
        optimizer: AdamW = DEFAULT_ADAMW,
    ) -> None:
        self._model, self._dtype = load_model(directory, dtype)
        self.device = "cpu" if mx.default_device() == mx.Device(mx.cpu) else "gpu"
        self._settings = optimizer
        self._optimizer = optim.AdamW(
            learning_rate=0.0,
            betas=[optimizer.beta1, optimizer.beta2],
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
            bias_correction=True,
        )
        if spec is not None and arrays is not None:
            attach(self._model, spec, arrays)
            self._optimizer.init(self._model.trainable_parameters())
        self._loss_and_gradients = nn.value_and_grad(self._model, self._loss_sum)

    @property
    def dtype(self) -> str:
        return self._dtype

    def logits(self, batch: Batch) -> npt.NDArray[np.float32]:
        result = logits(self._model, mx.array(batch.tokens), mx.array(batch.segments))
        return np.array(result.astype(mx.float32))

    def loss(self, batch: Batch) -> tuple[float, int]:
        return float(np.array(self._loss_sum(*_arrays(batch)))), batch.target_count

    def gradients(self, batches: Sequence[Batch]) -> tuple[StepResult, AdapterArrays]:
        result, gradients = self._accumulate(batches)
        return result, _numpy(gradients)

    def step(self, batches: Sequence[Batch], learning_rate: float) -> StepResult:
        result, gradients = self._accumulate(batches)
        clip = min(1.0, self._settings.max_grad_norm / (result.grad_norm + 1e-6))
        self._optimizer.learning_rate = learning_rate
        self._optimizer.update(self._model, tree_map(lambda g: g * clip, gradients))
        mx.eval(self._model.trainable_parameters(), self._optimizer.state)
        return result

    def adapter(self) -> AdapterArrays:
        return _numpy(self._model.trainable_parameters())

    def optimizer_state(self) -> dict[str, npt.NDArray[np.float32]]:
        state = {"step": np.array([self._optimizer.step.item()], np.float32)}
        for name, value in tree_flatten(self._optimizer.state):
            parameter, _, moment = name.rpartition(".")
            if parameter:  # `step` and `learning_rate` stand at the root
                state[f"{_MOMENTS[moment]}.{parameter}"] = np.array(value)
        return state

    def restore(self, arrays: AdapterArrays, state: dict[str, npt.NDArray[np.float32]]) -> None:
        self._model.update(tree_unflatten([(name, mx.array(value)) for name, value in arrays.items()]))
        moments = [
            (f"{name}.{moment}", mx.array(state[f"{prefix}.{name}"]))
            for name in arrays
            for moment, prefix in _MOMENTS.items()
        ]
        restored = tree_unflatten(moments)
        restored |= {"step": mx.array(int(state["step"][0]), mx.uint64), "learning_rate": mx.array(0.0)}
        self._optimizer.state = restored

    def peak_memory(self) -> int:
        return int(mx.get_peak_memory())

    def _loss_sum(self, tokens: mx.array, targets: mx.array, mask: mx.array, segments: mx.array) -> mx.array:
        return loss_sum(logits(self._model, tokens, segments), targets, mask)

    def _accumulate(self, batches: Sequence[Batch]) -> tuple[StepResult, Any]:
        """Sum losses and gradients of the micro-batches, then divide by all their targets."""
        total, summed = 0.0, None
        for batch in batches:
            value, gradients = self._loss_and_gradients(*_arrays(batch))
            summed = gradients if summed is None else tree_map(mx.add, summed, gradients)
            mx.eval(value, summed)
            total += value.item()
        count = sum(batch.target_count for batch in batches)
        mean = tree_map(lambda g: g / max(count, 1), summed)
        norm = mx.linalg.norm(mx.stack([mx.linalg.norm(gradient) for _, gradient in tree_flatten(mean)]))
        return StepResult(total / max(count, 1), count, float(np.array(norm))), mean


def _arrays(batch: Batch) -> tuple[mx.array, ...]:
    return tuple(mx.array(part) for part in (batch.tokens, batch.targets, batch.mask, batch.segments))


def _numpy(tree: Any) -> AdapterArrays:
    return {name: np.array(value, np.float32) for name, value in tree_flatten(tree)}
