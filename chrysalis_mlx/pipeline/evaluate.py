"""Stage 4: what the training changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from chrysalis_mlx.batches.rows import Row, read_rows, texts_of
from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.evaluation.assemble import Background, changes, narrowed, subject
from chrysalis_mlx.evaluation.copying import Corpus
from chrysalis_mlx.evaluation.general import general_segments
from chrysalis_mlx.evaluation.journal import Journal, exclusive
from chrysalis_mlx.evaluation.measure import Found, Opened, ask
from chrysalis_mlx.evaluation.predictors import EnginePredictor, FilePredictor, Predictor
from chrysalis_mlx.evaluation.prompts import prompts
from chrysalis_mlx.evaluation.results import FORMAT, Evaluation
from chrysalis_mlx.evaluation.texts import (
    BEGINNING,
    Beginning,
    Questions,
    beginnings,
    general_texts,
    held_out_texts,
)
from chrysalis_mlx.export.gate.ends import end_tokens
from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.pipeline.inputs import backend_of, open_engine, packed, require_one_process, segments_of, tuned_of
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import Run, sha256_json, write_json
from chrysalis_mlx.workspace import Workspace

_FORMAT = 2  # raise it with every change to what a piece of work is, or to how it is answered
_SPARE = 16  # tokens of llama.cpp's context that nothing needs
_TOGETHER = 8  # continuations that an engine writes as one batch; llama.cpp writes one after the other


def evaluate(workspace: Workspace, backend: str = "auto", *, progress: Progress = silent) -> dict[str, Any]:
    """Stage 4: what base, tuned and every verified GGUF that is there make of the same texts, in evaluation.json.

    What each has answered so far is in evaluation/; killed or interrupted, it goes on from there.

    Returns:
        the stage's record.

    Raises:
        BackendError: the backend cannot be loaded.
        RunError: the training has not finished, several processes were launched together, or another one evaluates
            this run.
    """
    run = workspace.run
    choice = backend_of(workspace, backend)
    require_one_process(workspace, choice.name)
    inputs = workspace.input_hashes("evaluation") | run.output_hashes("corpus") | run.output_hashes("train")
    files = _files(run) if workspace.blueprint.evaluation.file_targets else {}
    inputs |= {"backend": choice.name, "format": FORMAT, "answers": str(_FORMAT)}
    inputs |= {file.path: file.sha256 for file in files.values()}
    if run.is_done("eval", inputs):
        return run.stage("eval") | {"skipped": True}
    with exclusive(run.path("evaluation")), run.recording("eval", inputs) as record:
        measurement = _Measurement(workspace, choice.name, progress)
        evaluation = measurement.of(files)
        write_json(run.path("evaluation.json"), evaluation.as_dict())
        record["notes"] = measurement.notes
        record["report"] = _report(evaluation) | {"rows": len(measurement.questions.test)}
        record["outputs"] = [run.path("evaluation.json")]
    return run.stage("eval") | {"skipped": False}


@dataclass(frozen=True)
class _File:
    """A GGUF of the run: its path there, and its hash."""

    path: str
    sha256: str


def _files(run: Run) -> dict[str, _File]:
    """The verified files of this very adapter that are there, by type."""
    fused, trained = run.stage("fuse"), run.output_hashes("train")
    if fused.get("status") != "done" or any(fused["inputs"].get(path) != sha for path, sha in trained.items()):
        return {}
    found = {}
    for name, entry in fused["report"]["gguf"].items():
        path = f"export/{entry['file']}"
        output, file = fused["outputs"].get(path), run.path(path)
        if output and entry.get("verified") and file.is_file() and file.stat().st_size == output["bytes"]:
            found[name] = _File(path, output["sha256"])
    return found


class _Measurement:
    """Everything that is asked in one run, and of whom."""

    def __init__(self, workspace: Workspace, backend: str, progress: Progress) -> None:
        self._workspace, self._run, self._backend, self._progress = workspace, workspace.run, backend, progress
        self._section, self._tokenizer = workspace.blueprint.evaluation, workspace.model.tokenizer
        self._ends = _ends(workspace.model)
        context = workspace.model.context_length
        # Of a continuation; what a model makes of positions that it was not made for says nothing of its memory.
        self._following = min(self._section.continuation_tokens, context - min(BEGINNING, context // 2))
        self.questions, self.notes = self._questions()

    def of(self, files: Mapping[str, _File]) -> Evaluation:
        """Ask base, tuned and the files, one model in memory at a time."""
        row_length = self._workspace.blueprint.training.row_length  # no file has less context than that
        everything, few = self.questions, self.questions.for_file(self._section.file_targets, row_length)
        adapter = {path: sha for path, sha in self._run.output_hashes("train").items() if path.startswith("adapters/")}
        base = self._ask("base", everything, {"backend": self._backend}, partial(self._engine, tuned=False))
        key = {"backend": self._backend, **adapter}
        tuned = self._ask("tuned", everything, key, partial(self._engine, tuned=True))
        own = narrowed(tuned, everything, few)
        background, subjects = self._background(), {}
        for name, file in files.items():
            found = self._ask(name, few, {"file": file.sha256}, partial(self._llamacpp, file.path, few))
            told = subject(name, few, found, background, file=file.path)
            subjects[name] = replace(told, against=changes(few, found, own, self._section))
        return Evaluation(
            self._backend,
            subject("base", everything, base, background),
            subject("tuned", everything, tuned, background),
            subjects,
            changes(everything, tuned, base, self._section),
            asdict(self._section),
        )

    def _ask(self, name: str, questions: Questions, key: Mapping[str, str], opened: Opened) -> Found:
        training, section, of_engine = self._workspace.blueprint.training, self._section, name in ("base", "tuned")
        known_by = [_FORMAT, self._workspace.input_hashes()["model"], dict(key), questions.fingerprint()]
        known_by += [training.row_length, training.batch_size, self._following, section.temperature]
        known_by += [section.seed, self._ends]
        description = f"{name} model" if of_engine else name
        found = ask(
            questions,
            opened,
            Journal(self._run.path("evaluation", f"{name}.jsonl"), sha256_json(known_by)),
            rows_together=training.batch_size,
            texts_together=_TOGETHER if of_engine else 1,
            limit=self._following,
            description=description,
            progress=self._progress,
        )
        if found.cut:
            self.notes.append(f"{description}: long answers are cut short: {found.cut}")
        return found

    @contextmanager
    def _engine(self, *, tuned: bool) -> Iterator[Predictor]:
        model, adapted = self._workspace.model.path, tuned_of(self._workspace) if tuned else None
        yield EnginePredictor(
            open_engine(self._backend, model, adapted),
            self._workspace.blueprint.training.row_length,
            self._ends,
            temperature=self._section.temperature,
            seed=self._section.seed,
        )

    @contextmanager
    def _llamacpp(self, path: str, questions: Questions) -> Iterator[Predictor]:
        vocabulary = int(self._workspace.model.plain_config["vocab_size"])
        context = questions.longest(self._following) + _SPARE
        # In float32 throughout: what is told is what the file's own numbers cost.
        with LlamaServer(self._run.path(path), context=context, precise=True) as server:
            yield FilePredictor(
                server, vocabulary, self._ends, temperature=self._section.temperature, seed=self._section.seed
            )

    def _questions(self) -> tuple[Questions, list[str]]:
        section, tokenizer, model = self._section, self._tokenizer, self._workspace.model
        row_length = self._workspace.blueprint.training.row_length
        held_out, rows = packed(self._workspace, "test"), self._rows("test")
        test = held_out_texts(rows, held_out.segments, held_out.members(section.max_rows))
        general = general_texts(general_segments(tokenizer, section.retention_tokens, row_length), row_length)
        begun: tuple[Beginning, ...] = ()
        if section.continuations:
            texts = [
                ("train", self._rows("train"), segments_of(self._workspace, "train")),
                ("held_out", rows, held_out.segments),
            ]
            begun = beginnings(texts, section.continuations, self._following, tokenizer)
        asked, notes = prompts(section.prompts, tokenizer, section.answer_tokens, model.context_length)
        if begun and self._following < section.continuation_tokens:
            notes.append(f"continuations have {self._following:,} tokens: more do not fit into the model's context")
        return Questions(test, general, begun, asked), notes

    def _rows(self, side: str) -> list[Row]:
        return read_rows(self._run.path("corpus", f"{side}.jsonl"))

    def _background(self) -> Background:
        sides = {"train": ("train",), "held_out": ("valid", "test")} if self.questions.beginnings else {}
        corpora = {
            source: Corpus(text for side in names for row in self._rows(side) for text in texts_of(row))
            for source, names in sides.items()
        }
        return Background(self._section, self._tokenizer, corpora)


def _ends(model: ModelDirectory) -> list[int]:
    """Ids of the tokens that end a text or an answer; a chat template that cannot be read names none."""
    try:
        return [end.id for end in end_tokens(model)]
    except ModelError:
        return [model.tokenizer.eos_id]


def _report(evaluation: Evaluation) -> dict[str, Any]:
    """What run.json keeps of it: every figure of the whole, and no text."""
    told = {
        found.name: {
            "test": asdict(found.test.overall),
            "general": asdict(found.general) if found.general else None,
            "copying": {source: asdict(copies) for source, copies in found.copying.items()},
            "against": {name: asdict(value) for name, value in found.against.items()},
        }
        for found in evaluation.subjects
    }
    compared = {name: asdict(value) for name, value in evaluation.changes.items()}
    return {"backend": evaluation.backend, "subjects": told, "changes": compared}
