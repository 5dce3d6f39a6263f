"""Stage 5: a tuned or converted model as safetensors and GGUF files, each proved before it gets its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.batches.packing import PADDING, Batch, assemble
from chrysalis_mlx.blueprint.schema import ExportSection
from chrysalis_mlx.errors import ExportError, VerificationError
from chrysalis_mlx.evaluation.results import Evaluation
from chrysalis_mlx.export.adapter import write_adapter_gguf
from chrysalis_mlx.export.calibration import IMATRIX, Texts, collect, takes_importance
from chrysalis_mlx.export.fuse import gguf_path, write_fused, write_unverified
from chrysalis_mlx.export.gate.reference import Reference, make_reference
from chrysalis_mlx.export.gate.verify import verify_gguf
from chrysalis_mlx.export.lineage.card import CARD, model_card
from chrysalis_mlx.export.lineage.lineage import metadata
from chrysalis_mlx.export.ollama.modelfile import modelfile
from chrysalis_mlx.export.tuned import Tuned
from chrysalis_mlx.gguf import architectures
from chrysalis_mlx.gguf.imatrix import Imatrix, read_imatrix
from chrysalis_mlx.gguf.writer import Plan, Written, plan_gguf, require_room
from chrysalis_mlx.models.checkpoint import WRITTEN_BYTES
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import write_json, write_text

_FUSED_TOLERANCE = 1e-4  # of the largest logit; a float32 merge only reorders sums

OpenEngine = Callable[[Path, Tuned | None], Engine]


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        types: GGUF types.
        section: the rest of it, as a blueprint says it.
        imatrix: an importance matrix that another program made; None: collected from the texts where a type takes one.
        verify: prove every file; without, all keep the name `*.unverified.gguf`.
    """

    types: tuple[str, ...]
    section: ExportSection
    imatrix: Path | None = None
    verify: bool = True


def export_model(
    directory: Path,
    tuned: Tuned,
    request: Request,
    texts: Texts,
    open_engine: OpenEngine,
    *,
    evaluation: Evaluation | None = None,
    progress: Progress = silent,
) -> tuple[dict[str, Any], list[Path]]:
    """Write the model in every asked-for form, and prove each.

    Args:
        directory: fused/ and export/ are written in it.
        texts: what is measured on, and what the importance matrix is collected from.
        open_engine: gives the model of a directory in float32, with an adapter where one is given.
        evaluation: of the run, for the card.

    Returns:
        the report, and every file written.

    Raises:
        ExportError: what cannot be exported, before anything is written.
        VerificationError: something does not do what the trained model does.
    """
    given = read_imatrix(request.imatrix) if request.imatrix else None
    collects = given is None and bool(texts.calibration) and takes_importance(request.types)
    plan = _plan(directory, tuned, request, given, collects)
    fused, export = directory / "fused", directory / "export"
    if tuned.spec is not None:
        write_fused(fused, tuned.source, tuned.model, request.section.dtype, progress=progress)
    (export / IMATRIX).unlink(missing_ok=True)  # an earlier export's
    collected = directory / "export" / IMATRIX if collects else None
    found, reference, compared = _measure(fused, tuned, request, texts, open_engine, plan, collected, progress)
    importance = found or given
    report: dict[str, Any] = {"fused": compared, "imatrix": _told(importance), "gguf": {}}
    keys, plan = metadata(tuned.lineage), plan.choose(request.types, importance)
    written = write_unverified(export, plan, tuned.source, metadata=keys, progress=progress)
    for type_name in request.types:
        report["gguf"][type_name] = _prove(written[type_name], type_name, reference, progress)
        write_json(export / "verification.json", report)
    _raise_failures(report, export)
    report["adapter"] = _write_adapter(export, tuned)
    files = [export / entry["file"] for entry in report["gguf"].values()]
    files += [export / name for name in (IMATRIX, "adapter.gguf") if (export / name).is_file()]
    _write_papers(export, tuned, request, files, report, evaluation)
    files += [export / name for name in ("verification.json", "Modelfile", CARD)]
    return report, ([path for path in sorted(fused.iterdir()) if path.is_file()] if tuned.spec else []) + files


def _plan(directory: Path, tuned: Tuned, request: Request, given: Imatrix | None, collects: bool) -> Plan:
    """What will be written; whatever cannot be is refused now, before anything is."""
    tuned.check()
    _modelfile(Path("model.gguf"), tuned, request)
    plan = plan_gguf(tuned.source, tuned.model.plain_config, tuned.model.path)
    if not collects:
        plan = plan.choose(request.types, given)
    needed = plan.bytes_of(request.types, importance=collects or given is not None)
    if tuned.spec is not None:
        needed += plan.weights * WRITTEN_BYTES[request.section.dtype]
    require_room(directory, needed)
    return plan


