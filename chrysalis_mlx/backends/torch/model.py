"""transformers' models, fed packed rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import nn

from chrysalis_mlx.batches.packing import Batch, attention_mask
from chrysalis_mlx.errors import ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(directory: Path, dtype: str) -> tuple[nn.Module, str]:
    """transformers' causal language model of a directory, frozen, on the CPU.

    Returns:
        the model, and the name of the dtype that `dtype` ("auto" is float32 here) came to.

    Raises:
        ModelError: transformers does not know the architecture, or the weights do not fit it.
    """
    dtype = "float32" if dtype == "auto" else dtype
    transformers.utils.logging.disable_progress_bar()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=DTYPES[dtype], attn_implementation="sdpa", local_files_only=True
        )
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise ModelError(f"transformers cannot load the model: {error}", where=directory) from error
    return cast(nn.Module, model.eval().requires_grad_(False)), dtype


def logits(model: Any, batch: Batch) -> torch.Tensor:
    """(B, T) token ids of packed rows -> (B, T, V)."""
    dtype = next(parameter.dtype for parameter in model.parameters() if not parameter.requires_grad)
    window = (
        getattr(model.config, "sliding_window", None) if getattr(model.config, "use_sliding_window", True) else None
    )
    if window is not None and window < batch.tokens.shape[1]:
        raise ModelError(
            f"rows of {batch.tokens.shape[1]} tokens exceed the model's sliding window of {window}",
            fix="lower training.row_length, or use the MLX backend",
        )
    allowed = torch.from_numpy(attention_mask(batch.segments))  # (B, 1, T, T)
    mask = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
    output = model(input_ids=torch.from_numpy(batch.tokens).long(), attention_mask=mask, use_cache=False)
    return cast(torch.Tensor, output.logits)
