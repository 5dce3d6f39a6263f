"""The torch engine: transformers' models and PEFT's adapters on the CPU, the reference (contract: backends/base.py)."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec
from chrysalis_mlx.backends.base import DEFAULT_ADAMW, AdamW, StepResult
from chrysalis_mlx.backends.torch.adapter import assign, attach, parameters, values
from chrysalis_mlx.backends.torch.loss import loss_sum
from chrysalis_mlx.backends.torch.model import load_model, logits
from chrysalis_mlx.batches.packing import Batch

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Engine:
    """One model on the CPU."""

    name = "torch"
    device = "cpu"

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
        self._settings = optimizer
        if spec is not None and arrays is not None:
            self._model = attach(self._model, spec, arrays)
        self._parameters = parameters(self._model)
        trained = list(self._parameters.values()) or [torch.nn.Parameter(torch.zeros(1))]
        self._optimizer = torch.optim.AdamW(
            trained,
            lr=0.0,
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
        )

    @property
    def dtype(self) -> str:
        return self._dtype

    def logits(self, batch: Batch) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            return logits(self._model, batch).float().numpy()

    def loss(self, batch: Batch) -> tuple[float, int]:
        with torch.no_grad():
            return self._loss_sum(batch).item(), batch.target_count

    def gradients(self, batches: Sequence[Batch]) -> tuple[StepResult, AdapterArrays]:
        result = self._accumulate(batches)
        gradients = values({name: parameter.grad for name, parameter in self._parameters.items()})
        self._optimizer.zero_grad()
        return result, gradients

    def step(self, batches: Sequence[Batch], learning_rate: float) -> StepResult:
        result = self._accumulate(batches)
        clip = min(1.0, self._settings.max_grad_norm / (result.grad_norm + 1e-6))
        for parameter in self._parameters.values():
            assert parameter.grad is not None
            parameter.grad.mul_(clip)
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        return result

    def adapter(self) -> AdapterArrays:
        return values(self._parameters)

    def optimizer_state(self) -> dict[str, npt.NDArray[np.float32]]:
        states = {name: self._optimizer.state.get(parameter, {}) for name, parameter in self._parameters.items()}
        steps = [state["step"].item() for state in states.values() if state]
        moments = {
            f"{moment}.{name}": state.get(moment, torch.zeros_like(self._parameters[name])).numpy().copy()
            for name, state in states.items()
            for moment in _MOMENTS
        }
        return {"step": np.array([max(steps, default=0.0)], np.float32), **moments}

    def restore(self, arrays: AdapterArrays, state: dict[str, npt.NDArray[np.float32]]) -> None:
        assign(self._model, arrays)
        for name, parameter in self._parameters.items():
            moments = {moment: torch.from_numpy(state[f"{moment}.{name}"].copy()) for moment in _MOMENTS}
            self._optimizer.state[parameter] = {"step": torch.tensor(float(state["step"][0])), **moments}

    def peak_memory(self) -> int:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def _loss_sum(self, batch: Batch) -> torch.Tensor:
        return loss_sum(logits(self._model, batch), torch.from_numpy(batch.targets), torch.from_numpy(batch.mask))

    def _accumulate(self, batches: Sequence[Batch]) -> StepResult:
        """Sum losses and gradients of the micro-batches, then divide by all their targets."""
        total, count = 0.0, max(sum(batch.target_count for batch in batches), 1)
        for batch in batches:
            value = self._loss_sum(batch)
            (value / count).backward()  # type: ignore[no-untyped-call]
            total += value.item()
        gradients = [parameter.grad for parameter in self._parameters.values() if parameter.grad is not None]
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt().item()
        return StepResult(total / count, count, norm)
