"""transformers' models, fed packed rows."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import MoeModelOutputWithPast

from chrysalis_mlx.backends.torch.loss import Head
from chrysalis_mlx.batches.packing import PADDING, Batch
from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.directory import ModelDirectory

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_QUANTIZATION = ("quantization", "quantization_config")


def load_model(directory: Path, dtype: str) -> tuple[nn.Module, str]:
    """transformers' causal language model of a directory, frozen, on the CPU.

    A directory that mlx-lm quantized gives the model of its dequantized weights.

    Returns:
        the model, and the name of the dtype that `dtype` ("auto" is float32 here) came to.

    Raises:
        ModelError: transformers does not know the architecture, or the weights do not fit it.
    """
    dtype = "float32" if dtype == "auto" else dtype
    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = _read(directory, DTYPES[dtype])
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise ModelError(f"transformers cannot load the model: {error}", where=directory) from error
    if report["missing_keys"]:  # transformers would go on with random values
        raise ModelError(f"the weights lack {min(report['missing_keys'])}", where=directory, fix="download it again")
    return cast(nn.Module, model.eval().requires_grad_(False)), dtype


def hidden_states(model: Any, batch: Batch) -> torch.Tensor:
    """(B, T) token ids of packed rows -> (B, T, H), what the head gets."""
    decoder = getattr(model, model.base_model_prefix)
    # transformers takes positions that begin again for packed texts, and makes every layer's own mask of them.
    output = decoder(
        input_ids=torch.from_numpy(batch.tokens).long(),
        position_ids=torch.from_numpy(positions(batch.segments)),
        use_cache=False,
    )
    return cast(torch.Tensor, output.last_hidden_state)


def head_of(model: Any) -> Head:
    """The model's own way from hidden states to logits: its head with whatever scales or caps them.

    It is the model itself, whose decoder hands on what it is given: no list of architectures that can fall behind.
    """
    alone = copy.copy(model)
    alone._modules = dict(model._modules)
    setattr(alone, model.base_model_prefix, _HandedOn())

    def head(hidden: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, alone(inputs_embeds=hidden[None]).logits[0])

    return head


def checkpoint_layers(model: Any) -> None:
    """Keep only the inputs of the layers for the backward pass; it computes the rest again, dropout included."""
    # transformers' own switch acts in training mode alone, in which it would turn on more than that.
    for layer in getattr(model, model.base_model_prefix).layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def positions(segments: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """(B, T) positions that begin at 0 in every segment.

    Padding goes on from the last segment, which does not see it: a row of one segment needs no mask but the causal one.
    """
    indices = np.arange(segments.shape[1])
    begins = (np.diff(segments, axis=1, prepend=segments[:, :1]) != 0) & (segments != PADDING)
    counted: npt.NDArray[np.int64] = indices - np.maximum.accumulate(np.where(begins, indices, 0), axis=1)
    return counted


class _HandedOn(nn.Module):
    """Stands for the decoder when its output is already there; a mixture of experts asks for its router's, too."""

    def forward(self, inputs_embeds: torch.Tensor, **_: Any) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=inputs_embeds)


def _read(directory: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """The model, and what `from_pretrained` reports of its loading."""
    options = {"dtype": dtype, "output_loading_info": True, "local_files_only": True}
    model = ModelDirectory.open(directory)
    if not model.is_quantized:
        return cast(tuple[Any, dict[str, Any]], transformers.AutoModelForCausalLM.from_pretrained(directory, **options))
    # transformers cannot read what mlx-lm packed: it is told the weights, and of a model that was never quantized.
    plain = {key: value for key, value in model.config.items() if key not in _QUANTIZATION}
    config, weights = transformers.AutoConfig.for_model(**plain), model.checkpoint()
    unpacked = {name: torch.from_numpy(weights.read(name)) for name in weights.names}
    model_class = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    loaded = model_class.from_pretrained(None, config=config, state_dict=unpacked, **options)
    return cast(tuple[Any, dict[str, Any]], loaded)
