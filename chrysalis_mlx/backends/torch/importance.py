"""What goes into the linear layers of transformers' models, squared and summed (contract: backends/base.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from chrysalis_mlx.backends.base import InputSquares
from chrysalis_mlx.backends.squares import LAYERS, SquareSums, unpadded_rows
from chrysalis_mlx.backends.torch.model import hidden_states
from chrysalis_mlx.batches.packing import Batch


def input_squares(model: nn.Module, batches: Iterable[Batch]) -> dict[str, InputSquares]:
    """Sums of squared inputs, see `Engine.input_squares`; each row's are added up in float64."""
    found = SquareSums()
    hooks = [
        module.register_forward_pre_hook(partial(_see_experts if _is_experts(module) else _see, found, name))
        for name, module in _watched(model)
    ]
    try:
        with torch.no_grad():
            for batch in batches:
                for row in unpadded_rows(batch):
                    hidden_states(model, row)
    finally:
        for hook in hooks:
            hook.remove()
    return found.result()


def _watched(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules with a weight matrix, so that PEFT's stand for the layers inside them, and all experts."""
    last = None
    for name, module in model.named_modules():
        if not name.startswith(LAYERS) or (last is not None and name.startswith(f"{last}.")):
            continue
        weight = getattr(module, "weight", None)
        if _is_experts(module) or (isinstance(weight, torch.Tensor) and weight.ndim == 2):
            last = name
            yield name, module


def _is_experts(module: nn.Module) -> bool:
    """Whether these are transformers 5's experts, whose weights are stacked: (experts, 2 · intermediate, in)."""
    return isinstance(getattr(module, "gate_up_proj", None), nn.Parameter)


def _see(found: SquareSums, name: str, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    x = inputs[0].flatten(0, -2).double()  # (tokens, in)
    found.add(name, x.square().sum(dim=0, keepdim=True).numpy(), [len(x)])


def _see_experts(found: SquareSums, name: str, module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
    """What goes into down_proj is computed again here: transformers does all of it in one function.

    The inputs are (tokens, in) and (tokens, k), the experts that each token goes to; whoever computes them leaves the
    module's arguments to do so.
    """
    x, chosen = inputs[0], inputs[1]
    into = torch.zeros(module.num_experts, x.shape[-1], dtype=torch.float64)
    down = torch.zeros(module.num_experts, module.down_proj.shape[-1], dtype=torch.float64)
    counts = torch.zeros(module.num_experts, dtype=torch.float64)
    for expert in sorted(set(chosen.flatten().tolist())):
        own = x[(chosen == expert).any(dim=-1)]  # (tokens of this expert, in)
        gated = module._apply_gate(nn.functional.linear(own, module.gate_up_proj[expert]))
        into[expert] = own.double().square().sum(dim=0)
        down[expert] = gated.double().square().sum(dim=0)
        counts[expert] = len(own)
    for projection, sums in (("gate_proj", into), ("up_proj", into), ("down_proj", down)):
        found.add(f"{name}.{projection}", sums.numpy(), counts.numpy())
