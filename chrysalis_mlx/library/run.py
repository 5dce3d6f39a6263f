"""A run as a Python program sees it: `import chrysalis_mlx as cm; run = cm.grow(...); run.evaluation`.

The command line is a layer over this module. Nothing is printed here: `progress` hears how far long work has come, and
what a user did wrong is a `ChrysalisError`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from chrysalis_mlx.blueprint.load import load_blueprint
from chrysalis_mlx.blueprint.schema import Blueprint
from chrysalis_mlx.errors import UsageError
from chrysalis_mlx.evaluation.results import Evaluation, read_evaluation
from chrysalis_mlx.export.lineage.lineage import Lineage
from chrysalis_mlx.export.results import Exports, read_exports
from chrysalis_mlx.hub.files import Kind
from chrysalis_mlx.hub.push import Pushed, pack, push
from chrysalis_mlx.inference.generate import generate
from chrysalis_mlx.library.results import (
    CorpusResult,
    Stage,
    TrainedAdapter,
    corpus_of,
    training_of,
)
from chrysalis_mlx.llamacpp.server import Completion
from chrysalis_mlx.pipeline.corpus import corpus
from chrysalis_mlx.pipeline.evaluate import evaluate
from chrysalis_mlx.pipeline.fuse import fuse
from chrysalis_mlx.pipeline.genome import genome as make_genome
from chrysalis_mlx.pipeline.grow import grow as grow_stages
from chrysalis_mlx.pipeline.train import train
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import Run as Record
from chrysalis_mlx.run import write_text
from chrysalis_mlx.workspace import Origin, Workspace

PathLike = str | os.PathLike[str]


class Run:
    """A run directory: what its stages made, and the stages themselves.

    What is read (`corpus`, `training`, `evaluation`, `export`) is read anew each time: a run that another process works
    on shows how far it has come.

    Attributes:
        directory: where everything of the run lies.
    """

    def __init__(self, directory: Path, workspace: Workspace | None = None) -> None:
        self.directory = directory
        self._opened = workspace

    def __repr__(self) -> str:
        return f"Run({str(self.directory)!r})"

    @property
    def record(self) -> Record:
        """run.json: hashes, versions, and each stage's status and reason of failure."""
        return Record.open(self.directory)

    @property
    def blueprint(self) -> Blueprint:
        """With every default explicit."""
        return load_blueprint(self.directory / "blueprint.yaml")

    @property
    def corpus(self) -> CorpusResult | None:
        """What the corpus holds; None before that stage is done."""
        return corpus_of(self.record)

    @property
    def training(self) -> TrainedAdapter | None:
        """How the training ended or paused; None before."""
        return training_of(self.record)

    @property
    def evaluation(self) -> Evaluation | None:
        """What the training changed; None before that stage is done.

        Raises:
            RunError: evaluation.json is missing, damaged or of another version.
        """
        record = self.record
        return read_evaluation(record.path("evaluation.json")) if record.stage("eval").get("status") == "done" else None

    @property
    def export(self) -> Exports | None:
        """The GGUF files and what their proof found; None before one of them was proved."""
        return read_exports(self.record)

    @property
    def lineage(self) -> Lineage:
        """What the run is made from, down to the commits."""
        return Lineage.of_run(self.record)

    def make_corpus(self, *, progress: Progress = silent) -> Stage:
        """Stage 2. Raises: CorpusError, RunError."""
        return Stage("corpus", corpus(self._workspace, progress=progress))

    def train(
        self,
        backend: str = "auto",
        *,
        max_minutes: float | None = None,
        force: bool = False,
        progress: Progress = silent,
    ) -> Stage:
        """Stage 3; goes on from the last checkpoint.

        Args:
            backend: auto, mlx or torch.
            max_minutes: pause at a checkpoint after so long.
            force: begin even where the memory is predicted to be too small.

        Raises:
            BackendError, RunError, TrainingError.
        """
        found = train(self._workspace, backend, max_minutes=max_minutes, force=force, progress=progress)
        return Stage("train", found)

    def evaluate(self, backend: str = "auto", *, progress: Progress = silent) -> Stage:
        """Stage 4: base, tuned, and every verified GGUF that is there. Raises: BackendError, ExportError, RunError."""
        return Stage("eval", evaluate(self._workspace, backend, progress=progress))

    def fuse(
        self,
        quantize: Sequence[str] = (),
        backend: str = "auto",
        *,
        imatrix: PathLike | None = None,
        verify: bool = True,
        progress: Progress = silent,
    ) -> Stage:
        """Stage 5: fused/ and export/.

        Args:
            quantize: GGUF types instead of the blueprint's.
            imatrix: an importance matrix of another program.
            verify: prove every file; without, all keep the name `*.unverified.gguf`.

        Raises:
            ExportError, RunError, VerificationError.
        """
        matrix = None if imatrix is None else Path(imatrix)
        found = fuse(self._workspace, quantize, backend, imatrix=matrix, verify=verify, progress=progress)
        return Stage("fuse", found)

    def grow(
        self,
        backend: str = "auto",
        *,
        max_minutes: float | None = None,
        force: bool = False,
        progress: Progress = silent,
    ) -> Iterator[Stage]:
        """Every stage in order, each given as soon as it is done; a paused training ends it."""
        stages = grow_stages(self._workspace, backend, max_minutes=max_minutes, force=force, progress=progress)
        for name, found in stages:
            yield Stage(name, found)

    def generate(
        self,
        prompt: str,
        quantize: str | None = None,
        *,
        raw: bool = False,
        max_tokens: int = 200,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Completion:
        """An answer of an exported file in llama.cpp.

        Args:
            quantize: type of the file; None takes the one that the Modelfile names.
            raw: continue the prompt instead of answering it through the model's chat template.

        Raises:
            RunError: nothing is exported yet.
            UsageError: there is no file of this type.
        """
        _, answer = generate(
            self.directory, prompt, quantize, raw=raw, max_tokens=max_tokens, temperature=temperature, seed=seed
        )
        return answer

    def report(self, output: PathLike | None = None) -> Path:
        """Write the run, however far it has come, into one HTML page; without `output` it is report.html in the run.

        Returns:
            where the page lies.
        """
        from chrysalis_mlx.report.facts import read_facts  # it draws with matplotlib, which takes its time
        from chrysalis_mlx.report.page import report_page

        file = Path(output) if output is not None else self.directory / "report.html"
        write_text(file, report_page(read_facts(self.directory)))
        return file

    def push(
        self,
        repository: str,
        what: Sequence[Kind] = (),
        *,
        private: bool | None = None,
        branch: str = "main",
        message: str | None = None,
    ) -> Pushed:
        """Send the proved files and their card to `owner/name` on the Hugging Face Hub, as one commit.

        Args:
            what: of gguf, adapter, fused; empty takes the GGUF files and the adapter.
            private: who may see a new repository; None leaves that to the Hub.

        Raises:
            HubError, RunError, UsageError: as `hub.push.pack` and `hub.push.push`.
        """
        return push(pack(self.record, repository, what, branch=branch), private=private, message=message)

    @property
    def _workspace(self) -> Workspace:
        """With the record as it is now: another process may have added to it, and a stage writes all of it."""
        if self._opened is None:
            self._opened = Workspace.open(self.directory)
        else:
            self._opened = dataclasses.replace(self._opened, run=self.record)
        return self._opened


def open_run(directory: PathLike) -> Run:
    """A run that was begun.

    Raises:
        RunError: there is none, or its record is damaged.
    """
    Record.open(Path(directory))
    return Run(Path(directory))


def begin(
    directory: PathLike,
    *,
    genome: PathLike | None = None,
    data: PathLike | None = None,
    sources: PathLike | None = None,
    model: str | None = None,
    blueprint: str | None = None,
    progress: Progress = silent,
) -> Run:
    """Begin a run, or open it where it was begun with the same.

    Args:
        genome: a genome file.
        data: rows of one's own, a file or a directory, instead of a genome.
        sources: a genome.yaml, instead of a genome: its repositories are locked, cloned, audited and built first.
        model: a Hugging Face directory, a Hub id or a .gguf file; None takes the blueprint's.
        blueprint: a shipped one's name or a YAML file; None takes the one that matches model and machine best.

    Raises:
        UsageError: a new run without a genome, data or sources, or with more than one of them.
        RunError: the run was begun with something else.
        GenomeError, ModelError, BlueprintError, CorpusError, ExportError: that input cannot be used.
    """
    path, folder = Path(directory), None
    if sources is not None:
        if genome is not None or data is not None:
            raise UsageError("sources build the genome", fix="name them without a genome and without data")
        genome, folder = make_genome(path, Path(sources), progress=progress), Path(sources).parent
    origin = Origin(
        genome=None if genome is None else Path(genome),
        data=None if data is None else Path(data),
        folder=folder,
        model=model,
        blueprint=blueprint,
    )
    return Run(path, Workspace.ensure(path, origin))


def grow(
    directory: PathLike,
    *,
    genome: PathLike | None = None,
    data: PathLike | None = None,
    sources: PathLike | None = None,
    model: str | None = None,
    blueprint: str | None = None,
    backend: str = "auto",
    max_minutes: float | None = None,
    force: bool = False,
    on_stage: Callable[[Run, Stage], None] | None = None,
    progress: Progress = silent,
) -> Run:
    """From a genome to files that run: corpus, training, evaluation and export; what is done is skipped.

    Args:
        genome, data, sources, model, blueprint: as `begin`.
        backend, max_minutes, force: as `Run.train`.
        on_stage: hears of each stage as soon as it is done.
        progress: hears how far long work has come.

    Returns:
        the run; a training that was paused has not been evaluated or exported, and `run.training.paused` says so.

    Raises:
        ChrysalisError: as `begin` and the stages.
    """
    run = begin(
        directory, genome=genome, data=data, sources=sources, model=model, blueprint=blueprint, progress=progress
    )
    for stage in run.grow(backend, max_minutes=max_minutes, force=force, progress=progress):
        if on_stage:
            on_stage(run, stage)
    return run
