"""An engine without a framework: its whole state is two numbers, so that a test can foresee every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec, Array
from chrysalis_mlx.backends.base import (
    DEFAULT_OPTIMIZER,
    OptimizerSettings,
    OptimizerState,
    StepResult,
    World,
    always,
)
from chrysalis_mlx.batches.packing import Batch


class CountingEngine:
    """Adds learning rate times the sum of the tokens to `x`; the loss is 10 - x.

    Attributes:
        losses: losses of steps, by the number of steps done before; the first of each is used once, the last stays.
        norms: the same, of gradients.
        valid: validation losses, by the number of steps done.
        raises: what a step raises instead, by the number of steps done before; each once.
        rates: the learning rate of every step that was applied.
    """

    name = device = dtype = "counting"

    def __init__(
        self,
        directory: Path = Path(),
        spec: AdapterSpec | None = None,
        arrays: Mapping[str, Array] | None = None,
        *,
        dtype: str = "auto",
        optimizer: OptimizerSettings = DEFAULT_OPTIMIZER,
        gradient_checkpointing: bool = False,
        seed: int = 0,
        losses: Mapping[int, Sequence[float]] | None = None,
        norms: Mapping[int, Sequence[float]] | None = None,
        valid: Mapping[int, float] | None = None,
        raises: Mapping[int, BaseException] | None = None,
    ) -> None:
        self.x, self.steps = 0.0, 0
        self.losses = {step: list(values) for step, values in (losses or {}).items()}
        self.norms = {step: list(values) for step, values in (norms or {}).items()}
        self.valid, self.raises = dict(valid or {}), dict(raises or {})
        self.rates: list[float] = []
        self.after_step: Callable[[int], object] = lambda steps: None

    @classmethod
    def world(cls) -> World:
        return World()

    def step(
        self, batches: Sequence[Batch], learning_rate: float, accept: Callable[[StepResult], bool] = always
    ) -> StepResult:
        if self.steps in self.raises:
            raise self.raises.pop(self.steps)
        targets = sum(batch.target_count for batch in batches)
        result = StepResult(self._next(self.losses, 10 - self.x), targets, self._next(self.norms, 1.0))
        if not accept(result):
            return StepResult(result.loss, targets, result.grad_norm, applied=False)
        self.x += learning_rate * sum(int(batch.tokens.sum()) for batch in batches)
        self.steps += 1
        self.rates.append(learning_rate)
        self.after_step(self.steps)
        return result

    def _next(self, planned: dict[int, list[float]], otherwise: float) -> float:
        values = planned.get(self.steps, [otherwise])
        return values.pop(0) if len(values) > 1 else values[0]

    def loss(self, batch: Batch) -> tuple[float, int]:
        return self.valid.get(self.steps, 10 - self.x) * batch.target_count, batch.target_count

    def adapter(self) -> AdapterArrays:
        return {"x": np.array([self.x], np.float64).view(np.float32)}

    def optimizer_state(self) -> OptimizerState:
        return {"step": np.array([self.steps], np.int64)}

    def restore(self, arrays: Mapping[str, Array], state: OptimizerState) -> None:
        self.x, self.steps = float(arrays["x"].view(np.float64)[0]), int(state["step"][0])

    def logits(self, batch: Batch) -> np.ndarray:
        raise NotImplementedError

    def gradients(self, batches: Sequence[Batch]) -> tuple[StepResult, AdapterArrays]:
        raise NotImplementedError

    def total(self, values: Sequence[float]) -> list[float]:
        raise AssertionError("a process that is alone sends nothing")

    def peak_memory(self) -> int:
        return 7
