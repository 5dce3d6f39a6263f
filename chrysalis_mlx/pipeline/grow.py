"""Every stage in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chrysalis_mlx.pipeline.corpus import corpus
from chrysalis_mlx.pipeline.evaluate import evaluate
from chrysalis_mlx.pipeline.fuse import fuse
from chrysalis_mlx.pipeline.inputs import backend_of, require_one_process
from chrysalis_mlx.pipeline.train import train
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.workspace import Workspace


def grow(
    workspace: Workspace,
    backend: str = "auto",
    *,
    max_minutes: float | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every stage in order; those whose inputs have not changed are skipped. A paused training ends it.

    Args:
        max_minutes, force: for the training.

    Yields:
        the name and record of each stage, as soon as it is done; `eval` a second time when there are new files to
        measure.

    Raises:
        RunError: several processes were launched together.
    """
    require_one_process(workspace, backend_of(workspace, backend).name)
    yield "corpus", corpus(workspace, progress=progress)
    trained = train(workspace, backend, max_minutes=max_minutes, force=force, progress=progress)
    yield "train", trained
    if trained["status"] == "paused":
        return
    yield "eval", evaluate(workspace, backend, progress=progress)
    yield "fuse", fuse(workspace, (), backend, progress=progress)
    if workspace.blueprint.evaluation.file_targets:
        again = evaluate(workspace, backend, progress=progress)
        if not again["skipped"]:
            yield "eval", again
