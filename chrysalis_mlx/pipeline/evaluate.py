"""Stage 4: what the training changed."""

from __future__ import annotations

from typing import Any

from chrysalis_mlx.evaluation.compare import compare
from chrysalis_mlx.pipeline.inputs import backend_of, open_engine, packed, tuned_of
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import write_json
from chrysalis_mlx.workspace import Workspace


def evaluate(workspace: Workspace, backend: str = "auto", *, progress: Progress = silent) -> dict[str, Any]:
    """Stage 4: test perplexity of the base and of the tuned model on the same tokens, in evaluation.json.

    Returns:
        the stage's record.

    Raises:
        RunError: the training has not finished.
    """
    run, section = workspace.run, workspace.blueprint.evaluation
    choice = backend_of(workspace, backend)
    inputs = workspace.input_hashes("evaluation") | run.output_hashes("corpus") | run.output_hashes("train")
    inputs["backend"] = choice.name
    if run.is_done("eval", inputs):
        return run.stage("eval") | {"skipped": True}
    with run.recording("eval", inputs) as record:
        batches = packed(workspace, "test").in_order(workspace.blueprint.training.batch_size, section.max_rows)
        report = compare(
            lambda: open_engine(choice.name, workspace.model.path, None),
            lambda: open_engine(choice.name, workspace.model.path, tuned_of(workspace)),
            batches,
            progress=progress,
        )
        record["report"] = report | {"backend": choice.name, "rows": sum(len(batch.tokens) for batch in batches)}
        write_json(run.path("evaluation.json"), record["report"])
        record["outputs"] = [run.path("evaluation.json")]
    return run.stage("eval") | {"skipped": False}
