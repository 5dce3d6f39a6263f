"""Several processes, here as threads with an engine each: they decide alike, and the first one alone writes."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.backends.base import StepResult, World, always
from chrysalis_mlx.backends.measure import measure
from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.errors import TrainingError
from chrysalis_mlx.training.loop import TrainingResult
from chrysalis_mlx.training.power import Battery, BatteryWatch
from tests.training.engines import CountingEngine
from tests.training.runs import ROWS, Training


class Meeting:
    """Where the ranks add their numbers up."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=20)
        self.values: dict[int, list[float]] = {}

    def total(self, rank: int, values: Sequence[float]) -> list[float]:
        self.values[rank] = list(values)
        self.barrier.wait()
        totals = [math.fsum(column) for column in zip(*self.values.values(), strict=True)]
        self.barrier.wait()
        return totals


class Ranked(CountingEngine):
    """A counting engine that adds up the tokens of all ranks."""

    def __init__(self, rank: int, meeting: Meeting, size: int, **planned: Any) -> None:
        super().__init__(**planned)
        self.rank, self.meeting, self.size = rank, meeting, size
        self.rows: list[int] = []

    def world(self) -> World:  # type: ignore[override]
        return World(self.rank, self.size)

    def total(self, values: Sequence[float]) -> list[float]:
        return self.meeting.total(self.rank, values)

    def step(
        self, batches: Sequence[Batch], learning_rate: float, accept: Callable[[StepResult], bool] = always
    ) -> StepResult:
        self.rows.append(sum(len(batch.tokens) for batch in batches))
        tokens, targets = self.total(
            [sum(int(batch.tokens.sum()) for batch in batches), sum(batch.target_count for batch in batches)]
        )
        result = StepResult(self._next(self.losses, 10 - self.x), round(targets), self._next(self.norms, 1.0))
        if not accept(result):
            return StepResult(result.loss, result.targets, result.grad_norm, applied=False)
        self.x += learning_rate * tokens
        self.steps += 1
        self.after_step(self.steps)
        return result


class Together:
    """Trainings of all ranks at once; what each gave or raised."""

    def __init__(self, directories: Sequence[Path], **planned: Any) -> None:
        meeting, size = Meeting(len(directories)), len(directories)
        self.trainings = [Training(directory) for directory in directories]
        self.engines = [
            Ranked(rank, meeting, size, **{name: dict(value) for name, value in planned.items()})
            for rank in range(size)
        ]
        self.found: list[TrainingResult | BaseException | None] = [None] * size

    def __call__(self, options: Sequence[dict[str, Any]] = ({}, {}, {})) -> list[TrainingResult | BaseException | None]:
        def work(rank: int) -> None:
            try:
                self.found[rank] = self.trainings[rank](self.engines[rank], **options[rank])
            except BaseException as error:
                self.found[rank] = error

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(self.engines))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.found


def results(together: Together, options: Sequence[dict[str, Any]] = ({}, {}, {})) -> list[TrainingResult]:
    found = together(options)
    assert all(isinstance(result, TrainingResult) for result in found), found
    return found  # type: ignore[return-value]


@pytest.fixture
def alone(tmp_path: Path) -> tuple[Training, CountingEngine]:
    training, engine = Training(tmp_path / "alone"), CountingEngine()
    training(engine)
    return training, engine


def test_three_together_do_what_one_does_alone(tmp_path: Path, alone: tuple[Training, CountingEngine]) -> None:
    together = Together([tmp_path / "shared"] * 3)
    found = results(together)
    assert [engine.x for engine in together.engines] == pytest.approx([alone[1].x] * 3)
    assert [set(engine.rows) for engine in together.engines] == [{1}, {1}, {2}]  # of the four rows of a step
    assert [result.valid_loss for result in found] == pytest.approx([found[0].valid_loss] * 3)
    assert together.trainings[0].standing == alone[0].standing
    assert [training.saved for training in together.trainings[1:]] == [[], []]
    for event, expected in zip(together.trainings[0].timeless, alone[0].timeless, strict=True):
        assert event == pytest.approx(expected)


