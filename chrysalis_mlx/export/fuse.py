"""Writing the tuned model: Hugging Face safetensors and GGUF files, a few rows in memory at a time."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from chrysalis_mlx.adapters.spec import Array
from chrysalis_mlx.gguf.architectures import Value
from chrysalis_mlx.gguf.writer import Plan, Written, write_plan
from chrysalis_mlx.models.checkpoint import DType, TensorSource, write_checkpoint
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import atomic_path

_COPIED = ("*.json", "*.jinja", "tokenizer.model")
_NOT_COPIED = ("config.json", "model.safetensors.index.json")


def write_fused(
    directory: Path, source: TensorSource, model: ModelDirectory, dtype: DType, *, progress: Progress = silent
) -> None:
    """Write a directory that mlx-lm and transformers load like the base model.

    Args:
        source: the merged weights.
        model: the base; its configuration and tokenizer files are taken over.
        dtype: float32, float16 or bfloat16, of the safetensors file.
    """
    with atomic_path(directory) as partial:
        partial.mkdir()
        for pattern in _COPIED:
            for file in model.path.glob(pattern):
                if file.name not in _NOT_COPIED:
                    shutil.copyfile(file, partial / file.name)
        config = {key: value for key, value in model.plain_config.items() if key != "torch_dtype"} | {"dtype": dtype}
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        shapes = {name: source.shape(name) for name in source.names}
        with progress("fused/", len(shapes), unit="tensor") as bar:

            def read(name: str) -> Array:
                bar.update()
                return source.read(name)

            write_checkpoint(partial / "model.safetensors", shapes, read, dtype=dtype)


def write_unverified(
    directory: Path, plan: Plan, source: TensorSource, *, metadata: Mapping[str, Value], progress: Progress = silent
) -> dict[str, Written]:
    """Write `model-TYPE.unverified.gguf` for each type; one gets its final name when it is proved (`gguf_path`)."""
    with ExitStack() as stack:
        final = {name: gguf_path(directory, name).with_suffix(".unverified.gguf") for name in plan.types}
        partial = {name: stack.enter_context(atomic_path(path)) for name, path in final.items()}
        bar = stack.enter_context(progress(f"GGUF {', '.join(plan.types)}", plan.weights, unit="weight"))
        written = write_plan(plan, partial, source, metadata=metadata, progress=bar.update)
    return {name: dataclasses.replace(written[name], path=path) for name, path in final.items()}


def gguf_path(directory: Path, type_name: str) -> Path:
    """The final name of a GGUF file in an export directory."""
    return directory / f"model-{type_name}.gguf"
