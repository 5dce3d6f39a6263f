"""chrysalis-mlx import: a GGUF file as a model to train."""

from __future__ import annotations

from pathlib import Path

import click

from chrysalis_mlx.cli.output import json_option, out, print_json


@click.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("directory", type=click.Path(path_type=Path))
@json_option
def command(file: Path, directory: Path, as_json: bool) -> None:
    """Dequantize a GGUF FILE into DIRECTORY, a Hugging Face model that mlx-lm and transformers load.

    \b
    Example:
      chrysalis-mlx import SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2
    """
    from chrysalis_mlx.gguf.reader import import_gguf
    from chrysalis_mlx.models.directory import ModelDirectory

    import_gguf(file, directory)
    model = ModelDirectory.open(directory)
    checkpoint = model.checkpoint()
    if as_json:
        print_json({"directory": directory, "architecture": model.architecture, "tensors": len(checkpoint.names)})
    else:
        out().print(f"{directory}: {model.architecture}, {len(checkpoint.names)} tensors in float32", markup=False)
