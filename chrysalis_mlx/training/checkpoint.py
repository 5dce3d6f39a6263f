"""Checkpoints: adapters, optimizer state and step, whole or not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.errors import TrainingError
from chrysalis_mlx.run import atomic_path, sha256_file, write_json

_TENSORS = ("adapters.safetensors", "optimizer.safetensors")


def save_checkpoint(directory: Path, engine: Engine, step: int) -> dict[str, Any]:
    """Write `step-NNNNNN/` under `directory`.

    Returns:
        what the run's record needs to find it again: `name`, `step`, `files` with their sha256.
    """
    name = f"step-{step:06d}"
    with atomic_path(directory / name) as partial:
        partial.mkdir()
        save_file(engine.adapter(), partial / _TENSORS[0])
        save_file(engine.optimizer_state(), partial / _TENSORS[1])
        write_json(partial / "state.json", {"step": step})
    return {"name": name, "step": step, "files": {file: sha256_file(directory / name / file) for file in _TENSORS}}


def load_checkpoint(directory: Path, record: dict[str, Any], engine: Engine) -> int:
    """Put an engine back to a recorded checkpoint.

    Returns:
        the optimizer steps done.

    Raises:
        TrainingError: it is missing or its bytes are not the recorded ones.
    """
    path = directory / record["name"]
    for file, digest in record["files"].items():
        if not (path / file).is_file() or sha256_file(path / file) != digest:
            raise TrainingError(
                "the checkpoint is missing or damaged",
                where=path / file,
                fix=f"remove {directory.parent} and train again from the start",
            )
    engine.restore(load_file(path / _TENSORS[0]), load_file(path / _TENSORS[1]))
    step: int = json.loads((path / "state.json").read_text(encoding="utf-8"))["step"]
    return step


def prune_checkpoints(directory: Path, keep: str) -> None:
    """Remove every checkpoint but the recorded one."""
    for path in directory.glob("step-*"):
        if path.name != keep:
            shutil.rmtree(path)
