"""What a backend is: the contract that MLX and torch both fulfil.

A backend module (`chrysalis_mlx.backends.mlx.engine`, `...torch.engine`) has one public class, `Engine`. An engine is
one model on one device, with or without an adapter. Everything that goes in or comes out is numpy, in the shapes and
names of `adapters/spec.py` and `batches/packing.py`, so that the engines can be compared element by element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec
from chrysalis_mlx.batches.packing import Batch


@dataclass(frozen=True)
class AdamW:
    """Hyper-parameters of AdamW with bias correction (arXiv 1711.05101); the learning rate comes with each step."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0


DEFAULT_ADAMW = AdamW()


@dataclass(frozen=True)
class StepResult:
    """One optimizer step.

    Attributes:
        loss: mean −log p over the step's targets, in nats.
        targets: how many targets that were.
        grad_norm: global norm of the gradient of `loss`, before clipping.
    """

    loss: float
    targets: int
    grad_norm: float


class Engine(Protocol):
    """One model on one device.

    Args:
        directory: a Hugging Face model directory.
        spec: the adapter; None runs the base model alone.
        arrays: the adapter's values (A, B, m), float32; required with `spec`.
        dtype: of the frozen base; the adapter's masters are always float32.
        optimizer: AdamW's hyper-parameters.
    """

    name: str
    device: str

    def __init__(
        self,
        directory: Path,
        spec: AdapterSpec | None = None,
        arrays: AdapterArrays | None = None,
        *,
        dtype: str = "auto",
        optimizer: AdamW = DEFAULT_ADAMW,
    ) -> None: ...

    @property
    def dtype(self) -> str:
        """The base's dtype after `auto` is resolved: float32, bfloat16 or float16."""

    def logits(self, batch: Batch) -> npt.NDArray[np.float32]:
        """(B, T, V) float32."""

    def loss(self, batch: Batch) -> tuple[float, int]:
        """Sum of −log p over the batch's targets, in nats, and their number."""

    def gradients(self, batches: Sequence[Batch]) -> tuple[StepResult, AdapterArrays]:
        """Loss and unclipped gradients of one step, token-weighted over all its micro-batches; nothing is changed."""

    def step(self, batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """One optimizer step over its micro-batches."""

    def adapter(self) -> AdapterArrays:
        """The adapter as it is now, float32."""

    def optimizer_state(self) -> dict[str, npt.NDArray[np.float32]]:
        """`exp_avg.NAME`, `exp_avg_sq.NAME` for every adapter array NAME, and `step` (1,)."""

    def restore(self, arrays: AdapterArrays, state: dict[str, npt.NDArray[np.float32]]) -> None:
        """Put adapter and optimizer back to what `adapter()` and `optimizer_state()` once gave."""

    def peak_memory(self) -> int:
        """Most memory that the framework (MLX) or the process (torch) held so far, in bytes."""
