"""What a backend is: the contract that MLX and torch both fulfil.

A backend module (`chrysalis_mlx.backends.mlx.engine`, `...torch.engine`) has one public class, `Engine`. An engine is
one model on one device, with or without an adapter. Everything that goes in or comes out is numpy, in the shapes and
names of `adapters/spec.py` and `batches/packing.py`, so that the engines can be compared element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec, Array
from chrysalis_mlx.batches.packing import Batch

OptimizerName = Literal["adamw", "adam", "adafactor", "lion", "muon"]
OptimizerState = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class OptimizerSettings:
    """Hyper-parameters of an optimizer; the learning rate comes with each step.

    Attributes:
        name: adamw (arXiv 1711.05101), adam, adafactor (1804.04235), lion (2302.06675) or muon, which turns matrices
            and leaves 1-D parameters to adamw.
        beta1: decay of the first moment; muon's momentum.
        beta2: decay of the second moment; adafactor has its own.
        epsilon: added to the denominator of adam and adamw.
        weight_decay: decoupled (adam: added to the gradient); never of 1-D parameters.
        max_grad_norm: the gradient's global norm is clipped to this; 0 clips nothing.
        b_ratio: learning rate of B matrices over that of all others (LoRA+, arXiv 2402.12354).
    """

    name: OptimizerName = "adamw"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    b_ratio: float = 1.0

    def clip(self, grad_norm: float) -> float:
        """What the gradient is multiplied with."""
        return min(1.0, self.max_grad_norm / (grad_norm + 1e-6)) if self.max_grad_norm else 1.0


DEFAULT_OPTIMIZER = OptimizerSettings()


@dataclass(frozen=True)
class World:
    """The processes that train together: this one's rank, and how many there are."""

    rank: int = 0
    size: int = 1


@dataclass(frozen=True)
class StepResult:
    """One optimizer step.

    Attributes:
        loss: mean −log p over the step's targets, in nats, over all processes.
        targets: how many targets that were.
        grad_norm: global norm of the gradient of `loss`, before clipping.
        applied: whether the step changed anything.
    """

    loss: float
    targets: int
    grad_norm: float
    applied: bool = True


@dataclass(frozen=True)
class InputSquares:
    """What went into one linear layer, column by column: the importance matrix's raw material.

    Attributes:
        sums: (matrices, in) float32, sums of squared inputs; one matrix, or one per expert.
        counts: (matrices,) float32, the tokens that were summed; of an expert, those that were routed to it.
    """

    sums: npt.NDArray[np.float32]
    counts: npt.NDArray[np.float32]


Choose = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.int32]]
"""Gets (B, V) float32 logits of the next token, gives (B,) token ids."""


def always(_: StepResult) -> bool:
    """Accepts every step."""
    return True


class Engine(Protocol):
    """One model on one device.

    Args:
        directory: a Hugging Face model directory, or one that mlx-lm quantized.
        spec: the adapter; None runs the base model alone.
        arrays: the adapter's values (A, B, m; of `full` the weights themselves), float32; required with `spec`. Each
            may be read from a file when it is asked for.
        dtype: of the frozen base; the adapter's masters are always float32.
        optimizer: its name and hyper-parameters.
        gradient_checkpointing: keep only the inputs of the layers for the backward pass and compute the rest again.
        seed: of dropout, which is a pure function of (seed, optimizer steps done, micro-batch).
    """

    name: str
    device: str

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
    ) -> None: ...

    @classmethod
    def world(cls) -> World:
        """The processes that were launched together; the first call may wait for the others."""

    @property
    def dtype(self) -> str:
        """The base's dtype after `auto` is resolved: float32, bfloat16 or float16."""

    def logits(self, batch: Batch) -> npt.NDArray[np.float32]:
        """(B, T, V) float32."""

    def loss(self, batch: Batch) -> tuple[float, int]:
        """Sum of −log p over the batch's targets, in nats, and their number; of this process alone."""

    def target_logprobs(self, batch: Batch) -> npt.NDArray[np.float32]:
        """(B, T) float32, log p of every target in nats; 0 where the mask is off. Of this process alone.

        Their negative sum is what `loss` gives; the full logits never exist.
        """

    def continued(self, prompts: npt.NDArray[np.int32], choose: Choose) -> Iterator[npt.NDArray[np.int32]]:
        """Continue texts of one length token by token, with a cache of keys and values; endless.

        Args:
            prompts: (B, T) token ids, T at least 1, no padding.
            choose: picks each text's next token.

        Yields:
            (B,) the tokens that were chosen. A caller stops by not asking for more.

        Raises:
            ModelError: a text gets longer than a sliding window that the backend's model does not have.
        """

    def input_squares(self, batches: Iterable[Batch]) -> dict[str, InputSquares]:
        """What goes into every linear layer inside the transformer layers, over all tokens but padding.

        The adapter is applied, and nothing is changed. Of several processes each speaks of its own batches.

        Returns:
            by module name. Experts of one projection are one module, `model.layers.N.mlp.experts.gate_proj`.
        """

    def gradients(self, batches: Sequence[Batch]) -> tuple[StepResult, AdapterArrays]:
        """Loss and unclipped gradients of one step, token-weighted over all its micro-batches; nothing is changed.

        With dropout they are those of the step that comes next.
        """

    def step(
        self, batches: Sequence[Batch], learning_rate: float, accept: Callable[[StepResult], bool] = always
    ) -> StepResult:
        """One optimizer step over its micro-batches, which are this process's share of them.

        Args:
            accept: asked before anything is changed; when it says no, nothing is.
        """

    def adapter(self) -> AdapterArrays:
        """The adapter as it is now, float32."""

    def optimizer_state(self) -> OptimizerState:
        """Everything that the optimizer carries from step to step: `step` (1,) and arrays named `SLOT.NAME`.

        The slots of adam and adamw are called `exp_avg` and `exp_avg_sq` in both backends.
        """

    def restore(self, arrays: Mapping[str, Array], state: OptimizerState) -> None:
        """Put adapter and optimizer back to what `adapter()` and `optimizer_state()` once gave."""

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes; every process gets the same numbers."""

    def peak_memory(self) -> int:
        """Most memory that the framework (MLX) or the process (torch) held so far, in bytes."""
