"""Who can speak in a chat, and how each is brought into memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from chrysalis_mlx import backends
from chrysalis_mlx.errors import UsageError
from chrysalis_mlx.inference.base import base_gguf
from chrysalis_mlx.inference.chat_models.engine import EngineChatModel
from chrysalis_mlx.inference.chat_models.gguf import GGUFChatModel
from chrysalis_mlx.inference.chat_models.protocol import ChatModel
from chrysalis_mlx.inference.files import Exported, Manner, find_exported, manner_of, manner_of_run, names_file
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.pipeline.inputs import tuned_of
from chrysalis_mlx.progress import Progress
from chrysalis_mlx.run import Run
from chrysalis_mlx.workspace import Workspace

TUNED, BASE, MODEL = "tuned", "base", "model"
LLAMACPP = "llamacpp"


@dataclass(frozen=True)
class Speaker:
    """A model that may speak.

    Attributes:
        name: tuned, base or model.
        what: a file, or a directory and what runs it; for the user.
        open: loads it.
    """

    name: str
    what: str
    open: Callable[[], ChatModel]


@dataclass(frozen=True)
class Speakers:
    """The models of a chat.

    Attributes:
        manner: how to speak with them.
        first: who answers at first.
        other: gives the model that `/base` switches to; None where there is none.
    """

    manner: Manner
    first: Speaker
    other: Callable[[Progress], Speaker] | None = None


def find_speakers(path: Path, backend: str, quantize: str | None, context: int | None) -> Speakers:
    """The models that a user means.

    Args:
        path: a run's directory or a GGUF.
        backend: llamacpp, or the backend that runs the base with the adapter.
        quantize: of a run, the type of the file; see `find_exported`.
        context: in tokens; None: see `manner_of`.

    Raises:
        RunError, UsageError, ModelError: as `find_exported`; a GGUF that belongs to no run, for a backend.
        BackendError: the backend cannot be loaded.
    """
    if backend != LLAMACPP:
        return _of_backend(path, backend, quantize, context)
    exported = find_exported(path, quantize)
    manner = manner_of(exported, context)
    first = _gguf(TUNED if exported.run else MODEL, exported.file, manner.context)
    if exported.run is None:
        return Speakers(manner, first)
    return Speakers(manner, first, partial(_base, exported, manner.context))


def _gguf(name: str, file: Path, context: int) -> Speaker:
    return Speaker(name, str(file), lambda: GGUFChatModel(file, context))


def _base(exported: Exported, context: int, progress: Progress) -> Speaker:
    assert exported.run is not None
    return _gguf(BASE, base_gguf(exported.run, exported.type_name, progress), context)


def _of_backend(path: Path, backend: str, quantize: str | None, context: int | None) -> Speakers:
    if quantize is not None:
        raise UsageError("--quantize chooses a GGUF, which --backend does not read", fix="leave out one of them")
    run = find_exported(path).run if names_file(path) else Run.open(path)
    if run is None:
        raise UsageError(
            f"a GGUF outside of a run cannot be run by {backend}", where=path, fix="leave --backend out, or name a run"
        )
    run.require("train")
    backends.load(backend)  # found missing now, and not behind a progress bar
    workspace = Workspace.open(run.directory)
    manner = manner_of_run(run, context)
    model = workspace.model
    base = Speaker(BASE, f"{model.path} in {backend}", lambda: _engine(backend, model.path, model, manner.context))
    what = f"{run.directory} in {backend}"
    return Speakers(manner, Speaker(TUNED, what, partial(_tuned, workspace, backend, manner.context)), lambda _: base)


def _tuned(workspace: Workspace, backend: str, context: int) -> ChatModel:
    tuned = tuned_of(workspace)
    if not tuned.fits_engine:  # what no engine can put on, such as an adapter on experts, is merged in fused/
        workspace.run.require("fuse")
        return _engine(backend, workspace.run.path("fused"), workspace.model, context)
    engine = backends.load(backend)(workspace.model.path, tuned.spec, tuned.arrays)
    return EngineChatModel(engine, workspace.model, context)


def _engine(backend: str, directory: Path, model: ModelDirectory, context: int) -> ChatModel:
    return EngineChatModel(backends.load(backend)(directory), model, context)
