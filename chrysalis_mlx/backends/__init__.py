"""The only rooms that import a framework. Everything else asks `load` for an engine class."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from chrysalis_mlx.errors import BackendError

if TYPE_CHECKING:
    from chrysalis_mlx.backends.base import Engine

NAMES = ("mlx", "torch")
_INSTALL = {"mlx": "pip install chrysalis-mlx", "torch": 'pip install "chrysalis-mlx[torch]"'}


def load(name: str) -> type[Engine]:
    """The engine class of a backend.

    Raises:
        BackendError: there is no such backend, or its framework cannot be imported here.
    """
    if name not in NAMES:
        raise BackendError(f"there is no backend '{name}'", fix=f"use one of: auto, {', '.join(NAMES)}")
    try:
        module = importlib.import_module(f"chrysalis_mlx.backends.{name}.engine")
    except ImportError as error:
        raise BackendError(f"the {name} backend cannot be loaded: {error}", fix=f"run: {_INSTALL[name]}") from error
    engine: type[Engine] = module.Engine
    return engine
