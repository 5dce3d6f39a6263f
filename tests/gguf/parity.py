"""Two implementations of one model, compared position by position."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.export.llamacpp import LlamaServer
from chrysalis_mlx.gguf.writer import Written, write_gguf
from chrysalis_mlx.models.checkpoint import Checkpoint

TOKENS = [5, 300, 17, 44, 101, 260, 260, 3, 400, 511, 9, 77, 350, 12, 66, 19]


def read_config(directory: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return config


def export(directory: Path, path: Path, type_name: str = "F32", **options: Any) -> Written:
    """Write a model directory as a GGUF."""
    return write_gguf(path, Checkpoint.open(directory), read_config(directory), directory, type_name, **options)


def transformers_logprobs(directory: Path, tokens: list[int]) -> npt.NDArray[np.float64]:
    """(T, vocabulary) log probabilities of the next token, in float32 torch."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double()
    result: npt.NDArray[np.float64] = torch.log_softmax(logits, dim=-1).numpy()
    return result


def llamacpp_logprobs(server: LlamaServer, tokens: list[int], vocabulary: int) -> npt.NDArray[np.float64]:
    """(T, vocabulary) log probabilities of the next token, one request a position."""
    rows = np.full((len(tokens), vocabulary), np.nan)
    for position in range(len(tokens)):
        ids, logprobs = server.next_token_logprobs(tokens[: position + 1], vocabulary)
        rows[position, ids] = logprobs
    return rows
