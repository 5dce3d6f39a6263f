"""The base model of a run as a GGUF of the type of the tuned one, to compare them."""

from __future__ import annotations

from pathlib import Path

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf.writer import plan_gguf, write_plan
from chrysalis_mlx.models.source import cache_directory
from chrysalis_mlx.progress import Progress
from chrysalis_mlx.run import Run, atomic_path, sha256_json
from chrysalis_mlx.workspace import Workspace


def base_gguf(run: Run, type_name: str, progress: Progress) -> Path:
    """The base in the cache, written now where it is not there yet; without an importance matrix, and without proof.

    Args:
        type_name: GGUF type.

    Raises:
        RunError, ModelError: the base is gone or has changed.
        ExportError: the type needs an importance matrix; too little room on the disk.
    """
    recorded = run.record["model"]
    name = Path(recorded["source"]).name.removesuffix(".gguf")
    file = cache_directory() / "base" / f"{name}-{type_name}-{sha256_json(recorded['files'])[:16]}.gguf"
    if file.is_file():
        return file
    model = Workspace.open(run.directory).model
    source = model.checkpoint()
    try:
        plan = plan_gguf(source, model.plain_config, model.path).choose([type_name], None)
    except ExportError as error:
        fix = "take another type of the tuned model with --quantize TYPE, or --backend mlx"
        raise ExportError(f"there is no base of this type to compare with: {error.what}", fix=fix) from error
    file.parent.mkdir(parents=True, exist_ok=True)
    with progress(f"base model as {type_name}", plan.weights, unit="weight") as bar, atomic_path(file) as partial:
        write_plan(plan, {type_name: partial}, source, metadata={"general.name": name}, progress=bar.update)
    return file
