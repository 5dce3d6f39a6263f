"""Checkpoints: adapter, optimizer and the loop's state, whole or not there.

`step-NNNNNN/` holds adapters.safetensors, optimizer.safetensors and state.json: the loop's state and the sha256 of the
two others. No random state is among them, and none is needed: dropout and the order of the rows are pure functions of
(seed, step), so a training that goes on from a checkpoint ends bit for bit like one that never stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.errors import TrainingError
from chrysalis_mlx.run import atomic_path, sha256_file, write_json
from chrysalis_mlx.training.state import TrainingState

ADAPTERS, OPTIMIZER, STATE = "adapters.safetensors", "optimizer.safetensors", "state.json"

Record = dict[str, Any]
"""One checkpoint in run.json: `name`, `step`, and `files` with the sha256 of each."""


class Checkpoints:
    """The checkpoints of one training.

    Args:
        directory: where they lie.
        records: those that were recorded so far, oldest first; only a recorded one is ever read.
        keep: how many of the newest stay; the best one stays beside them.
        on_change: gets the records to be kept, before what is not among them is removed.
        warn: gets a line about every checkpoint that is refused.

    Attributes:
        records: those that stand now, oldest first.
        size: bytes of tensors in the one written last, or being written.
    """

    def __init__(
        self,
        directory: Path,
        records: Sequence[Record] = (),
        keep: int = 3,
        *,
        on_change: Callable[[list[Record]], None],
        warn: Callable[[str], None],
    ) -> None:
        self.directory = directory
        self.records = list(records)
        self.size = 0
        self._keep = keep
        self._on_change = on_change
        self._warn = warn

    def save(self, engine: Engine, state: TrainingState) -> None:
        """Write a checkpoint, record it, and remove those that are no longer kept."""
        tensors = {ADAPTERS: engine.adapter(), OPTIMIZER: engine.optimizer_state()}
        self.size = sum(array.nbytes for arrays in tensors.values() for array in arrays.values())
        name = _name(state.step)
        with atomic_path(self.directory / name) as partial:
            partial.mkdir()
            for file, arrays in tensors.items():
                # safetensors writes the memory as it lies.
                save_file({key: np.asarray(array, order="C") for key, array in arrays.items()}, partial / file)
            files = {file: sha256_file(partial / file) for file in tensors}
            write_json(partial / STATE, state.to_json() | {"files": files})
            files[STATE] = sha256_file(partial / STATE)
        others = [record for record in self.records if record["step"] < state.step]
        self.records = [*others, {"name": name, "step": state.step, "files": files}]
        self._prune(state.best_step)

    def restore(self, engine: Engine) -> TrainingState:
        """Put an engine back to the newest checkpoint that is whole; those that are not are named and given up.

        Raises:
            TrainingError: none is whole.
        """
        refused: list[str] = []
        for count in range(len(self.records), 0, -1):
            record = self.records[count - 1]
            damaged = self._damaged(record["name"], record["files"])
            if not damaged:
                self._give_up(count, refused)
                self._sweep()
                return self._load(record["name"], engine)
            refused += damaged
        raise TrainingError(
            f"no checkpoint is whole; missing or damaged: {', '.join(refused)}",
            where=self.directory,
            fix=f"remove {self.directory.parent} and train again from the start",
        )

    def restore_step(self, engine: Engine, step: int) -> TrainingState:
        """Put an engine back to the checkpoint of a step that another process recorded.

        Raises:
            TrainingError: it is missing or damaged.
        """
        try:
            files = json.loads((self.directory / _name(step) / STATE).read_text(encoding="utf-8"))["files"]
            damaged = self._damaged(_name(step), files)
        except (OSError, ValueError, KeyError):
            damaged = [f"{_name(step)}/{STATE}"]
        if damaged:
            raise TrainingError(f"a checkpoint is missing or damaged: {', '.join(damaged)}", where=self.directory)
        return self._load(_name(step), engine)

    def restore_best(self, engine: Engine, state: TrainingState) -> int:
        """Put an engine back to the best checkpoint, where that is another one than where it stands.

        Returns:
            the step that it stands at; `state.step` when the best one is damaged, which is told.
        """
        if state.best_step is None or state.best_step == state.step:
            return state.step
        record = next(record for record in self.records if record["step"] == state.best_step)
        damaged = self._damaged(record["name"], record["files"])
        if damaged:
            self._warn(f"the best checkpoint is damaged ({', '.join(damaged)}); the last step's adapter is kept")
            return state.step
        self._load(record["name"], engine)
        return state.best_step

    def _load(self, name: str, engine: Engine) -> TrainingState:
        path = self.directory / name
        state = TrainingState.from_json(json.loads((path / STATE).read_text(encoding="utf-8")))
        if state.best_step not in {record["step"] for record in self.records}:
            state.best_step = state.best_loss = None
        engine.restore(load_file(path / ADAPTERS), load_file(path / OPTIMIZER))
        return state

    def _damaged(self, name: str, files: Mapping[str, str]) -> list[str]:
        """The files of a checkpoint that are not what was recorded, as `step-NNNNNN/FILE`."""
        path = self.directory / name
        return [
            f"{name}/{file}"
            for file, digest in files.items()
            if not (path / file).is_file() or sha256_file(path / file) != digest
        ]

    def _give_up(self, count: int, refused: Sequence[str]) -> None:
        if refused:
            self.records = self.records[:count]
            goes_on = self.records[-1]["step"]
            self._warn(f"missing or damaged: {', '.join(refused)}; the training goes on from step {goes_on}")
            self._on_change(self.records)

    def _prune(self, best: int | None) -> None:
        newest = self.records[-self._keep :]
        self.records = [record for record in self.records if record in newest or record["step"] == best]
        self._on_change(self.records)
        self._sweep()

    def _sweep(self) -> None:
        """Remove what is not recorded, also what a killed process left half written."""
        names = {record["name"] for record in self.records}
        for path in self.directory.glob("step-*"):
            if path.name not in names:
                shutil.rmtree(path)


def _name(step: int) -> str:
    return f"step-{step:06d}"
