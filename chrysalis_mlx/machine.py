"""What this computer is, and which backend suits it."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from chrysalis_mlx import backends
from chrysalis_mlx.errors import BackendError


@dataclass(frozen=True)
class Choice:
    """An automatic choice and its reason."""

    name: str
    reason: str


def describe() -> str:
    """Operating system and processor, for instance `Darwin arm64`."""
    return f"{platform.system()} {platform.machine()}"


def choose_backend(requested: str = "auto") -> Choice:
    """The backend to train with: the one asked for; `auto` takes MLX where it imports, else torch.

    Raises:
        BackendError: the one asked for, or all of them, cannot be loaded.
    """
    if requested != "auto":
        backends.load(requested)
        return Choice(requested, "asked for")
    try:
        backends.load("mlx")
    except BackendError as error:
        missing = error.what
    else:
        return Choice("mlx", f"MLX imports on this machine ({describe()})")
    try:
        backends.load("torch")
    except BackendError as error:
        raise BackendError(f"no backend can be loaded: {missing}; {error.what}", fix=error.fix) from error
    return Choice("torch", missing)
