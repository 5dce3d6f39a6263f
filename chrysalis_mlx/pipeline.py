"""The stages of a run: genome, corpus, train, eval, fuse. Each reads recorded inputs and records what it made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.files import load_adapter
from chrysalis_mlx.adapters.spec import initialize
from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.batches.order import PackedRows
from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.batches.rows import read_rows, texts_of
from chrysalis_mlx.batches.tokens import Segment, read_segments
from chrysalis_mlx.blueprint.load import to_dict
from chrysalis_mlx.corpus.build import corpus_of_data, corpus_of_genome
from chrysalis_mlx.corpus.select.patterns import pattern_rule
from chrysalis_mlx.corpus.write import write_corpus
from chrysalis_mlx.errors import RunError
from chrysalis_mlx.evaluation.compare import compare
from chrysalis_mlx.export.calibration import Texts, spread
from chrysalis_mlx.export.export import Request, export_model
from chrysalis_mlx.export.lineage.lineage import Lineage
from chrysalis_mlx.export.tuned import Tuned
from chrysalis_mlx.genome.history import History
from chrysalis_mlx.genome.stage import is_built_from, lock_beside, make_genome, read_fresh_lock
from chrysalis_mlx.gguf.quantize import file_type
from chrysalis_mlx.machine import choose_backend, memory_bytes
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import Run, atomic_path, sha256_file, write_json
from chrysalis_mlx.training.plan import Base, mlx_device, require_fit
from chrysalis_mlx.training.stage import optimizer_settings, train_stage
from chrysalis_mlx.workspace import Workspace


def genome(directory: Path, sources: Path, *, progress: Progress = silent) -> Path:
    """Stage 1: the genome of a genome.yaml, as genome.txt in the run's directory. Its manifest is the stage's record.

    A genome that is there, whole and built from the lock as it is now, is kept.

    Raises:
        GenomeError: a source cannot be used or had.
        RunError: the run was begun with another genome.
    """
    output, lock_file = directory / "genome.txt", lock_beside(sources)
    if output.exists() and lock_file.exists() and is_built_from(read_fresh_lock(lock_file), output):
        return output
    if Run.exists(directory):
        raise RunError(
            "this run was begun with another genome than the one that is locked now",
            where=lock_file,
            fix="use a new run directory, or leave out --sources to go on with the run's own genome",
        )
    make_genome(sources, output, progress=progress)
    return output


def corpus(workspace: Workspace, *, progress: Progress = silent) -> dict[str, Any]:
    """Stage 2: the genome, expressed and framed, or rows of one's own, in corpus/.

    Returns:
        the stage's record; `skipped` tells whether an earlier run had already made it.
    """
    run, blueprint = workspace.run, workspace.blueprint
    inputs = workspace.input_hashes("expression", "framing", "data", "split") | workspace.material
    inputs["row_length"] = str(blueprint.training.row_length)
    if run.is_done("corpus", inputs):
        return run.stage("corpus") | {"skipped": True}
    material = workspace.require_material()
    with run.recording("corpus", inputs) as record, atomic_path(run.path("corpus")) as directory:
        tokenizer = workspace.model.tokenizer
        if workspace.data:
            made = corpus_of_data(material, blueprint, tokenizer, progress=progress)
        else:
            made = corpus_of_genome(material, blueprint, tokenizer, _history(workspace), progress=progress)
        record["report"] = write_corpus(made, directory, tokenizer, progress=progress)
        written = sorted(path.relative_to(directory) for path in directory.rglob("*.json*"))
        record["outputs"] = [run.path("corpus", *name.parts) for name in written]
    return run.stage("corpus") | {"skipped": False}


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
    choice = choose_backend(_asked_or_recorded(workspace, backend))
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


def evaluate(workspace: Workspace, backend: str = "auto", *, progress: Progress = silent) -> dict[str, Any]:
    """Stage 4: test perplexity of the base and of the tuned model on the same tokens, in evaluation.json.

    Returns:
        the stage's record.

    Raises:
        RunError: the training has not finished.
    """
    run, section = workspace.run, workspace.blueprint.evaluation
    choice = choose_backend(_asked_or_recorded(workspace, backend))
    inputs = workspace.input_hashes("evaluation") | run.output_hashes("corpus") | run.output_hashes("train")
    inputs["backend"] = choice.name
    if run.is_done("eval", inputs):
        return run.stage("eval") | {"skipped": True}
    with run.recording("eval", inputs) as record:
        batches = _held_out(workspace, section.max_rows)
        report = compare(
            lambda: _engine(workspace, choice.name, tuned=False),
            lambda: _engine(workspace, choice.name, tuned=True),
            batches,
            progress=progress,
        )
        record["report"] = report | {"backend": choice.name, "rows": sum(len(batch.tokens) for batch in batches)}
        write_json(run.path("evaluation.json"), record["report"])
        record["outputs"] = [run.path("evaluation.json")]
    return run.stage("eval") | {"skipped": False}


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
    choice = choose_backend(_asked_or_recorded(workspace, backend))
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
            partial(_open_exported, choice.name),
            evaluation=run.stage("eval").get("report"),
            progress=progress,
        )
    return run.stage("fuse") | {"skipped": False}


def tuned_of(workspace: Workspace) -> Tuned:
    """A run's base and its adapter.

    Raises:
        RunError: the training has not finished.
    """
    spec = workspace.adapter_spec()
    workspace.run.require("train")
    arrays = load_adapter(workspace.run.path("adapters"), spec)
    return Tuned(workspace.model, Lineage.of_run(workspace.run), spec, arrays)


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
        the name and record of each stage, as soon as it is done.

    Raises:
        RunError: several processes were launched together.
    """
    if backends.load(choose_backend(_asked_or_recorded(workspace, backend)).name).world().size > 1:
        raise RunError(
            "several processes share a training, not the other stages",
            where=workspace.run.directory,
            fix="make the corpus with one process, launch `chrysalis-mlx train` with all, then grow with one",
        )
    yield "corpus", corpus(workspace, progress=progress)
    trained = train(workspace, backend, max_minutes=max_minutes, force=force, progress=progress)
    yield "train", trained
    if trained["status"] == "paused":
        return
    yield "eval", evaluate(workspace, backend, progress=progress)
    yield "fuse", fuse(workspace, (), backend, progress=progress)


