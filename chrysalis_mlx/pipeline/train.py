"""Stage 3: the adapter."""

from __future__ import annotations

from typing import Any

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.spec import initialize
from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.blueprint.load import to_dict
from chrysalis_mlx.machine import memory_bytes
from chrysalis_mlx.pipeline.inputs import backend_of, packed
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.training.plan import Base, mlx_device, require_fit
from chrysalis_mlx.training.stage import optimizer_settings, train_stage
from chrysalis_mlx.workspace import Workspace


def train(
    workspace: Workspace,
    backend: str = "auto",
    *,
    max_minutes: float | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Stage 3: adapters trained on corpus/train.jsonl, in adapters/; goes on from the last recorded checkpoint.

    Several processes that were launched together share the work; the first one alone writes.

    Args:
        max_minutes: pause at a checkpoint after so long.
        force: begin even if the memory is too small for what MLX is predicted to take.

    Returns:
        the stage's record; `status` is `paused` when the minutes were up, and `rank` is this process's number.

    Raises:
        RunError: there is no corpus yet.
        BackendError: the backend cannot be loaded.
        TrainingError: the training cannot go on, its memory does not fit, or a tracker of `report_to` is missing.
    """
    run = workspace.run
    inputs = workspace.input_hashes("adapter", "training", "order") | run.output_hashes("corpus")
    choice = backend_of(workspace, backend)
    inputs["backend"] = choice.name
    rank = backends.load(choice.name).world().rank
    run.read_only = rank > 0
    if run.is_done("train", inputs):
        return run.stage("train") | {"skipped": True, "rank": rank}
    if backend != "auto" or "backend" not in run.record:
        run.record["backend"] = {"name": choice.name, "reason": choice.reason}
    with run.recording("train", inputs) as record:
        if choice.name == "mlx" and not force:
            base = Base.of(workspace.model.path, workspace.model.config)
            require_fit(base, workspace.blueprint, mlx_device(), memory_bytes())
        _train(workspace, choice.name, record, max_minutes, silent if rank else progress)
    return run.stage("train") | {"skipped": False, "rank": rank}


def _train(
    workspace: Workspace, backend: str, record: dict[str, Any], max_minutes: float | None, progress: Progress
) -> None:
    section, spec = workspace.blueprint.training, workspace.adapter_spec()
    content: dict[str, Any] = to_dict(workspace.blueprint)

    def open_engine() -> Engine:
        return backends.load(backend)(
            workspace.model.path,
            spec,
            initialize(spec, workspace.model.checkpoint(), section.seed),
            dtype=section.dtype,
            optimizer=optimizer_settings(section),
            gradient_checkpointing=section.gradient_checkpointing,
            seed=section.seed,
        )

    train_stage(
        workspace.run,
        record,
        spec,
        open_engine,
        packed(workspace, "train"),
        packed(workspace, "valid").in_order(section.batch_size, section.max_valid_rows),
        section,
        layers=workspace.model.layer_count,
        settings={name: content[name] for name in ("name", "model", "adapter", "training", "order")},
        max_minutes=max_minutes,
        progress=progress,
    )
    record["report"]["backend"] = backend