def _modelfile(gguf: Path, tuned: Tuned, request: Request) -> str:
    section, licence = request.section, tuned.lineage.base.licence
    return modelfile(
        gguf,
        tuned.model,
        system=section.system,
        context=section.context,
        license_id=licence.title if licence else None,
        messages=section.turns,
    )


def _measure(
    fused: Path,
    tuned: Tuned,
    request: Request,
    texts: Texts,
    open_engine: OpenEngine,
    plan: Plan,
    collected: Path | None,
    progress: Progress,
) -> tuple[Imatrix | None, Reference | None, dict[str, Any]]:
    """Everything that needs the model in memory: importance matrix, reference, and whether fused/ computes the same.

    Args:
        collected: where the importance matrix is written; None: none is collected.
    """
    if not (request.verify or collected):
        return None, None, {}
    trained = open_engine(tuned.model.path, tuned) if tuned.fits_engine else open_engine(fused, None)
    importance = collect(collected, plan.tensors, texts, trained, progress) if collected else None
    if not request.verify:
        return importance, None, {}
    reference = make_reference(
        tuned.model,
        trained,
        texts.held_out,
        texts.sample(request.section.verify_lines),
        positions=request.section.verify_positions,
        row_length=texts.row_length,
        progress=progress,
    )
    if tuned.spec is None or not tuned.fits_engine:  # the reference is fused/ itself
        return importance, reference, {}
    batch = assemble([[max(texts.held_out, key=lambda segment: len(segment.tokens))]], texts.row_length)
    expected = trained.logits(batch)
    del trained  # one model in memory at a time
    compared = _compare_fused(expected, open_engine(fused, None), batch, request.section.dtype)
    return importance, reference, compared


def _prove(written: Written, type_name: str, reference: Reference | None, progress: Progress) -> dict[str, Any]:
    """Verify one file, and give it its final name when it passes."""
    path, final = written.path, gguf_path(written.path.parent, type_name)
    size = {"bytes": written.bytes, "bits_per_weight": round(written.bits_per_weight, 4)}
    final.unlink(missing_ok=True)  # an earlier export's file is not this model
    if reference is None:
        return {"file": path.name, **size, "verified": False, "failures": []}
    result = verify_gguf(path, type_name, reference, progress=progress)
    if not result.failures:
        os.replace(path, final)
        path = final
    return {"file": path.name, **size, **result.as_dict()}


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


def _told(importance: Imatrix | None) -> dict[str, Any] | None:
    if importance is None:
        return None
    entries = len(importance.entries)
    return {"file": importance.file, "datasets": list(importance.datasets), "entries": entries}


def _raise_failures(report: dict[str, Any], export: Path) -> None:
    failures = [f"fused/: {failure}" for failure in report["fused"].get("failures", ())]
    failures += [f"{entry['file']}: {failure}" for entry in report["gguf"].values() for failure in entry["failures"]]
    if failures:
        raise VerificationError(
            "the exported model does not do what the trained model does: " + "; ".join(failures),
            where=export / "verification.json",
            fix="files that failed are named *.unverified.gguf; please report the model and this message",
        )


def _write_adapter(export: Path, tuned: Tuned) -> str | None:
    """adapter.gguf, or the reason why there is none."""
    file = export / "adapter.gguf"
    if tuned.spec is None:
        return None
    family, keys = architectures.for_config(tuned.model.plain_config), metadata(tuned.lineage)
    file.unlink(missing_ok=True)  # an earlier export's
    try:
        write_adapter_gguf(file, family, tuned.source.names, tuned.spec, tuned.arrays, metadata=keys)
    except ExportError as error:
        return error.what
    return file.name


def _write_papers(
    export: Path,
    tuned: Tuned,
    request: Request,
    files: Sequence[Path],
    report: Mapping[str, Any],
    evaluation: Evaluation | None,
) -> None:
    """verification.json, Modelfile and README.md."""
    write_json(export / "verification.json", report)
    last = export / report["gguf"][request.types[-1]]["file"]
    write_text(export / "Modelfile", _modelfile(last, tuned, request))
    fused = None if tuned.spec is None else "../fused"
    files = [*files, export / "Modelfile"]
    card = model_card(tuned.lineage, files, verification=report, evaluation=evaluation, fused=fused)
    write_text(export / CARD, card)
