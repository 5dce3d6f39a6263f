"""Which GGUF a run or a path means, and what goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chrysalis_mlx.blueprint.load import load_blueprint
from chrysalis_mlx.blueprint.schema import ExportSection
from chrysalis_mlx.errors import ModelError, UsageError
from chrysalis_mlx.export.lineage.proof import run_of
from chrysalis_mlx.export.ollama.modelfile import MAX_CONTEXT, default_context, recommended_sampling
from chrysalis_mlx.gguf.keys import read_keys
from chrysalis_mlx.inference.conversation import Message
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.run import Run


@dataclass(frozen=True)
class Exported:
    """A GGUF, and where it comes from.

    Attributes:
        file: it.
        run: the run that made it; None where nobody knows.
        type_name: of the file, in that run; empty without one.
    """

    file: Path
    run: Run | None = None
    type_name: str = ""

    @property
    def name(self) -> str:
        """The run's name, else the file's."""
        return self.file.stem if self.run is None else self.run.directory.absolute().name


@dataclass(frozen=True)
class Manner:
    """How a model is to be spoken with, as Ollama gets it.

    Attributes:
        context: tokens of prompt and answer together.
        system: the system prompt; None: what the chat template adds by itself.
        examples: turns that stand before every conversation.
        sampling: temperature, top_k, top_p, min_p, repeat_penalty, as far as the model's makers recommend them.
    """

    context: int
    system: str | None = None
    examples: tuple[Message, ...] = ()
    sampling: Mapping[str, float] = field(default_factory=dict)


def find_exported(path: Path, quantize: str | None = None) -> Exported:
    """The GGUF that a user means.

    Args:
        path: a run's directory or a GGUF. Of one that lies in a run's export/, the run is found.
        quantize: of a run, the type of the file; None takes the one that the Modelfile names, the last of the export's.

    Raises:
        RunError: no run there, or it has no export yet.
        UsageError: the run has no file of this type; a type is named beside a file.
        ModelError: there is no such file.
    """
    if names_file(path):
        return _of_file(path, quantize)
    run = Run.open(path)
    files = run.require("fuse")["report"]["gguf"]
    chosen = quantize or list(files)[-1]
    if chosen not in files:
        raise UsageError(
            f"the run has no {chosen} file; it has {', '.join(files)}",
            where=path,
            fix=f"run: chrysalis-mlx fuse {path} --quantize {chosen}",
        )
    return Exported(run.path("export", files[chosen]["file"]), run, chosen)


def names_file(path: Path) -> bool:
    """Whether a user means a GGUF, be it there or not, and no run's directory."""
    return path.is_file() or path.suffix == ".gguf"


def _of_file(file: Path, quantize: str | None) -> Exported:
    if quantize is not None:
        raise UsageError("--quantize chooses among the files of a run", where=file, fix="leave it out, or name the run")
    if not file.is_file():
        raise ModelError("there is no such GGUF file", where=file)
    if run := run_of(file):
        for type_name, entry in run.stage("fuse").get("report", {}).get("gguf", {}).items():
            if entry["file"] == file.name:
                return Exported(file, run, type_name)
    return Exported(file)


def manner_of(exported: Exported, context: int | None = None) -> Manner:
    """How an exported model is to be spoken with.

    Args:
        context: in tokens; None takes the blueprint's, else the model's own, at most 8192.

    Raises:
        ModelError: the file is not a GGUF.
    """
    return _of_keys(exported.file, context) if exported.run is None else manner_of_run(exported.run, context)


def manner_of_run(run: Run, context: int | None = None) -> Manner:
    """As `manner_of`, without a file."""
    section = load_blueprint(run.path("blueprint.yaml")).export
    asked = context or section.context
    try:
        model = ModelDirectory.open(Path(run.record["model"]["directory"]))
        sampling = recommended_sampling(model.generation_config)
        return _of_section(section, asked or default_context(model), sampling)
    except ModelError:  # the base is gone, and the GGUF is there: what its makers recommend is not known
        return _of_section(section, asked or MAX_CONTEXT, {})


def _of_section(section: ExportSection, context: int, sampling: Mapping[str, float]) -> Manner:
    return Manner(context, section.system, section.turns, sampling)


def _of_keys(file: Path, context: int | None) -> Manner:
    keys = read_keys(file)
    trained = keys.get(f"{keys.get('general.architecture')}.context_length")
    return Manner(context or min(trained if isinstance(trained, int) and trained > 0 else MAX_CONTEXT, MAX_CONTEXT))
