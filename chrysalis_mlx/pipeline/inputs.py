"""What several stages read: the texts of the corpus as rows, the models to measure with, the backend."""

from __future__ import annotations

from pathlib import Path

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.files import load_adapter
from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.batches.order import PackedRows
from chrysalis_mlx.batches.tokens import Segment, read_segments
from chrysalis_mlx.errors import RunError
from chrysalis_mlx.export.lineage.lineage import Lineage
from chrysalis_mlx.export.tuned import Tuned
from chrysalis_mlx.machine import Choice, choose_backend
from chrysalis_mlx.workspace import Workspace


def backend_of(workspace: Workspace, backend: str) -> Choice:
    """A run stays on the backend it began with, unless another one is asked for.

    Raises:
        BackendError: it cannot be loaded.
    """
    recorded = workspace.run.record.get("backend", {}).get("name")
    return choose_backend(recorded if backend == "auto" and recorded else backend)


def require_one_process(workspace: Workspace, backend: str) -> None:
    """Raises: RunError: several processes were launched together."""
    if backends.load(backend).world().size > 1:
        raise RunError(
            "several processes share a training, not the other stages",
            where=workspace.run.directory,
            fix="make the corpus with one process, launch `chrysalis-mlx train` with all, then grow with one",
        )


def segments_of(workspace: Workspace, side: str) -> list[Segment]:
    """The texts of train, valid or test as tokens, in the order of the corpus."""
    row_length = workspace.blueprint.training.row_length
    return read_segments(workspace.run.path("corpus", f"{side}.jsonl"), workspace.model.tokenizer, row_length)


def packed(workspace: Workspace, side: str) -> PackedRows:
    """The same, packed into rows."""
    section = workspace.blueprint.training
    digest = workspace.run.output_hashes("corpus")[f"corpus/{side}.jsonl"]
    order = workspace.blueprint.order
    kind = order.kind if side == "train" else "shuffled"
    segments = segments_of(workspace, side)
    return PackedRows(segments, section.row_length, digest, section.seed, kind=kind, replay=order.replay)


def tuned_of(workspace: Workspace) -> Tuned:
    """A run's base and its adapter.

    Raises:
        RunError: the training has not finished.
    """
    spec = workspace.adapter_spec()
    workspace.run.require("train")
    arrays = load_adapter(workspace.run.path("adapters"), spec)
    return Tuned(workspace.model, Lineage.of_run(workspace.run), spec, arrays)


def open_engine(backend: str, directory: Path, tuned: Tuned | None) -> Engine:
    """A model in float32, with its adapter where there is one."""
    spec, arrays = (tuned.spec, tuned.arrays) if tuned and tuned.spec else (None, None)
    return backends.load(backend)(directory, spec, arrays, dtype="float32")
