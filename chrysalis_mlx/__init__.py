"""chrysalis-mlx: from a set of repositories to a small language model that runs in Ollama or llama.cpp.

    import chrysalis_mlx as cm

    run = cm.grow("runs/notes", genome="ecosystem.txt.xz", model="Qwen/Qwen3-0.6B")
    if run.evaluation:
        print(run.evaluation.changes["test"].ratio)  # below 1: held-out texts are predicted better than before
    print(run.generate("What is a chrysalis?").text)

`begin` and `open_run` give a run whose stages are called one by one. Every mistake of a user is a `ChrysalisError`.

Importing this package imports no framework and takes milliseconds; every stage loads what it needs when it runs.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chrysalis_mlx.blueprint.schema import Blueprint
    from chrysalis_mlx.errors import (
        BackendError,
        BlueprintError,
        ChrysalisError,
        CorpusError,
        ExportError,
        GenomeError,
        HubError,
        ModelError,
        RunError,
        TrainingError,
        UsageError,
        VerificationError,
    )
    from chrysalis_mlx.evaluation.results import (
        Answer,
        Change,
        Continuation,
        Copying,
        Evaluation,
        Interval,
        Score,
        Subject,
        Texts,
    )
    from chrysalis_mlx.export.lineage.lineage import Lineage
    from chrysalis_mlx.export.results import ExportedFile, Exports
    from chrysalis_mlx.hub.push import Pushed
    from chrysalis_mlx.library.results import CorpusResult, FramingShare, RepositoryShare, Stage, TrainedAdapter
    from chrysalis_mlx.library.run import Run, begin, grow, open_run
    from chrysalis_mlx.llamacpp.server import Completion
    from chrysalis_mlx.progress import Bar, Progress

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "BackendError",
    "Bar",
    "Blueprint",
    "BlueprintError",
    "Change",
    "ChrysalisError",
    "Completion",
    "Continuation",
    "Copying",
    "CorpusError",
    "CorpusResult",
    "Evaluation",
    "ExportError",
    "ExportedFile",
    "Exports",
    "FramingShare",
    "GenomeError",
    "HubError",
    "Interval",
    "Lineage",
    "ModelError",
    "Progress",
    "Pushed",
    "RepositoryShare",
    "Run",
    "RunError",
    "Score",
    "Stage",
    "Subject",
    "Texts",
    "TrainedAdapter",
    "TrainingError",
    "UsageError",
    "VerificationError",
    "__version__",
    "begin",
    "grow",
    "open_run",
]

_PLACES = {
    "blueprint.schema": "Blueprint",
    "errors": "BackendError BlueprintError ChrysalisError CorpusError ExportError GenomeError HubError ModelError "
    "RunError TrainingError UsageError VerificationError",
    "evaluation.results": "Answer Change Continuation Copying Evaluation Interval Score Subject Texts",
    "export.lineage.lineage": "Lineage",
    "export.results": "ExportedFile Exports",
    "hub.push": "Pushed",
    "library.results": "CorpusResult FramingShare RepositoryShare Stage TrainedAdapter",
    "library.run": "Run begin grow open_run",
    "llamacpp.server": "Completion",
    "progress": "Bar Progress",
}

if not TYPE_CHECKING:  # a type checker would take any name at all for a public one

    def __getattr__(name: str) -> Any:
        """A public name, imported when it is first asked for."""
        for module, names in _PLACES.items():
            if name in names.split():
                return getattr(importlib.import_module(f"chrysalis_mlx.{module}"), name)
        raise AttributeError(f"module 'chrysalis_mlx' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
