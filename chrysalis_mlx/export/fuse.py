"""Writing the fused model: Hugging Face safetensors and GGUF files, one tensor in memory at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from chrysalis_mlx.adapters.spec import Array
from chrysalis_mlx.gguf.writer import Written, write_gguf
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
    directory: Path,
    type_name: str,
    source: TensorSource,
    model: ModelDirectory,
    metadata: Mapping[str, str | int | float],
    *,
    progress: Progress = silent,
) -> Written:
    """Write `model-TYPE.unverified.gguf`; it gets its final name when it is proved (`gguf_path`)."""
    path = gguf_path(directory, type_name).with_suffix(".unverified.gguf")
    with atomic_path(path) as partial, progress(f"GGUF {type_name}", len(source.names), unit="tensor") as bar:
        written = write_gguf(
            partial,
            source,
            model.plain_config,
            model.path,
            type_name,
            metadata=metadata,
            progress=lambda name, done, total: bar.update(),
        )
    return Written(path, written.bytes, written.bits_per_weight, written.tensor_types)


def gguf_path(directory: Path, type_name: str) -> Path:
    """The final name of a GGUF file in an export directory."""
    return directory / f"model-{type_name}.gguf"
