"""A batch as MLX gets it, and its lanes.

On a processor MLX works through a stream with one thread; only matrix products use more. So the rows of a batch are
dealt out to as many threads as there are cores, each with a stream of its own and one thread for its matrix products.
On a GPU all rows go together.
"""

from __future__ import annotations

import atexit
import itertools
import os
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import fields
from functools import cache, partial
from typing import Any, ClassVar, NamedTuple, TypeVar

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from chrysalis_mlx.backends.mlx import blas
from chrysalis_mlx.backends.mlx.exponential import on_cpu
from chrysalis_mlx.batches.packing import Batch

T = TypeVar("T")

_SHAPES = 8  # at most so many are compiled, beside the one without a target
_building = threading.Lock()


class Rows(NamedTuple):
    """Some rows of a batch, for a compiled function: their shapes are few.

    Attributes:
        tokens: (B, T) int32.
        segments: (B, T) int32; None where every row is one segment, so that the mask is the causal one.
        positions: (N,) int32, indices into the B·T positions, of those that have a target; N is filled up to a multiple
            of an eighth of B·T.
        targets: (N,) int32.
        weights: (N,) float32, 1 for a target and 0 for what fills up.
    """

    tokens: mx.array
    segments: mx.array | None
    positions: mx.array
    targets: mx.array
    weights: mx.array

    @classmethod
    def of(cls, batch: Batch, chunk: int) -> Rows:
        chosen = np.flatnonzero(batch.mask)
        quantum = -(-batch.mask.size // _SHAPES)
        positions = np.zeros(-(-len(chosen) // quantum) * quantum, np.int32)
        positions[: len(chosen)] = chosen
        targets = batch.targets.reshape(-1)[positions]
        weights = np.arange(len(positions)) < len(chosen)
        segments = None if (batch.segments <= 1).all() else mx.array(batch.segments)
        return cls(mx.array(batch.tokens), segments, *map(mx.array, (positions, targets, weights.astype(np.float32))))


def in_lanes(batch: Batch, chunk: int, build: Callable[[Rows, int], T]) -> list[T]:
    """What `build` makes of each lane's rows, evaluated.

    Args:
        chunk: of the loss.
        build: makes lazy arrays of some rows and the number of their lane, and must not evaluate them: lanes build one
            after the other, because all of them put their values into the same model, and evaluate at the same time.
            Arrays that it uses are evaluated already.
    """
    if not on_cpu():
        return [_evaluated(build(Rows.of(batch, chunk), 0))]
    lanes = _lanes()
    count = min(len(lanes), len(batch.tokens))
    blas.use_threads(len(lanes) // count)
    shares = np.array_split(np.arange(len(batch.tokens)), count)

    def run(number: int, share: npt.NDArray[np.int64]) -> T:
        part = Batch(*(getattr(batch, field.name)[share] for field in fields(Batch)))
        with _building:
            built = build(Rows.of(part, chunk), number)
        return _evaluated(built)

    running = [lanes[number].submit(partial(run, number, share)) for number, share in enumerate(shares)]
    return [future.result() for future in running]


class Compiled:
    """A function that every thread compiles for itself.

    MLX keeps what it compiled, and the weights in it, in the thread that called it, under the function's address, until
    that thread lets go of it. Let go by another, it would hold the weights for ever, and serve the next function that
    gets the address.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self._number = function, next(_numbers)
        weakref.finalize(self, _forget, self._number).atexit = False

    def __call__(self, *arguments: Any) -> Any:
        own = _own()
        if self._number not in own:
            own[self._number] = mx.compile(self._function)
        return own[self._number](*arguments)


_numbers = itertools.count()
_local = threading.local()


def _own() -> dict[int, Callable[..., Any]]:
    """What this thread has compiled."""
    found: dict[int, Callable[..., Any]] = _local.__dict__.setdefault("compiled", {})
    return found


def _forget(number: int) -> None:
    for lane in _Lane.started:
        lane.submit(partial(_let_go, number))
    _let_go(number)


def _let_go(number: int) -> None:
    _own().pop(number, None)


class _Lane(threading.Thread):
    """A thread that works off one task after the other until the program ends.

    It must end before the interpreter does, which takes threads that are at work away from under MLX, and aborts; and
    MLX's streams must end in the thread that they belong to.
    """

    started: ClassVar[list[_Lane]] = []

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.started.append(self)
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self.start()
        atexit.register(self._end)

    def submit(self, task: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._tasks.put((future, task))
        return future

    def run(self) -> None:
        while (given := self._tasks.get()) is not None:
            future, task = given
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)
            del given, future, task  # what they hold is large
        _own().clear()
        mx.clear_streams()

    def _end(self) -> None:
        self._tasks.put(None)
        self.join()


def _evaluated(tree: T) -> T:
    mx.eval(tree)
    return tree


@cache
def _lanes() -> list[_Lane]:
    """One for each core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [_Lane() for _ in range(cores)]
