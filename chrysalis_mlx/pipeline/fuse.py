"""Stage 5: files that run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from chrysalis_mlx.batches.paragraphs import spread
from chrysalis_mlx.batches.rows import read_rows, texts_of
from chrysalis_mlx.evaluation.results import FORMAT, Evaluation, read_evaluation
from chrysalis_mlx.export.calibration import Texts
from chrysalis_mlx.export.export import Request, export_model
from chrysalis_mlx.gguf.quantize import file_type
from chrysalis_mlx.pipeline.inputs import backend_of, open_engine, segments_of, tuned_of
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import Run, sha256_file
from chrysalis_mlx.workspace import Workspace


def fuse(
    workspace: Workspace,
    quantize: Sequence[str] = (),
    backend: str = "auto",
    *,
    imatrix: Path | None = None,
    verify: bool = True,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Stage 5: the fused model in fused/, and in export/ its GGUF files, proved in llama.cpp, and what goes with them.

    Args:
        quantize: GGUF types to write instead of the blueprint's.
        imatrix: an importance matrix to use instead of one of the run's own training text.
        verify: prove every file; without, all keep the name `*.unverified.gguf`.

    Returns:
        the stage's record.

    Raises:
        RunError: the training has not finished.
        ExportError: there is no such type, or the model cannot be exported.
        VerificationError: a file does not do what the trained model does; it keeps the name `*.unverified.gguf`.
    """
    run, section = workspace.run, workspace.blueprint.export
    types = tuple(file_type(name).name for name in dict.fromkeys(quantize or section.quantize))
    choice = backend_of(workspace, backend)
    inputs = workspace.input_hashes("export") | run.output_hashes("corpus") | run.output_hashes("train")
    inputs |= {"types": " ".join(types), "backend": choice.name, "verify": str(verify)}
    inputs |= {"imatrix": sha256_file(imatrix)} if imatrix else {}
    if run.is_done("fuse", inputs):
        return run.stage("fuse") | {"skipped": True}
    with run.recording("fuse", inputs) as record:
        record["report"], record["outputs"] = export_model(
            run.directory,
            tuned_of(workspace),
            Request(types, section, imatrix, verify),
            _texts(workspace),
            partial(open_engine, choice.name),
            evaluation=_evaluation(run),
            progress=progress,
        )
    return run.stage("fuse") | {"skipped": False}


def _evaluation(run: Run) -> Evaluation | None:
    """Of this very adapter; None where there is none, or it is out of date."""
    record, file = run.stage("eval"), run.path("evaluation.json")
    expected = run.output_hashes("train") | {"format": FORMAT}
    current = record.get("status") == "done" and expected.items() <= record["inputs"].items()
    return read_evaluation(file) if current and file.is_file() else None


def _texts(workspace: Workspace) -> Texts:
    """Held-out texts to measure on, lines of all of them, and training texts for the importance matrix."""
    corpus = workspace.run.path("corpus")
    files = (corpus / f"{side}.jsonl" for side in ("test", "valid", "train"))
    tokens = workspace.blueprint.export.imatrix_tokens
    return Texts(
        held_out=segments_of(workspace, "test"),
        corpus=[text for path in files for row in read_rows(path) for text in texts_of(row)],
        calibration=spread(segments_of(workspace, "train"), tokens) if tokens else (),
        name=f"{workspace.blueprint.name}: corpus/train.jsonl",
        row_length=workspace.blueprint.training.row_length,
    )
