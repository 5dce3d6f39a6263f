"""The optimizers of torch behind one face: parameter groups, clipping, and a state that can be written down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from chrysalis_mlx.backends.base import OptimizerSettings, OptimizerState
from chrysalis_mlx.backends.torch.adapter import Parameters
from chrysalis_mlx.errors import BackendError


class Optimizer:
    """One optimizer over named parameters.

    Args:
        named: what is trained.

    Raises:
        BackendError: torch has no such optimizer.
    """

    def __init__(self, settings: OptimizerSettings, named: Parameters) -> None:
        self._settings = settings
        self._named = named
        self._parts = _build(settings, named)
        self.steps = 0

    def step(self, learning_rate: float, clip: float) -> None:
        """Multiply the gradients by `clip` and apply them."""
        if clip != 1.0:
            for parameter in self._named.values():
                if parameter.grad is not None:
                    parameter.grad.mul_(clip)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate * group["ratio"]
            part.step()
        self.steps += 1

    def state(self) -> OptimizerState:
        """`step` (1,) and every slot of every parameter as `SLOT.NAME`, float32."""
        state: OptimizerState = {"step": np.array([self.steps], np.float32)}
        for name, slots in self._slots().items():
            state |= {f"{slot}.{name}": value.numpy().copy() for slot, value in slots.items() if slot != "step"}
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        self.steps = int(state["step"][0])
        for part in self._parts:
            part.state.clear()
        of = {parameter: part for part in self._parts for group in part.param_groups for parameter in group["params"]}
        for key in state.keys() - {"step"}:
            slot, _, name = key.partition(".")
            parameter = self._named[name]
            slots = of[parameter].state[parameter]
            slots[slot] = torch.from_numpy(state[key].copy())
            slots["step"] = torch.tensor(float(self.steps))

    def _slots(self) -> dict[str, Mapping[str, torch.Tensor]]:
        names: dict[torch.Tensor, str] = {parameter: name for name, parameter in self._named.items()}
        return {names[parameter]: slots for part in self._parts for parameter, slots in part.state.items()}


def _build(settings: OptimizerSettings, named: Parameters) -> list[torch.optim.Optimizer]:
    """One torch optimizer; of muon two, because it turns matrices alone."""
    if settings.name == "lion":
        raise BackendError(
            "torch has no optimizer lion", fix="choose adamw, adam, adafactor or muon, or use the MLX backend"
        )
    if not named:
        return []
    matrices = {name: parameter for name, parameter in named.items() if parameter.ndim == 2}
    rest = {name: parameter for name, parameter in named.items() if parameter.ndim != 2}
    betas, decay = (settings.beta1, settings.beta2), settings.weight_decay
    adam: dict[str, Any] = {"lr": 0.0, "betas": betas, "eps": settings.epsilon, "weight_decay": decay, "fused": True}
    groups = _groups(settings, named)
    if settings.name == "adamw":
        return [torch.optim.AdamW(groups, **adam)]
    if settings.name == "adam":
        return [torch.optim.Adam(groups, **adam)]
    if settings.name == "adafactor":
        return [torch.optim.Adafactor(groups, lr=0.0, weight_decay=decay)]
    muon = torch.optim.Muon(_groups(settings, matrices), lr=0.0, weight_decay=decay, momentum=settings.beta1)
    return [muon, torch.optim.AdamW(_groups(settings, rest), **adam)] if rest else [muon]


def _groups(settings: OptimizerSettings, named: Parameters) -> list[dict[str, Any]]:
    """Parameter groups by learning rate and weight decay; `ratio` is a group's share of the learning rate."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in named.items():
        ratio = settings.b_ratio if name.endswith(".B") else 1.0
        groups.setdefault((ratio, settings.weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [{"params": group, "ratio": ratio, "weight_decay": decay} for (ratio, decay), group in groups.items()]
