"""Stage 5: fused/, export/*.gguf, Modelfile and verification.json."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.batches.packing import PADDING, Batch, assemble
from chrysalis_mlx.batches.rows import read_rows, texts_of
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.blueprint.schema import ExportSection
from chrysalis_mlx.errors import VerificationError
from chrysalis_mlx.export.fuse import gguf_path, write_fused, write_unverified
from chrysalis_mlx.export.ollama import modelfile
from chrysalis_mlx.export.verify import Position, held_out_positions, sample_lines, verify_gguf
from chrysalis_mlx.gguf.writer import Written
from chrysalis_mlx.models.checkpoint import TensorSource
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import write_json, write_text

_FUSED_TOLERANCE = 1e-4  # of the largest logit; a float32 merge only reorders sums


def export_model(
    directory: Path,
    model: ModelDirectory,
    source: TensorSource,
    section: ExportSection,
    types: Sequence[str],
    *,
    metadata: Mapping[str, str | int | float],
    open_trained: Callable[[], Engine],
    open_fused: Callable[[Path], Engine],
    held_out: Sequence[Segment],
    row_length: int,
    progress: Progress = silent,
) -> tuple[dict[str, Any], list[Path]]:
    """Write the tuned model in every asked-for form and prove each.

    Args:
        directory: of the run; corpus/ is read, fused/ and export/ are written.
        source: the merged weights, float32.
        open_trained: gives the trained model (base and adapter).
        open_fused: gives the model of a directory.
        held_out: test texts, for the distributions.
        row_length: longest text in tokens.

    Returns:
        the report, and every file written.

    Raises:
        VerificationError: something does not do what the trained model does.
    """
    fused, export = directory / "fused", directory / "export"
    write_fused(fused, source, model, section.dtype, progress=progress)
    trained = open_trained()
    positions = held_out_positions(trained, held_out, section.verify_positions, row_length, progress=progress)
    batch = assemble([[max(held_out, key=lambda segment: len(segment.tokens))]], row_length)
    expected = trained.logits(batch)
    del trained  # one model in memory at a time
    report: dict[str, Any] = {"fused": _compare_fused(expected, open_fused(fused), batch, section.dtype)}
    lines = sample_lines(_corpus_texts(directory / "corpus"), section.verify_lines)
    report["gguf"] = {}
    for type_name in types:
        written = write_unverified(export, type_name, source, model, metadata, progress=progress)
        report["gguf"][type_name] = _prove(written, type_name, model, lines, positions, progress)
        write_json(export / "verification.json", report)
    _raise_failures(report, export)
    write_text(
        export / "Modelfile",
        modelfile(gguf_path(export, types[-1]), model, system=section.system, context=section.context),
    )
    files = [gguf_path(export, name) for name in types] + [export / "verification.json", export / "Modelfile"]
    return report, [path for path in sorted(fused.iterdir()) if path.is_file()] + files


def _prove(
    written: Written,
    type_name: str,
    model: ModelDirectory,
    lines: Sequence[str],
    positions: Sequence[Position],
    progress: Progress,
) -> dict[str, Any]:
    """Verify one file, and give it its final name when it passes."""
    result = verify_gguf(written.path, type_name, model.tokenizer, lines, positions, progress=progress)
    path, final = written.path, gguf_path(written.path.parent, type_name)
    if result.failures:
        final.unlink(missing_ok=True)  # an earlier export's file is not this model
    else:
        os.replace(path, final)
        path = final
    return {
        "file": path.name,
        "bytes": written.bytes,
        "bits_per_weight": round(written.bits_per_weight, 4),
        **result.as_dict(),
    }


def _compare_fused(expected: npt.NDArray[np.float32], fused: Engine, batch: Batch, dtype: str) -> dict[str, Any]:
    """The largest difference of a logit between the trained (`expected`) and the fused model on one held-out text."""
    real = batch.segments > PADDING
    difference = float(np.abs(expected - fused.logits(batch))[real].max() / np.abs(expected[real]).max())
    exact = dtype == "float32"
    return {
        "dtype": dtype,
        "positions": int(real.sum()),
        "max_difference": difference,
        "failures": [f"fused logits differ by {difference:.1e}"] if exact and difference > _FUSED_TOLERANCE else [],
    }


def _raise_failures(report: dict[str, Any], export: Path) -> None:
    failures = [f"fused/: {failure}" for failure in report["fused"]["failures"]]
    failures += [f"{entry['file']}: {failure}" for entry in report["gguf"].values() for failure in entry["failures"]]
    if failures:
        raise VerificationError(
            "the exported model does not do what the trained model does: " + "; ".join(failures),
            where=export / "verification.json",
            fix="files that failed are named *.unverified.gguf; please report the model and this message",
        )


def _corpus_texts(corpus: Path) -> list[str]:
    """The texts of all corpus rows, held-out ones first."""
    files = (corpus / f"{side}.jsonl" for side in ("test", "valid", "train"))
    return [text for path in files for row in read_rows(path) for text in texts_of(row)]
