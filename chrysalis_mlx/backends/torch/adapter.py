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
Parameters = dict[str, nn.Parameter]


def attach(model: nn.Module, spec: AdapterSpec, arrays: Mapping[str, Array]) -> Parameters:
    """Put the adapter into the frozen model.

    Returns:
        what is trained, float32, by our names (`MODULE.A`, `MODULE.B`, `MODULE.m`; of `full` those of the weights).

    Raises:
        BackendError: PEFT adapted other modules than the spec names, or whole weights are to be trained in bfloat16.
    """
    found = _weights(model, spec) if spec.kind == "full" else _low_rank(model, spec)
    if found.keys() != arrays.keys():
        odd = sorted(found.keys() ^ arrays.keys())[0]
        raise BackendError(
            f"torch's model and the blueprint disagree about {odd}", fix="report this with the model's name"
        )
    assign(found, arrays)
    return found


def dropouts(model: nn.Module) -> list[nn.Module]:
    """The adapter's dropout layers, which are not used until they are put in training mode; the base's stay out."""
    return [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Dropout) and name.endswith("lora_dropout.default")
    ]


def assign(named: Parameters, arrays: Mapping[str, Array]) -> None:
    """Copy values into the adapter's parameters."""
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(arrays[name])))


def values(named: Mapping[str, Any]) -> dict[str, Array]:
    """Tensors as float32 numpy arrays of their own memory."""
    return {name: tensor.detach().to(torch.float32).cpu().numpy().copy() for name, tensor in named.items()}


def _low_rank(model: nn.Module, spec: AdapterSpec) -> Parameters:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # PEFT's to mend
        get_peft_model(model, LoraConfig(**peft_config(spec))).eval()
    layers: list[Any] = [layer for layer in model.modules() if "default" in getattr(layer, "lora_magnitude_vector", ())]
    for layer in layers:
        _drop_before(layer.lora_magnitude_vector["default"], layer.lora_dropout["default"])
    return {
        f"{name.removesuffix(f'.{suffix}')}.{part}": parameter
        for name, parameter in model.named_parameters()
        for suffix, part in _PARTS.items()
        if name.endswith(suffix)
    }


def _drop_before(dora: nn.Module, dropout: nn.Module) -> None:
    """Dropout on the low-rank path's input alone; PEFT in training mode leaves it out of m / n · (x Wᵀ) as well."""
    dora.register_forward_pre_hook(lambda _, inputs: (dropout(inputs[0]), *inputs[1:]))


def _weights(model: nn.Module, spec: AdapterSpec) -> Parameters:
    found = {name: parameter for name, parameter in model.named_parameters() if name in spec.weights}
    if any(parameter.dtype != torch.float32 for parameter in found.values()):
        raise BackendError(
            "torch trains whole weights in float32 only", fix="set training.dtype to float32, or use the MLX backend"
        )
    for parameter in found.values():
        parameter.requires_grad_(True)
    return found
