"""A run as a Python program sees it: `import chrysalis_mlx as cm; run = cm.grow(...); run.evaluation`.

The command line is a layer over this module. Nothing is printed here: `progress` hears how far long work has come, and
what a user did wrong is a `ChrysalisError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from chrysalis_mlx.blueprint.load import load_blueprint
from chrysalis_mlx.blueprint.schema import Blueprint
from chrysalis_mlx.errors import UsageError
from chrysalis_mlx.evaluation.results import Evaluation, read_evaluation
from chrysalis_mlx.export.lineage.lineage import Lineage
from chrysalis_mlx.library.results import (
    CorpusResult,
    Export,
    Stage,
    TrainedAdapter,
    corpus_of,
    export_of,
    training_of,
)
from chrysalis_mlx.pipeline.corpus import corpus
from chrysalis_mlx.pipeline.evaluate import evaluate
from chrysalis_mlx.pipeline.fuse import fuse
from chrysalis_mlx.pipeline.genome import genome as make_genome
from chrysalis_mlx.pipeline.grow import grow as grow_stages
from chrysalis_mlx.pipeline.train import train
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import Run as Record
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
        """What the training changed; None before that stage is done."""
        record = self.record
        return read_evaluation(record.path("evaluation.json")) if record.stage("eval").get("status") == "done" else None

    @property
    def export(self) -> Export | None:
        """The GGUF files; None before that stage is done."""
        return export_of(self.record)

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
        """Stage 4: base, tuned, and every GGUF that is there. Raises: BackendError, RunError."""
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

    @property
    def _workspace(self) -> Workspace:
        if self._opened is None:
            self._opened = Workspace.open(self.directory)
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
    backend: str = "auto",
    max_minutes: float | None = None,
    force: bool = False,
    on_stage: Callable[[Run, Stage], None] | None = None,
    progress: Progress = silent,
    **origin: Any,
) -> Run:
    """From a genome to files that run: corpus, training, evaluation and export; what is done is skipped.

    Args:
        backend, max_minutes, force: as `Run.train`.
        on_stage: hears of each stage as soon as it is done.
        origin: as `begin`: genome, data, sources, model, blueprint.

    Raises:
        ChrysalisError: as `begin` and the stages.
    """
    run = begin(directory, progress=progress, **origin)
    for stage in run.grow(backend, max_minutes=max_minutes, force=force, progress=progress):
        if on_stage:
            on_stage(run, stage)
    return run
