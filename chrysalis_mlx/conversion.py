"""Export without a run: any model, with an adapter that another program trained, or alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.foreign import named_base, open_adapter
from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.batches.paragraphs import spread
from chrysalis_mlx.blueprint.schema import ExportSection
from chrysalis_mlx.errors import UsageError
from chrysalis_mlx.export.adapter import AdapterFiles, write_adapter_alone
from chrysalis_mlx.export.calibration import Texts
from chrysalis_mlx.export.export import Request, export_model
from chrysalis_mlx.export.gate.reference import held_out_segments, sample_text
from chrysalis_mlx.export.lineage.lineage import Lineage, metadata
from chrysalis_mlx.export.tuned import Tuned
from chrysalis_mlx.gguf.quantize import file_type
from chrysalis_mlx.machine import choose_backend
from chrysalis_mlx.models.checkpoint import Checkpoint, DType
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.source import resolve_model
from chrysalis_mlx.progress import Progress, silent

_ROW_LENGTH = 512  # tokens; the context of llama-imatrix
_STORED: dict[str, DType] = {"BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True)
class Given:
    """What to export: a model, by directory, .gguf file or Hub id, and an adapter's directory or None."""

    model: str
    adapter: Path | None = None
    revision: str | None = None


def open_given(given: Given) -> Tuned:
    """Read the model and the adapter.

    Raises:
        ModelError: one of them cannot be had, is damaged, or the adapter is another model's.
    """
    model = resolve_model(given.model, given.revision)
    if given.adapter is None:
        return Tuned(model, Lineage.of_files(given.model, model))
    spec, arrays = open_adapter(given.adapter, model)
    return Tuned(model, Lineage.of_files(given.model, model, given.adapter, spec), spec, arrays)


def convert(
    given: Given,
    output: Path,
    types: Sequence[str],
    backend: str = "auto",
    *,
    section: ExportSection | None = None,
    imatrix: Path | None = None,
    text: Path | None = None,
    verify: bool = True,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write OUTPUT/export/, and OUTPUT/fused/ where there is an adapter.

    Args:
        types: GGUF types; empty takes the section's.
        section: settings of the export; None takes the defaults, and the base's own dtype for fused/.
        imatrix: an importance matrix that another program made.
        text: UTF-8 text like what the model was trained on: the importance matrix is collected from it.
        verify: prove every file; without, all keep the name `*.unverified.gguf`.

    Returns:
        the report, with `notes` for the user.

    Raises:
        ModelError, ExportError: what cannot be exported.
        VerificationError: a file does not do what the model does.
    """
    tuned = open_given(given)
    section = section or dataclasses.replace(ExportSection(), dtype=_dtype(tuned.model.checkpoint()))
    chosen = tuple(file_type(name).name for name in dict.fromkeys(types or section.quantize))

    def open_engine(directory: Path, with_adapter: Tuned | None) -> Engine:
        choice = choose_backend(backend)  # here, because a conversion that proves nothing needs no framework
        spec, arrays = (with_adapter.spec, with_adapter.arrays) if with_adapter else (None, None)
        return backends.load(choice.name)(directory, spec, arrays, dtype="float32")

    texts = _texts(tuned.model, text, section.imatrix_tokens)
    report, _ = export_model(
        output, tuned, Request(chosen, section, imatrix, verify), texts, open_engine, progress=progress
    )
    return report | {"notes": notes(given)}


def convert_adapter(given: Given, output: Path) -> AdapterFiles:
    """Write the adapter alone, for llama.cpp and Ollama, PEFT and mlx-lm.

    Raises:
        UsageError: no adapter is named.
        ExportError: it cannot stand alone; it says why.
    """
    if given.adapter is None:
        raise UsageError("there is no adapter to write alone", fix="add --adapter A, or name a run")
    tuned = open_given(given)
    return write_alone(tuned, output)


def write_alone(tuned: Tuned, output: Path) -> AdapterFiles:
    """The adapter of a model in its three forms, in a directory."""
    assert tuned.spec is not None
    tuned.check()
    keys, source = metadata(tuned.lineage), tuned.lineage.source
    return write_adapter_alone(output, tuned.model, tuned.spec, tuned.arrays, source, metadata=keys)


def notes(given: Given) -> list[str]:
    """What the user should know of what was named."""
    base = named_base(given.adapter) if given.adapter else None
    if base is None or Path(base).name == Path(given.model).name:
        return []
    return [f"the adapter says that it was trained on {base}; it was put on {given.model}"]


def _dtype(checkpoint: Checkpoint) -> DType:
    """Of fused/: what the base's matrices are stored in, or its scales where they are packed."""
    stored = [checkpoint.stored_dtype(name) for name in checkpoint.names if len(checkpoint.shape(name)) > 1]
    return _STORED.get(max(set(stored), key=stored.count), "float32")


def _texts(model: ModelDirectory, text: Path | None, tokens: int) -> Texts:
    row_length = min(_ROW_LENGTH, model.context_length)
    sample = sample_text()
    held_out = held_out_segments(sample, model.tokenizer, row_length)
    if text is None:
        return Texts(held_out, [sample], (), "", row_length)
    own = text.read_text(encoding="utf-8")
    calibration = spread(held_out_segments(own, model.tokenizer, row_length), tokens)
    return Texts(held_out, [own, sample], calibration, text.name, row_length)
