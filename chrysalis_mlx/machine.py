"""What this computer is, and which backend suits it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

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


def memory_bytes(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: the machine's, or the limit of its Linux control group if lower.

    Args:
        root: where proc/ and sys/ are.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_cgroup_limits(root)])


def _cgroup_limits(root: Path) -> list[int]:
    """The limits of this process's control group and of those above it (version 2), or of its container (version 1)."""
    mounted = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # macOS
        return []
    own = mounted / next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    files = [path / "memory.max" for path in (own, *own.parents) if path.is_relative_to(mounted)]
    files.append(mounted / "memory/memory.limit_in_bytes")
    texts = [file.read_text(encoding="utf-8").strip() for file in files if file.is_file()]
    return [int(text) for text in texts if text.isdecimal()]


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
