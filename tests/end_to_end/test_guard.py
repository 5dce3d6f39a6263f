"""A training whose adapter turns into NaN is not spoiled: it goes back to its checkpoint, slower, and ends well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.files import load_adapter
from chrysalis_mlx.backends.base import Engine, StepResult, always
from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.errors import TrainingError
from chrysalis_mlx.pipeline.corpus import corpus
from chrysalis_mlx.pipeline.train import train
from chrysalis_mlx.training.metrics import read_metrics
from chrysalis_mlx.workspace import Origin, Workspace


def poison(monkeypatch: pytest.MonkeyPatch, backend: str, *, times: int) -> None:
    """Put NaN into the adapter before the fifth step, whenever it comes, so many times."""
    engine_class = backends.load(backend)
    step, calls = engine_class.step, []

    def poisoned(
        self: Engine, batches: Sequence[Batch], rate: float, accept: Callable[[StepResult], bool] = always
    ) -> StepResult:
        state = self.optimizer_state()
        if state["step"][0] == 4 and len(calls) < times:
            calls.append(rate)
            arrays = self.adapter()
            next(iter(arrays.values())).fill(np.nan)
            self.restore(arrays, state)
        return step(self, batches, rate, accept)

    monkeypatch.setattr(engine_class, "step", poisoned)


@pytest.fixture
def workspace(inputs: Path, tiny_model: Path, tmp_path: Path) -> Workspace:
    origin = Origin(genome=inputs / "genome.txt", model=str(tiny_model), blueprint=str(inputs / "blueprint.yaml"))
    workspace = Workspace.create(tmp_path / "run", origin)
    corpus(workspace)
    return workspace


@pytest.mark.parametrize("backend", backends.NAMES)
def test_nan_in_the_adapter_is_rolled_back(workspace: Workspace, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, backend, times=1)
    report = train(workspace, backend)["report"]
    assert (report["steps"], report["rollbacks"]) == (6, 1)
    events = read_metrics(workspace.run.path("training", "metrics.jsonl"))
    [event] = [event for event in events if event["kind"] == "rollback"]
    assert (event["step"], event["undone"], event["rate_factor"]) == (4, 5, 0.5)
    assert event["reason"] == "the loss is nan"
    assert all(np.isfinite(event["loss"]) for event in events if "loss" in event)
    for array in load_adapter(workspace.run.path("adapters"), workspace.adapter_spec()).values():
        assert np.isfinite(array).all()


@pytest.mark.parametrize("backend", backends.NAMES)
def test_the_fourth_time_the_run_has_failed_with_the_reason_and_keeps_its_checkpoint(
    workspace: Workspace, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, backend, times=99)
    with pytest.raises(TrainingError, match=r"step 5: the loss is nan; after 3 rollbacks"):
        train(workspace, backend)
    stage = workspace.run.stage("train")
    assert stage["status"] == "failed"
    assert "the loss is nan" in stage["reason"]
    assert stage["checkpoints"][-1]["step"] == 4
