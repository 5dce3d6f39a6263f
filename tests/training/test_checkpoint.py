"""Checkpoints are whole, proved by their hashes, and few."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from chrysalis_mlx.backends.base import OptimizerState
from chrysalis_mlx.errors import TrainingError
from chrysalis_mlx.run import sha256_file
from chrysalis_mlx.training.checkpoint import ADAPTERS, OPTIMIZER, STATE, Checkpoints, Record
from chrysalis_mlx.training.state import TrainingState
from tests.training.engines import CountingEngine

FILES = [ADAPTERS, OPTIMIZER, STATE]


class Kept:
    """Checkpoints of a counting engine, and what they said."""

    def __init__(self, directory: Path, keep: int = 3) -> None:
        self.directory, self.keep = directory, keep
        self.recorded: list[Record] = []
        self.warnings: list[str] = []
        self.checkpoints = self.opened()

    def opened(self) -> Checkpoints:
        def record(records: list[Record]) -> None:
            self.recorded = list(records)

        return Checkpoints(self.directory, self.recorded, self.keep, on_change=record, warn=self.warnings.append)

    def save(self, *steps: int, best: int | None = None) -> None:
        for step in steps:
            engine = CountingEngine()
            engine.x, engine.steps = step + 0.1, step
            loss = None if best is None else 1.0
            state = TrainingState(step=step, events=2 * step, best_step=best, best_loss=loss, recent=[0.1, 1 / 3])
            self.checkpoints.save(engine, state)

    @property
    def steps(self) -> list[int]:
        assert [path.name for path in sorted(self.directory.iterdir())] == [r["name"] for r in self.recorded]
        return [record["step"] for record in self.recorded]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "checkpoints")


def flip(file: Path, at: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def test_engine_and_state_come_back_bit_for_bit(kept: Kept) -> None:
    kept.save(2, 4)
    engine = CountingEngine()
    state = kept.opened().restore(engine)
    assert (engine.x, engine.steps) == (4.1, 4)
    assert state == TrainingState(step=4, events=8, recent=[0.1, 1 / 3])
    assert kept.warnings == []


def test_every_file_is_recorded_with_its_hash(kept: Kept) -> None:
    kept.save(2)
    path = kept.directory / "step-000002"
    assert kept.recorded == [
        {"name": "step-000002", "step": 2, "files": {file: sha256_file(path / file) for file in FILES}}
    ]
    inside = json.loads((path / STATE).read_text())["files"]
    assert inside == {file: sha256_file(path / file) for file in (ADAPTERS, OPTIMIZER)}
    assert kept.checkpoints.size == 16


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("at", [0, 20, -1])
def test_a_checkpoint_with_one_flipped_byte_is_refused_by_name_and_the_one_before_is_used(
    kept: Kept, file: str, at: int
) -> None:
    kept.save(2, 4)
    flip(kept.directory / "step-000004" / file, at)
    engine = CountingEngine()
    assert kept.opened().restore(engine).step == engine.steps == 2
    assert kept.warnings == [f"missing or damaged: step-000004/{file}; the training goes on from step 2"]
    assert [record["step"] for record in kept.recorded] == [2]


@pytest.mark.parametrize("file", FILES)
def test_when_none_is_whole_all_are_named_and_nothing_is_forgotten(kept: Kept, file: str) -> None:
    kept.save(2, 4)
    flip(kept.directory / "step-000004" / file)
    (kept.directory / "step-000002" / file).unlink()
    before = list(kept.recorded)
    with pytest.raises(TrainingError) as caught:
        kept.opened().restore(CountingEngine())
    assert f"missing or damaged: step-000004/{file}, step-000002/{file}" in str(caught.value)
    assert f"remove {kept.directory.parent} and train again from the start" in str(caught.value)
    assert kept.recorded == before


def test_the_newest_and_the_best_are_kept(kept: Kept) -> None:
    kept.keep = 2
    kept.checkpoints = kept.opened()
    kept.save(0)
    kept.save(1, 2, best=1)
    assert kept.steps == [1, 2]
    kept.save(3, 4, best=1)
    assert kept.steps == [1, 3, 4]
    kept.save(5, best=5)
    assert kept.steps == [4, 5]


def test_what_a_killed_process_left_is_removed_and_never_read(kept: Kept) -> None:
    kept.save(2)
    recorded = list(kept.recorded)
    kept.save(4)
    (kept.directory / "step-000006.partial").mkdir()
    kept.recorded = recorded  # killed before step 4 was recorded
    kept.checkpoints = kept.opened()
    assert kept.checkpoints.restore(CountingEngine()).step == 2
    kept.save(3)
    assert kept.steps == [2, 3]


def test_the_best_one_is_brought_back_at_the_end(kept: Kept) -> None:
    kept.save(2, 4, best=2)
    engine = CountingEngine()
    assert kept.checkpoints.restore_best(engine, TrainingState(step=4, best_step=2)) == engine.steps == 2
    flip(kept.directory / "step-000002" / ADAPTERS)
    engine = CountingEngine()
    assert kept.checkpoints.restore_best(engine, TrainingState(step=4, best_step=2)) == 4
    assert engine.steps == 0
    assert kept.warnings == [
        "the best checkpoint is damaged (step-000002/adapters.safetensors); the last step's adapter is kept"
    ]


def test_a_best_step_whose_checkpoint_is_gone_is_forgotten(kept: Kept) -> None:
    kept.save(2, 4, best=2)
    kept.recorded = [record for record in kept.recorded if record["step"] == 4]
    state = kept.opened().restore(CountingEngine())
    assert (state.best_step, state.best_loss) == (None, None)


def test_another_process_reads_a_step_that_it_did_not_record(kept: Kept, tmp_path: Path) -> None:
    kept.save(2)
    other = Checkpoints(kept.directory, on_change=lambda _: None, warn=kept.warnings.append)
    engine = CountingEngine()
    assert other.restore_step(engine, 2).step == engine.steps == 2
    flip(kept.directory / "step-000002" / OPTIMIZER)
    with pytest.raises(TrainingError, match=r"step-000002/optimizer\.safetensors"):
        other.restore_step(engine, 2)
    with pytest.raises(TrainingError, match=r"step-000009/state\.json"):
        other.restore_step(engine, 9)


def test_an_optimizer_may_hold_any_dtype_and_any_layout(tmp_path: Path) -> None:
    arrays: OptimizerState = {
        "float16": np.arange(6, dtype=np.float16).reshape(2, 3),
        "float64": np.arange(6.0).reshape(2, 3).T,
        "bytes": np.arange(9, dtype=np.uint8)[::2],
        "scalar": np.array(7, np.int64),
    }

    class Holding(CountingEngine):
        state: OptimizerState = arrays

        def optimizer_state(self) -> OptimizerState:
            return self.state

        def restore(self, _: object, state: OptimizerState) -> None:  # type: ignore[override]
            self.state = state

    kept = Kept(tmp_path)
    kept.checkpoints.save(Holding(), TrainingState(step=1))
    engine = Holding()
    engine.state = {}
    kept.opened().restore(engine)
    assert {name: (array.dtype, array.tolist()) for name, array in engine.state.items()} == {
        name: (array.dtype, array.tolist()) for name, array in arrays.items()
    }
