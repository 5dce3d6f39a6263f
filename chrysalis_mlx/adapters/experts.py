"""Which linear layers' weights a tensor of a checkpoint holds; experts are stacked in two of their three forms.

Every expert's matrix has a name of its own here, `BLOCK.experts.3.gate_proj`, however it is stored:

    BLOCK.experts.3.gate_proj.weight     (out, in)                 one by one
    BLOCK.switch_mlp.gate_proj.weight    (experts, out, in)        by mlx-lm (mlx_lm/models/switch_layers.py)
    BLOCK.experts.gate_up_proj           (experts, 2 · width, in)  by transformers 5: gate's rows above up's
    BLOCK.experts.down_proj              (experts, out, in)        by transformers 5
"""

from __future__ import annotations

import re
from dataclasses import dataclass

EXPERT = re.compile(r"(?P<block>.+)\.experts\.(?P<expert>\d+)\.(?P<projection>\w+)")
"""The name of one expert's matrix."""

_SWITCH = re.compile(r"(?P<block>.+)\.switch_mlp\.(?P<projection>\w+)\.weight")
_FUSED = re.compile(r"(?P<block>.+)\.experts\.(?P<projection>gate_up_proj|down_proj)")
_HALVES = {"gate_up_proj": ("gate_proj", "up_proj")}


@dataclass(frozen=True)
class Matrix:
    """The weight of one linear layer: rows `start` to `stop` of a tensor seen as a matrix."""

    module: str
    start: int
    stop: int


def matrices(name: str, shape: tuple[int, ...]) -> list[Matrix]:
    """What a tensor holds, from its first row to its last; nothing of a vector, or of a form that is not known.

    Args:
        name: of the tensor in the checkpoint.
        shape: (out, in) or (experts, out, in).
    """
    if len(shape) == 2 and name.endswith(".weight"):
        return [Matrix(name.removesuffix(".weight"), 0, shape[0])]
    found = _SWITCH.fullmatch(name) or _FUSED.fullmatch(name)
    if found is None or len(shape) != 3:
        return []
    projections = _HALVES.get(found["projection"], (found["projection"],))
    rows = shape[1] // len(projections)
    modules = [f"{found['block']}.experts.{expert}.{name}" for expert in range(shape[0]) for name in projections]
    return [Matrix(module, rows * place, rows * (place + 1)) for place, module in enumerate(modules)]
