"""A text from a run's exported model."""

from __future__ import annotations

from pathlib import Path

from chrysalis_mlx.errors import UsageError
from chrysalis_mlx.llamacpp.server import Completion, LlamaServer
from chrysalis_mlx.run import Run


def generate(
    directory: Path,
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
        directory: of the run.
        quantize: type of the GGUF; None takes the one that the Modelfile names, the last of the export's types.
        raw: continue the prompt instead of answering it through the model's chat template.

    Returns:
        the file that answered, and its answer.

    Raises:
        RunError: the run has no export yet.
        UsageError: it has no file of this type.
    """
    run = Run.open(directory)
    files = run.require("fuse")["report"]["gguf"]
    chosen = quantize or list(files)[-1]
    if chosen not in files:
        raise UsageError(
            f"the run has no {chosen} file; it has {', '.join(files)}",
            where=directory,
            fix=f"run: chrysalis-mlx fuse {directory} --quantize {chosen}",
        )
    file = run.path("export", files[chosen]["file"])
    with LlamaServer(file) as server:
        if raw:
            return file, server.complete(prompt, max_tokens=max_tokens, temperature=temperature, seed=seed)
        messages = [{"role": "user", "content": prompt}]
        return file, server.chat(messages, max_tokens=max_tokens, temperature=temperature, seed=seed)
