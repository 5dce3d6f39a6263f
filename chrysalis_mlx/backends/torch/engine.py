"""The torch engine: transformers' models and PEFT's adapters on the CPU, the reference (contract: backends/base.py)."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec, Array
from chrysalis_mlx.backends.base import (
    DEFAULT_OPTIMIZER,
    Choose,
    InputSquares,
    OptimizerSettings,
    OptimizerState,
    StepResult,
    World,
    always,
)
from chrysalis_mlx.backends.torch.adapter import Parameters, assign, attach, dropouts, values
from chrysalis_mlx.backends.torch.decoding import continued
from chrysalis_mlx.backends.torch.importance import input_squares
from chrysalis_mlx.backends.torch.loss import loss_sum, target_logprobs
from chrysalis_mlx.backends.torch.model import checkpoint_layers, head_of, hidden_states, load_model
from chrysalis_mlx.backends.torch.optimizer import Optimizer
from chrysalis_mlx.batches.packing import Batch


class Engine:
    """One model on the CPU."""

    name = "torch"
    device = "cpu"

    def __init__(
        self,
        directory: Path,
        spec: AdapterSpec | None = None,
        arrays: Mapping[str, Array] | None = None,
        *,
        dtype: str = "auto",
        optimizer: OptimizerSettings = DEFAULT_OPTIMIZER,
        gradient_checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        self._model, self._dtype = load_model(directory, dtype)
        self._parameters: Parameters = {}
        if spec is not None and arrays is not None:
            self._parameters = attach(self._model, spec, arrays)
        self._dropouts = dropouts(self._model)
        if gradient_checkpointing:
            checkpoint_layers(self._model)
        self._head = head_of(self._model)
        self._settings = optimizer
        self._optimizer = Optimizer(optimizer, self._parameters)
        self._seed = seed

    @classmethod
    def world(cls) -> World:
        return World()

    @property
    def dtype(self) -> str:
        return self._dtype

    def logits(self, batch: Batch) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            hidden = hidden_states(self._model, batch)
            logits: npt.NDArray[np.float32] = torch.stack([self._head(row) for row in hidden]).float().numpy()
        return logits

    def loss(self, batch: Batch) -> tuple[float, int]:
        with torch.no_grad():
            return self._loss_sum(batch).item(), batch.target_count

    def target_logprobs(self, batch: Batch) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            hidden = hidden_states(self._model, batch)
            targets, mask = torch.from_numpy(batch.targets), torch.from_numpy(batch.mask)
            log_p: npt.NDArray[np.float32] = target_logprobs(hidden, targets, mask, self._head).numpy()
        return log_p

    def continued(self, prompts: npt.NDArray[np.int32], choose: Choose) -> Iterator[npt.NDArray[np.int32]]:
        return continued(self._model, self._head, prompts, choose)

    def input_squares(self, batches: Iterable[Batch]) -> dict[str, InputSquares]:
        return input_squares(self._model, batches)

    def gradients(self, batches: Sequence[Batch]) -> tuple[StepResult, AdapterArrays]:
        result = self._accumulate(batches)
        gradients = values({name: parameter.grad for name, parameter in self._parameters.items()})
        self._clear()
        return result, gradients

    def step(
        self, batches: Sequence[Batch], learning_rate: float, accept: Callable[[StepResult], bool] = always
    ) -> StepResult:
        result = self._accumulate(batches)
        applied = accept(result)
        if applied:
            self._optimizer.step(learning_rate, self._settings.clip(result.grad_norm))
        self._clear()
        return StepResult(result.loss, result.targets, result.grad_norm, applied)

    def adapter(self) -> AdapterArrays:
        return values(self._parameters)

    def optimizer_state(self) -> OptimizerState:
        return self._optimizer.state()

    def restore(self, arrays: Mapping[str, Array], state: OptimizerState) -> None:
        assign(self._parameters, arrays)
        self._optimizer.restore(state)

    def total(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def peak_memory(self) -> int:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def _loss_sum(self, batch: Batch) -> torch.Tensor:
        hidden = hidden_states(self._model, batch)
        return loss_sum(hidden, torch.from_numpy(batch.targets), torch.from_numpy(batch.mask), self._head)

    def _accumulate(self, batches: Sequence[Batch]) -> StepResult:
        """Sum losses and gradients of the micro-batches, divided by all their targets."""
        total, count = 0.0, sum(batch.target_count for batch in batches)
        for index, batch in enumerate(batches):
            with self._dropping(index):
                value = self._loss_sum(batch)
                (value / max(count, 1)).backward()  # type: ignore[no-untyped-call]
            total += value.item()
        for parameter in self._parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self._parameters.values() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        return StepResult(total / max(count, 1), count, norm)

    @contextmanager
    def _dropping(self, micro_batch: int) -> Iterator[None]:
        """Dropout on; its draws follow from seed, step and micro-batch, and leave no trace in torch's generator."""
        if not self._dropouts:
            yield
            return
        drawn = np.random.SeedSequence([self._seed, self._optimizer.steps, micro_batch]).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(drawn[0]))
            for layer in self._dropouts:
                layer.train()
            try:
                yield
            finally:
                for layer in self._dropouts:
                    layer.eval()

    def _clear(self) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None
