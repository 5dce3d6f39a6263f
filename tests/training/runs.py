"""A training of a counting engine, as the tests of the loop call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chrysalis_mlx.batches.order import PackedRows
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.blueprint.schema import TrainingSection
from chrysalis_mlx.training.checkpoint import Record
from chrysalis_mlx.training.loop import TrainingResult, run_training
from chrysalis_mlx.training.metrics import read_metrics
from tests.training.engines import CountingEngine

SECTION = TrainingSection(
    row_length=16,
    batch_size=2,
    gradient_accumulation=2,
    steps=7,
    warmup_steps=2,
    learning_rate=1e-3,
    min_learning_rate=1e-4,
    validate_every=3,
    checkpoint_every=2,
    min_battery=None,
)
ROWS = PackedRows([Segment(np.full(12, n, np.int32), np.arange(12) > 0) for n in range(1, 10)], 16, "ab" * 32, 0)
PER_STEP = 4 * 11  # targets
CHANGING = ("seconds", "tokens_per_second", "peak_memory")


class Training:
    """One run directory that may be trained in several calls; the records outlive a call as run.json does."""

    def __init__(self, directory: Path, section: TrainingSection = SECTION) -> None:
        self.directory, self.section = directory, section
        self.records: list[Record] = []
        self.saved: list[int] = []
        self.warnings: list[str] = []
        self.on_save: Callable[[int], object] = lambda step: None

    def __call__(self, engine: CountingEngine, **options: Any) -> TrainingResult:
        def keep(records: list[Record]) -> None:
            self.records = list(records)
            self.saved.append(records[-1]["step"])
            self.on_save(records[-1]["step"])

        return run_training(
            engine,
            ROWS,
            ROWS.in_order(2, 3),
            self.section,
            self.directory,
            checkpoints=self.records,
            on_checkpoint=keep,
            warn=self.warnings.append,
            **options,
        )

    @property
    def events(self) -> list[dict[str, Any]]:
        return read_metrics(self.directory / "metrics.jsonl")

    @property
    def timeless(self) -> list[dict[str, Any]]:
        """The events without what differs from call to call."""
        return [{key: value for key, value in event.items() if key not in CHANGING} for event in self.events]

    def steps(self, kind: str) -> list[int]:
        return [event["step"] for event in self.events if event["kind"] == kind]

    @property
    def standing(self) -> list[int]:
        """The steps whose checkpoints are on the disk, which are the recorded ones."""
        names: Sequence[str] = sorted(path.name for path in (self.directory / "checkpoints").iterdir())
        assert names == [record["name"] for record in self.records]
        return [record["step"] for record in self.records]
