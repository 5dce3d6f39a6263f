"""What an adapter is: which linear layers it stands beside, its kind, rank and scale, and how it begins.

Shapes everywhere in this package: A is (r, in), B is (out, r), m (DoRA only) is (out,), all float32, named
`MODULE.A`, `MODULE.B`, `MODULE.m` with the module's name in the Hugging Face checkpoint.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import BlueprintError
from chrysalis_mlx.models.checkpoint import TensorSource

Array = npt.NDArray[np.float32]
AdapterArrays = dict[str, Array]
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class AdapterSpec:
    """A LoRA or DoRA adapter, resolved for one model.

    Attributes:
        kind: lora or dora.
        rank: r.
        alpha: numerator of the scale.
        modules: full module name to the (out, in) shape of its weight.
        num_layers: how many of the model's last layers carry it.
        keys: the adapted modules' names inside a layer, sorted.
    """

    kind: Literal["lora", "dora"]
    rank: int
    alpha: float
    modules: Mapping[str, tuple[int, int]]
    num_layers: int
    keys: tuple[str, ...]

    @property
    def scale(self) -> float:
        """s = alpha / r."""
        return self.alpha / self.rank

    @property
    def layer_indices(self) -> list[int]:
        return sorted({layer_and_key(module)[0] for module in self.modules})

    def parameter_count(self) -> int:
        per_module = (
            self.rank * (out + into) + (out if self.kind == "dora" else 0) for out, into in self.modules.values()
        )
        return sum(per_module)


def layer_and_key(module: str) -> tuple[int, str]:
    """`model.layers.3.self_attn.q_proj` -> (3, `self_attn.q_proj`)."""
    index, key = module.removeprefix("model.layers.").split(".", 1)
    return int(index), key


def resolve_adapter(
    kind: Literal["lora", "dora"],
    rank: int,
    alpha: float,
    layers: int | Literal["all"],
    patterns: Sequence[str],
    linears: Mapping[str, tuple[int, int]],
) -> AdapterSpec:
    """Choose the linear layers that the patterns name.

    Args:
        layers: `all`, or the number of last layers.
        patterns: names inside a layer (`self_attn.q_proj`, or just `q_proj`), globs, or `all-linear`.
        linears: the model's linear layers, module name to (out, in).

    Raises:
        BlueprintError: a pattern matches nothing, or there are fewer layers than asked for; all such problems at once.
    """
    total = max(layer_and_key(module)[0] for module in linears) + 1
    count = total if layers == "all" else layers
    keys = sorted({layer_and_key(module)[1] for module in linears})
    problems = []
    if count > total:
        problems.append(f"adapter.layers: {count} of a model that has {total}; use 'all' or a smaller number")
    chosen: set[str] = set()
    for pattern in patterns:
        matched = {
            key for key in keys if pattern == ALL_LINEAR or fnmatchcase(key, pattern) or key.endswith(f".{pattern}")
        }
        if not matched:
            near = difflib.get_close_matches(pattern, [*keys, *(key.split(".")[-1] for key in keys)], n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"this model has: {', '.join(keys)}"
            problems.append(f"adapter.modules: '{pattern}' matches no linear layer; {hint}")
        chosen |= matched
    if problems:
        raise BlueprintError("the blueprint's adapter does not fit the model", problems)
    modules = {
        module: shape
        for module, shape in linears.items()
        if layer_and_key(module)[0] >= total - count and layer_and_key(module)[1] in chosen
    }
    return AdapterSpec(kind, rank, alpha, modules, count, tuple(sorted(chosen)))


def initialize(spec: AdapterSpec, base: TensorSource, seed: int) -> AdapterArrays:
    """The adapter before its first step; it changes nothing yet.

    A is uniform in ±1/√in (as PEFT and mlx-lm draw it), from a generator of its own per module, so that the same module
    begins the same whatever else is adapted; B is zero; m holds the base weight's row norms.

    Returns:
        `MODULE.A` (r, in), `MODULE.B` (out, r) and for DoRA `MODULE.m` (out,), float32.
    """
    arrays: AdapterArrays = {}
    for module, (out, into) in spec.modules.items():
        digest = hashlib.sha256(module.encode()).digest()
        generator = np.random.Generator(np.random.PCG64([seed, int.from_bytes(digest[:8], "little")]))
        bound = 1.0 / np.sqrt(into)
        arrays[f"{module}.A"] = generator.uniform(-bound, bound, (spec.rank, into)).astype(np.float32)
        arrays[f"{module}.B"] = np.zeros((out, spec.rank), np.float32)
        if spec.kind == "dora":
            weight = base.read(f"{module}.weight")
            arrays[f"{module}.m"] = np.linalg.norm(weight, axis=1).astype(np.float32)
    return arrays
