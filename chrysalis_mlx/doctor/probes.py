"""What is examined in a process of its own (see `processes.ask`): imports that may crash it, or never end."""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any


def mlx() -> dict[str, Any]:
    """Load the MLX backend, and compute with it."""
    return _backend("mlx")


def torch() -> dict[str, Any]:
    """Load the torch backend, and compute with it."""
    return _backend("torch")


def _backend(name: str) -> dict[str, Any]:
    from chrysalis_mlx import backends
    from chrysalis_mlx.backends.facts import facts

    backends.load(name)
    return facts(name)


def xllamacpp() -> dict[str, Any]:
    """Load llama.cpp; its version and its devices."""
    llama: Any = importlib.import_module("xllamacpp")
    return {
        "version": str(llama.__version__),
        "devices": [f"{device['name']} ({device['description']})" for device in llama.get_device_info()],
    }


def imports(*modules: str) -> dict[str, Any]:
    """Import modules; those that cannot be imported, with the reason."""
    failed = {}
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # what a package raises is its own affair
            failed[module] = _reason(error)
    return failed


def load(library: str) -> dict[str, Any]:
    """Load a shared library."""
    import ctypes

    ctypes.CDLL(library)
    return {}


def _reason(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def main() -> None:
    """Run the probe that `sys.argv` names, and print what it found as one JSON object."""
    # Libraries print; the answer has standard output for itself.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    facts, reason = {}, None
    try:
        facts = globals()[sys.argv[1]](*sys.argv[2:])
    except Exception as error:  # whatever it is, it is what the doctor was called for
        reason = _reason(error)
    with answer:
        json.dump({"facts": facts, "reason": reason}, answer)
