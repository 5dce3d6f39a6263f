"""mlx.optimizers over flat dictionaries of float32 masters, in groups that share their hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

from chrysalis_mlx.backends.base import OptimizerSettings, OptimizerState

Arrays = dict[str, mx.array]
_SLOTS = {"adam": {"m": "exp_avg", "v": "exp_avg_sq"}}
_SLOTS["adamw"] = _SLOTS["adam"]


class Optimizer:
    """One optimizer for all parameters.

    Args:
        settings: its name and hyper-parameters.
        dimensions: of the trained arrays, by name.
    """

    def __init__(self, settings: OptimizerSettings, dimensions: Mapping[str, int]) -> None:
        self._groups = []
        for flat in (False, True):
            for is_b in (False, True):
                names = [n for n, ndim in dimensions.items() if (ndim < 2) is flat and n.endswith(".B") is is_b]
                if names:
                    self._groups.append(_Group(settings, names, flat, settings.b_ratio if is_b else 1.0))

    def apply(self, parameters: Arrays, gradients: Arrays, learning_rate: float) -> Arrays:
        """The parameters after a step, in the order that they had: sums over all of them round as it says."""
        updated = dict(item for group in self._groups for item in group.apply(parameters, gradients, learning_rate))
        return {name: updated[name] for name in parameters}

    @property
    def steps(self) -> int:
        """Steps applied so far."""
        return self._groups[0].steps if self._groups else 0

    def state(self) -> OptimizerState:
        state: OptimizerState = {"step": np.array([self.steps], np.float32)}
        for group in self._groups:
            state |= group.state()
        return state

    def restore(self, state: OptimizerState) -> None:
        for group in self._groups:
            group.restore(state)

    def arrays(self) -> list[Any]:
        """Everything that has to be evaluated after a step."""
        return [group.optimizer.state for group in self._groups]


class _Group:
    """Parameters of one kind: matrices, B matrices, or 1-D parameters, which decay never reaches."""

    def __init__(self, settings: OptimizerSettings, names: list[str], flat: bool, ratio: float) -> None:
        self.names, self._ratio = names, ratio
        self._name = "adamw" if flat and settings.name == "muon" else settings.name
        self._decay = 0.0 if flat else settings.weight_decay
        self.optimizer: Any = _make(self._name, settings, self._decay)

    @property
    def steps(self) -> int:
        return int(self.optimizer.step.item())

    def apply(self, parameters: Arrays, gradients: Arrays, learning_rate: float) -> list[tuple[str, mx.array]]:
        rate = learning_rate * self._ratio
        old, new = ({name: source[name] for name in self.names} for source in (parameters, gradients))
        if self._decay and self._name == "adam":
            new = {name: gradient + self._decay * old[name] for name, gradient in new.items()}
        elif self._decay and self._name == "muon":
            old = {name: value * (1.0 - rate * self._decay) for name, value in old.items()}
        self.optimizer.learning_rate = rate
        updated: Arrays = self.optimizer.apply_gradients(new, old)
        return list(updated.items())

    def state(self) -> OptimizerState:
        slots = _SLOTS.get(self._name, {})
        return {
            f"{slots.get(slot, slot)}.{name}": np.array(value)
            for name in self.names
            for slot, value in self.optimizer.state.get(name, {}).items()
        }

    def restore(self, state: OptimizerState) -> None:
        ours = {theirs: slot for slot, theirs in _SLOTS.get(self._name, {}).items()}
        restored: dict[str, Any] = {name: {} for name in self.names}
        for key, value in state.items():
            slot, _, name = key.partition(".")
            if name in restored:
                restored[name][ours.get(slot, slot)] = mx.array(value)
        restored |= {"step": mx.array(int(state["step"][0]), mx.uint64), "learning_rate": mx.array(0.0)}
        self.optimizer.state = restored


def _make(name: str, settings: OptimizerSettings, decay: float) -> Any:
    betas = [settings.beta1, settings.beta2]
    if name == "adamw":
        return optim.AdamW(0.0, betas, settings.epsilon, weight_decay=decay, bias_correction=True)
    if name == "adam":
        return optim.Adam(0.0, betas, settings.epsilon, bias_correction=True)
    if name == "lion":
        return optim.Lion(0.0, betas, weight_decay=decay)
    if name == "muon":
        return optim.Muon(0.0, settings.beta1, weight_decay=0.0)  # its own decay is not decoupled
    return optim.Adafactor(0.0, relative_step=False, weight_decay=decay)
