"""LoRA and DoRA beside a torch linear layer: PEFT's, so that MLX is proved against an implementation not ours."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from chrysalis_mlx.adapters.files import peft_config
from chrysalis_mlx.adapters.spec import AdapterSpec, Array
from chrysalis_mlx.errors import BackendError

_PARTS = {"lora_A.default.weight": "A", "lora_B.default.weight": "B", "lora_magnitude_vector.default.weight": "m"}


def attach(model: nn.Module, spec: AdapterSpec, arrays: Mapping[str, Array]) -> nn.Module:
    """Freeze the model and let PEFT put adapters beside the spec's linear layers.

    Returns:
        PEFT's wrapped model.

    Raises:
        BackendError: PEFT adapted other modules than the spec names.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # PEFT's to mend
        wrapped: nn.Module = get_peft_model(model, LoraConfig(**peft_config(spec)))
    found = parameters(wrapped)
    if found.keys() != arrays.keys():
        odd = sorted(found.keys() ^ arrays.keys())[0]
        raise BackendError(f"PEFT and the blueprint disagree about {odd}", fix="report this with the model's name")
    assign(wrapped, arrays)
    return wrapped


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The adapter's parameters by our names (`MODULE.A`, `MODULE.B`, `MODULE.m`), in the model's order."""
    named = {}
    for name, parameter in model.named_parameters():
        for suffix, part in _PARTS.items():
            if name.endswith(suffix):
                module = name.removeprefix("base_model.model.").removesuffix(f".{suffix}")
                named[f"{module}.{part}"] = parameter
    return named


def assign(model: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Copy values into the adapter's parameters."""
    with torch.no_grad():
        for name, parameter in parameters(model).items():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(arrays[name])))


def values(named: Mapping[str, Any]) -> dict[str, Array]:
    """Tensors as float32 numpy arrays of their own memory."""
    return {name: tensor.detach().to(torch.float32).cpu().numpy().copy() for name, tensor in named.items()}
