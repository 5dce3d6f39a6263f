"""A training as a stage of a run: what it reads from the stage's record, and what it leaves there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chrysalis_mlx.adapters.files import save_mlx, save_peft
from chrysalis_mlx.adapters.spec import AdapterSpec
from chrysalis_mlx.backends.base import Engine, OptimizerSettings
from chrysalis_mlx.batches.order import PackedRows
from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.blueprint.schema import TrainingSection
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import Run, atomic_path, sha256_json
from chrysalis_mlx.training.failures import memory_explained
from chrysalis_mlx.training.loop import run_training
from chrysalis_mlx.training.report import Subject, trackers

ADAPTER_FILES = ("adapters.safetensors", "adapter_config.json")
PEFT_FILES = ("peft/adapter_model.safetensors", "peft/adapter_config.json")

_log = logging.getLogger(__name__)


def optimizer_settings(section: TrainingSection) -> OptimizerSettings:
    """What the blueprint says of the optimizer."""
    return OptimizerSettings(
        name=section.optimizer,
        beta1=section.beta1,
        beta2=section.beta2,
        epsilon=section.epsilon,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        b_ratio=section.b_ratio,
    )


def train_stage(
    run: Run,
    record: dict[str, Any],
    spec: AdapterSpec,
    open_engine: Callable[[], Engine],
    train: PackedRows,
    valid: Sequence[Batch],
    section: TrainingSection,
    *,
    layers: int,
    settings: Mapping[str, Any],
    max_minutes: float | None = None,
    progress: Progress = silent,
) -> None:
    """Train, and write adapters/ when it is done.

    Args:
        record: of the stage, while it is recorded. Read: `checkpoints`. Written: `checkpoints`, `steps` (how many there
            will be), `notes` (what the user was told), `report`, `outputs`; `status` when it paused.
        open_engine: loads the model, when everything that is quick to check has been checked.
        layers: of the model.
        settings: what trackers are told about the run.

    Raises:
        TrainingError: the training cannot go on, or a tracker of `report_to` is missing.
    """
    if not run.path("training").exists():  # removed by hand, which is the way out when no checkpoint is whole
        record.pop("checkpoints", None)
    record["steps"] = section.steps
    record.pop("notes", None)

    def warn(note: str) -> None:
        record.setdefault("notes", []).append(note)
        _log.warning(note)

    def keep(checkpoints: list[dict[str, Any]]) -> None:
        record["checkpoints"] = checkpoints
        run.save()

    with trackers(() if run.read_only else section.report_to, _subject(run, settings), warn) as opened:
        with memory_explained():
            engine = open_engine()
        result = run_training(
            engine,
            train,
            valid,
            section,
            run.path("training"),
            checkpoints=record.get("checkpoints", ()),
            on_checkpoint=keep,
            max_minutes=max_minutes,
            trackers=opened,
            warn=warn,
            progress=progress,
        )
    record["report"] = asdict(result) | _circumstances(engine, spec, train)
    if result.paused:
        record["status"] = "paused"
    elif not run.read_only:
        record["outputs"] = [*_save_adapter(run, spec, engine, layers), run.path("training", "metrics.jsonl")]


def _circumstances(engine: Engine, spec: AdapterSpec, train: PackedRows) -> dict[str, Any]:
    return {
        "device": engine.device,
        "dtype": engine.dtype,
        "adapter_parameters": spec.parameter_count(),
        "rows": len(train),
        "row_fill": round(train.fill, 4),
        "peak_memory": engine.peak_memory(),
    }


def _save_adapter(run: Run, spec: AdapterSpec, engine: Engine, layers: int) -> list[Path]:
    """Write adapters/; PEFT has no files for a full fine-tuning."""
    arrays, source = engine.adapter(), run.record["model"]["source"]
    files: tuple[str, ...] = ADAPTER_FILES
    with atomic_path(run.path("adapters")) as adapters:
        save_mlx(adapters, spec, arrays, source, layers=layers)
        if spec.kind != "full":
            save_peft(adapters / "peft", spec, arrays, source)
            files += PEFT_FILES
    return [run.path("adapters", name) for name in files]


def _subject(run: Run, settings: Mapping[str, Any]) -> Subject:
    directory = run.directory.absolute()
    identity = sha256_json([str(directory), run.record["created"]])[:16]
    return Subject(directory.name, identity, run.path("training"), settings)
