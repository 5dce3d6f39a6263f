"""The MLX engine: mlx-lm's models on Metal, CUDA or a CPU (contract: backends/base.py)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten, tree_unflatten

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
from chrysalis_mlx.backends.mlx.adapter import LoRALinear, attach
from chrysalis_mlx.backends.mlx.decoding import continued
from chrysalis_mlx.backends.mlx.exponential import on_cpu
from chrysalis_mlx.backends.mlx.importance import input_squares
from chrysalis_mlx.backends.mlx.loss import chunk_size, fused_loss_sum, target_logprobs
from chrysalis_mlx.backends.mlx.memory import prepare_memory
from chrysalis_mlx.backends.mlx.model import DTYPES, PackedModel
from chrysalis_mlx.backends.mlx.optimizer import Arrays, Optimizer
from chrysalis_mlx.backends.mlx.rows import Compiled, Rows, in_lanes
from chrysalis_mlx.batches.packing import Batch

Constants = list[mx.array | None]


class Engine:
    """One model on MLX's default device."""

    name = "mlx"
    device = "cpu" if on_cpu() else "gpu"

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
        prepare_memory()
        self._model = PackedModel(directory, dtype)
        self._chunk = chunk_size(self._model.vocabulary)
        self._settings, self._checkpointing, self._seed = optimizer, gradient_checkpointing, seed
        self._adapters: list[LoRALinear] = []
        self._bound = 0  # how often other values were put into the model
        self._dropout = spec.dropout if spec else 0.0
        self._whole = frozenset(spec.weights) if spec else frozenset()
        if spec is not None and arrays is not None:
            self._adapters = attach(self._model.module, spec, arrays, DTYPES[self.dtype])
        self._masters: Arrays = dict(tree_flatten(self._model.module.trainable_parameters()))
        self._optimizer = Optimizer(optimizer, {name: value.ndim for name, value in self._masters.items()})

    @classmethod
    def world(cls) -> World:
        group = mx.distributed.init()
        return World(group.rank(), group.size())

    @property
    def dtype(self) -> str:
        return self._model.dtype

    def logits(self, batch: Batch) -> npt.NDArray[np.float32]:
        self._bind(self._masters, self._norms())
        return np.array(self._model.head(self._hidden(batch)).astype(mx.float32))

    def loss(self, batch: Batch) -> tuple[float, int]:
        self._bind(self._masters, self._norms())
        sums = in_lanes(batch, self._chunk, lambda rows, _: self._loss_sum(rows, learn=False))
        return sum(map(_number, sums)), batch.target_count

    def target_logprobs(self, batch: Batch) -> npt.NDArray[np.float32]:
        self._bind(self._masters, self._norms())

        def build(rows: Rows, _: int) -> tuple[mx.array, mx.array]:
            return target_logprobs(self._model.head, self._chosen(rows), rows.targets, self._chunk), rows.weights

        lanes = in_lanes(batch, self._chunk, build)
        found = np.zeros(batch.mask.shape, np.float32)
        found[batch.mask] = np.concatenate([np.array(log_p)[np.array(weights) > 0] for log_p, weights in lanes])
        return found

    def continued(self, prompts: npt.NDArray[np.int32], choose: Choose) -> Iterator[npt.NDArray[np.int32]]:
        masters, norms, bound = self._masters, self._norms(), -1

        def bind() -> None:
            nonlocal bound
            if self._bound != bound:  # another call came between two tokens
                self._bind(masters, norms)
                bound = self._bound

        yield from continued(self._model, prompts, choose, bind)

    def input_squares(self, batches: Iterable[Batch]) -> dict[str, InputSquares]:
        self._bind(self._masters, self._norms())
        return input_squares(self._model.module, self._hidden, batches)

    def gradients(self, batches: Sequence[Batch]) -> tuple[StepResult, AdapterArrays]:
        result, gradients = self._accumulate(batches)
        return result, _numpy(gradients)

    def step(
        self, batches: Sequence[Batch], learning_rate: float, accept: Callable[[StepResult], bool] = always
    ) -> StepResult:
        result, gradients = self._accumulate(batches)
        if not accept(result):
            return replace(result, applied=False)
        clip = self._settings.clip(result.grad_norm)
        clipped = {name: gradient * clip for name, gradient in gradients.items()}
        self._masters = self._optimizer.apply(self._masters, clipped, learning_rate)
        mx.eval(self._masters, self._optimizer.arrays())
        return result

    def adapter(self) -> AdapterArrays:
        return _numpy(self._masters)

    def optimizer_state(self) -> OptimizerState:
        return self._optimizer.state()

    def restore(self, arrays: Mapping[str, Array], state: OptimizerState) -> None:
        self._masters = {name: mx.array(arrays[name]) for name in self._masters}
        self._optimizer.restore(state)

    def total(self, values: Sequence[float]) -> list[float]:
        if self.world().size == 1:
            return list(values)
        # Two float32 numbers for each: there is no float64 between machines, and counts must not be rounded.
        high = np.array(values, np.float64).astype(np.float32)
        low = (np.array(values, np.float64) - high).astype(np.float32)
        summed = np.array(mx.distributed.all_sum(mx.array(np.stack([high, low]))), np.float64)
        return [float(value) for value in summed.sum(axis=0)]

    def peak_memory(self) -> int:
        return int(mx.get_peak_memory())

    def _hidden(self, batch: Batch) -> mx.array:
        """(B, T, H), lazy."""
        segments = None if (batch.segments <= 1).all() else mx.array(batch.segments)
        return self._model.hidden(mx.array(batch.tokens), segments)

    def _accumulate(self, batches: Sequence[Batch]) -> tuple[StepResult, Arrays]:
        """Sum losses and gradients of the micro-batches of all processes, then divide by all their targets."""
        norms = self._norms()
        summed = {name: mx.zeros(value.shape) for name, value in self._masters.items()}
        total, count = 0.0, 0.0
        for number, batch in enumerate(batches):
            learn = partial(self._learn, self._masters, norms, number)
            for value, gradients in in_lanes(batch, self._chunk, learn):
                summed = {name: summed[name] + gradients[name] for name in summed}
                total += _number(value)
            mx.eval(summed)
            count += batch.target_count
        total, count = self.total([total, float(count)])
        mean = {name: value / max(count, 1) for name, value in self._sum_over_processes(summed).items()}
        norm = mx.sqrt(mx.stack([mx.square(gradient).sum() for gradient in mean.values()]).sum())
        mx.eval(mean, norm)
        return StepResult(total / max(count, 1), int(count), _number(norm)), mean

    @cached_property
    def _learn(self) -> Callable[[Arrays, Constants, int, Rows, int], tuple[mx.array, Arrays]]:
        """Loss sum and gradients of a lane's rows of a micro-batch, compiled: once for each shape of `Rows`."""
        engine = weakref.proxy(self)  # it holds the compiled function, which must not hold it

        def loss_sum(masters: Arrays, norms: Constants, key: mx.array | None, *rows: Any) -> mx.array:
            engine._bind(masters, norms, key)
            total: mx.array = engine._loss_sum(Rows(*rows), learn=True)
            return total

        compiled = Compiled(mx.value_and_grad(loss_sum))

        def learn(
            masters: Arrays, norms: Constants, micro_batch: int, rows: Rows, lane: int
        ) -> tuple[mx.array, Arrays]:
            key = engine._dropout_key(micro_batch, lane)
            found: tuple[mx.array, Arrays] = compiled(masters, norms, key, *rows)
            return found

        return learn

    def _loss_sum(self, rows: Rows, *, learn: bool) -> mx.array:
        """Sum of −log p over the rows' targets."""
        if not rows.positions.size:
            return mx.array(0.0)
        chosen = self._chosen(rows, checkpoint=learn and self._checkpointing)
        return fused_loss_sum(self._model.head, chosen, rows.targets, self._chunk, weights=rows.weights, learn=learn)

    def _chosen(self, rows: Rows, *, checkpoint: bool = False) -> mx.array:
        """(N, H), the hidden states that the rows' targets are predicted from."""
        hidden = self._model.hidden(rows.tokens, rows.segments, checkpoint=checkpoint)
        return hidden.reshape(-1, hidden.shape[-1])[rows.positions]

    def _bind(self, masters: Arrays, norms: Constants, key: mx.array | None = None) -> None:
        """Let the model compute with these values; whole weights in the base's dtype, adapters by their masters.

        Args:
            norms: of each adapter, see `_norms`.
            key: that dropout is drawn from; None drops nothing.
        """
        self._bound += 1
        dtype = DTYPES[self.dtype]
        values = [(name, value.astype(dtype) if name in self._whole else value) for name, value in masters.items()]
        if values:
            self._model.module.update(tree_unflatten(values))
        keys = [None] * len(norms) if key is None else list(mx.random.split(key, len(norms)))
        for adapter, norm, own in zip(self._adapters, norms, keys, strict=True):
            adapter.use(norm, own)

    def _norms(self) -> Constants:
        """What each adapter keeps constant in a step, evaluated."""
        if self._adapters:
            self._bound += 1
            self._model.module.update(tree_unflatten(list(self._masters.items())))
        norms = [adapter.norm() for adapter in self._adapters]
        mx.eval(norms)
        return norms

    def _dropout_key(self, micro_batch: int, lane: int) -> mx.array | None:
        """A pure function of the seed, the steps done, and the process, micro-batch and lane; None without dropout."""
        if not self._dropout:
            return None
        entropy = [self._seed, self._optimizer.steps, self.world().rank, micro_batch, lane]
        return mx.random.key(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))

    def _sum_over_processes(self, arrays: Arrays) -> Arrays:
        """The arrays summed over all processes, sent as one."""
        if self.world().size == 1:
            return arrays
        flat = mx.distributed.all_sum(mx.concatenate([value.reshape(-1) for value in arrays.values()]))
        ends = np.cumsum([value.size for value in arrays.values()])[:-1].tolist()
        parts = mx.split(flat, ends)
        return {name: part.reshape(value.shape) for (name, value), part in zip(arrays.items(), parts, strict=True)}


def _number(value: mx.array) -> float:
    return float(np.array(value))


def _numpy(arrays: Arrays) -> AdapterArrays:
    return {name: np.array(value, np.float32) for name, value in arrays.items()}