def _history(workspace: Workspace) -> History | None:
    """The commits of the genome's repositories, where the blueprint wants them, of files that it does not exclude.

    Raises:
        RunError: there are others than when the run began.
    """
    recorded, expression = workspace.material.get("history"), workspace.blueprint.expression
    if recorded is None:
        return None
    history = workspace.history(lambda repository, path: pattern_rule(f"{repository}/{path}", expression)[0])
    if history.fingerprint() != recorded:
        raise RunError(
            "the clones have other commits than when the run began",
            where=workspace.run.directory,
            fix="bring them back (`chrysalis-mlx genome clone`), or begin a new run",
        )
    return history


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
        _packed(workspace, "train"),
        _packed(workspace, "valid").in_order(section.batch_size, section.max_valid_rows),
        section,
        layers=workspace.model.layer_count,
        settings={name: content[name] for name in ("name", "model", "adapter", "training", "order")},
        max_minutes=max_minutes,
        progress=progress,
    )
    record["report"]["backend"] = backend


def _asked_or_recorded(workspace: Workspace, backend: str) -> str:
    """A run stays on the backend it began with, unless another one is asked for."""
    recorded = workspace.run.record.get("backend", {}).get("name")
    return recorded if backend == "auto" and recorded else backend


def _segments(workspace: Workspace, side: str) -> list[Segment]:
    row_length = workspace.blueprint.training.row_length
    return read_segments(workspace.run.path("corpus", f"{side}.jsonl"), workspace.model.tokenizer, row_length)


def _packed(workspace: Workspace, side: str) -> PackedRows:
    section = workspace.blueprint.training
    digest = workspace.run.output_hashes("corpus")[f"corpus/{side}.jsonl"]
    order = workspace.blueprint.order
    kind = order.kind if side == "train" else "shuffled"
    segments = _segments(workspace, side)
    return PackedRows(segments, section.row_length, digest, section.seed, kind=kind, replay=order.replay)


def _held_out(workspace: Workspace, max_rows: int | None) -> list[Batch]:
    return _packed(workspace, "test").in_order(workspace.blueprint.training.batch_size, max_rows)


def _engine(workspace: Workspace, backend: str, *, tuned: bool) -> Engine:
    """The base or the tuned model in float32, to measure with."""
    if not tuned:
        return backends.load(backend)(workspace.model.path, dtype="float32")
    spec = workspace.adapter_spec()
    return backends.load(backend)(
        workspace.model.path, spec, load_adapter(workspace.run.path("adapters"), spec), dtype="float32"
    )


def _open_exported(backend: str, directory: Path, tuned: Tuned | None) -> Engine:
    """A model in float32, with its adapter where there is one."""
    spec, arrays = (tuned.spec, tuned.arrays) if tuned and tuned.spec else (None, None)
    return backends.load(backend)(directory, spec, arrays, dtype="float32")


def _texts(workspace: Workspace) -> Texts:
    """Held-out texts to measure on, lines of all of them, and training texts for the importance matrix."""
    corpus = workspace.run.path("corpus")
    files = (corpus / f"{side}.jsonl" for side in ("test", "valid", "train"))
    tokens = workspace.blueprint.export.imatrix_tokens
    return Texts(
        held_out=_segments(workspace, "test"),
        corpus=[text for path in files for row in read_rows(path) for text in texts_of(row)],
        calibration=spread(_segments(workspace, "train"), tokens) if tokens else (),
        name=f"{workspace.blueprint.name}: corpus/train.jsonl",
        row_length=workspace.blueprint.training.row_length,
    )