def test_more_processes_than_rows_leave_some_with_none(tmp_path: Path) -> None:
    together = Together([tmp_path / "shared"] * 5)
    results(together, [{}] * 5)
    assert sorted(min(engine.rows) for engine in together.engines) == [0, 1, 1, 1, 1]
    assert len({engine.x for engine in together.engines}) == 1


def test_they_roll_back_together_to_what_the_first_one_wrote(tmp_path: Path) -> None:
    together = Together([tmp_path / "shared"] * 2, losses={4: [math.nan, 9.0]})
    assert [result.rollbacks for result in results(together)] == [1, 1]
    assert together.engines[0].x == together.engines[1].x


def test_ctrl_c_minutes_and_battery_of_one_are_those_of_all(tmp_path: Path) -> None:
    paused = Together([tmp_path / "shared"] * 2)
    found = results(paused, [{}, {"max_minutes": 0}])
    assert [(result.paused, result.steps) for result in found] == [(True, 1)] * 2
    assert paused.trainings[0].standing == [0, 1]

    now = [0.0, 0.0]

    def watch(rank: int) -> BatteryWatch:
        def sleep(seconds: float) -> None:
            now[rank] += seconds

        low = rank == 1
        return BatteryWatch(20, lambda: Battery(5, low and now[rank] < 100), clock=lambda: now[rank], sleep=sleep)

    results(Together([tmp_path / "battery"] * 2), [{"battery": watch(0)}, {"battery": watch(1)}])
    assert now == [120.0, 120.0]


def test_they_go_on_from_a_shared_or_a_copied_directory(tmp_path: Path) -> None:
    first = Together([tmp_path / "one"] * 2)
    results(first, [{"max_minutes": 0}, {}])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    again = Together([tmp_path / "one", tmp_path / "two"])
    again.trainings[0].records = first.trainings[0].records
    assert [result.resumed_at for result in results(again)] == [1, 1]
    assert again.engines[0].x == again.engines[1].x
    assert sorted(path.name for path in (tmp_path / "two/checkpoints").iterdir()) == ["step-000000", "step-000001"]


def test_a_process_without_the_checkpoint_stops_all(tmp_path: Path) -> None:
    first = Together([tmp_path / "one"] * 2)
    results(first, [{"max_minutes": 0}, {}])
    again = Together([tmp_path / "one", tmp_path / "elsewhere"])
    again.trainings[0].records = first.trainings[0].records
    for error in again():
        assert isinstance(error, TrainingError)
        assert "not all at the same step" in str(error)
        assert "share the run directory, or copy" in str(error)


def test_when_the_first_one_has_no_whole_checkpoint_all_stop(tmp_path: Path) -> None:
    first = Together([tmp_path / "one"] * 2)
    results(first, [{"max_minutes": 0}, {}])
    for file in (tmp_path / "one/checkpoints").glob("*/state.json"):
        file.write_text("{}")
    again = Together([tmp_path / "one"] * 2)
    again.trainings[0].records = first.trainings[0].records
    lead, other = again()
    assert "no checkpoint is whole" in str(lead)
    assert isinstance(other, TrainingError)


def test_each_measures_its_share_and_all_get_the_whole() -> None:
    meeting, batches = Meeting(2), ROWS.in_order(2)
    engines = [Ranked(rank, meeting, 2) for rank in range(2)]
    measured: list[list[int]] = [[], []]
    found: list[Any] = [None, None]

    def work(rank: int) -> None:
        loss = engines[rank].loss

        def counted(batch: Batch) -> tuple[float, int]:
            measured[rank].append(batch.target_count)
            return loss(batch)

        engines[rank].loss = counted  # type: ignore[method-assign]
        found[rank] = measure(engines[rank], batches)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(counts) for counts in measured] == [3, 2]
    assert found[0] == found[1] == measure(CountingEngine(), batches)
