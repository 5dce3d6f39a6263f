"""An engine without a framework: its whole state is two numbers, so that a test can foresee every step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec
from chrysalis_mlx.backends.base import DEFAULT_ADAMW, AdamW, StepResult
from chrysalis_mlx.batches.packing import Batch


class CountingEngine:
    """Adds learning rate times the sum of the tokens to `x`; the loss is 10 - x."""

    name = device = dtype = "counting"

    def __init__(
        self,
        directory: Path = Path(),
        spec: AdapterSpec | None = None,
        arrays: AdapterArrays | None = None,
        *,
        dtype: str = "auto",
        optimizer: AdamW = DEFAULT_ADAMW,
    ) -> None:
        self.x, self.steps = 0.0, 0
        self.fails_at: int | None = None
        self.rates: list[float] = []

    def step(self, batches: Sequence[Batch], learning_rate: float) -> StepResult:
        loss = float("nan") if self.steps == self.fails_at else 10 - self.x
        self.x += learning_rate * sum(int(batch.tokens.sum()) for batch in batches)
        self.steps += 1
        self.rates.append(learning_rate)
        return StepResult(loss, sum(batch.target_count for batch in batches), 1.0)

    def loss(self, batch: Batch) -> tuple[float, int]:
        return (10 - self.x) * batch.target_count, batch.target_count

    def adapter(self) -> AdapterArrays:
        return {"x": np.array([self.x], np.float64).view(np.float32)}

    def optimizer_state(self) -> dict[str, npt.NDArray[np.float32]]:
        return {"step": np.array([self.steps], np.float32)}

    def restore(self, arrays: AdapterArrays, state: dict[str, npt.NDArray[np.float32]]) -> None:
        self.x, self.steps = float(arrays["x"].view(np.float64)[0]), int(state["step"][0])

    def logits(self, batch: Batch) -> npt.NDArray[np.float32]:
        raise NotImplementedError

    def gradients(self, batches: Sequence[Batch]) -> tuple[StepResult, AdapterArrays]:
        raise NotImplementedError

    def peak_memory(self) -> int:
        return 7
