"""chrysalis-mlx: from a set of repositories to a small language model that runs in Ollama or llama.cpp.

    import chrysalis_mlx as cm

    run = cm.grow("runs/notes", genome="ecosystem.txt.xz", model="Qwen/Qwen3-0.6B")
    run.evaluation.changes["test"].ratio

Importing this package imports no framework and takes milliseconds; every stage loads what it needs when it runs.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chrysalis_mlx.errors import ChrysalisError
    from chrysalis_mlx.evaluation.results import Evaluation
    from chrysalis_mlx.export.results import ExportedFile, Exports
    from chrysalis_mlx.library.results import CorpusResult, Stage, TrainedAdapter
    from chrysalis_mlx.library.run import Run, begin, grow, open_run

__version__ = "0.1.0"
__all__ = [
    "ChrysalisError",
    "CorpusResult",
    "Evaluation",
    "ExportedFile",
    "Exports",
    "Run",
    "Stage",
    "TrainedAdapter",
    "__version__",
    "begin",
    "grow",
    "open_run",
]

_PLACES = {
    "errors": ("ChrysalisError",),
    "evaluation.results": ("Evaluation",),
    "export.results": ("ExportedFile", "Exports"),
    "library.results": ("CorpusResult", "Stage", "TrainedAdapter"),
    "library.run": ("Run", "begin", "grow", "open_run"),
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for."""
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"chrysalis_mlx.{module}"), name)
    raise AttributeError(f"module 'chrysalis_mlx' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
