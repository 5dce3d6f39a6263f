"""What a framework says of itself and of its device."""

from __future__ import annotations

import importlib
from typing import Any

from chrysalis_mlx.errors import BackendError


def facts(name: str) -> dict[str, Any]:
    """Compute something with a framework whose result is known, and tell what it is and what it runs on.

    Args:
        name: mlx or torch.

    Returns:
        what JSON can hold: `version`; `device` (cpu or gpu) and its `name`; of MLX also `working_set`, the
        bytes that Metal recommends or None, and `blas`, the library that was put in its way or None.

    Raises:
        BackendError: it computes wrong.
    """
    told: dict[str, Any] = importlib.import_module(f"chrysalis_mlx.backends.{name}.facts").facts()
    if not told["error"] < 1e-2:  # TF32 is right to three digits
        fix = "install it again; if that does not help, use the other backend"
        raise BackendError(f"{name} computes a wrong matrix product on {told['device']}", fix=fix)
    return told
