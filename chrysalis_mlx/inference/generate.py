"""A text from a run's exported model."""

from __future__ import annotations

from pathlib import Path

from chrysalis_mlx.inference.files import find_exported
from chrysalis_mlx.llamacpp.server import Completion, LlamaServer


def generate(
    path: Path,
    prompt: str,
    quantize: str | None = None,
    *,
    raw: bool = False,
    max_tokens: int = 200,
    temperature: float = 0.0,
    seed: int = 0,
) -> tuple[Path, Completion]:
    """Answer a prompt in llama.cpp.

    Args:
        path: a run's directory or a GGUF.
        quantize: type of the run's GGUF; None takes the one that the Modelfile names, the last of the export's types.
        raw: continue the prompt instead of answering it through the model's chat template.

    Returns:
        the file that answered, and its answer.

    Raises:
        RunError: the run has no export yet.
        UsageError: it has no file of this type.
        ModelError: there is no such file.
    """
    file = find_exported(path, quantize).file
    with LlamaServer(file) as server:
        text = prompt if raw else server.apply_template([{"role": "user", "content": prompt}])
        return file, server.complete(text, max_tokens=max_tokens, temperature=temperature, seed=seed)
