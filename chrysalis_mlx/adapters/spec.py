"""What an adapter is: which linear layers it stands beside, its kind, rank and scale, and how it begins.

Shapes everywhere in this package: A is (r, in), B is (out, r), m (DoRA only) is (out,), all float32, named
`MODULE.A`, `MODULE.B`, `MODULE.m` with the module's name in the Hugging Face checkpoint. Of a full fine-tuning the
arrays are the weights themselves, under their names in the checkpoint.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import BlueprintError
from chrysalis_mlx.models.checkpoint import TensorSource

Array = npt.NDArray[np.float32]
AdapterArrays = dict[str, Array]
Kind = Literal["lora", "dora", "full"]
Side = Literal["last", "first"]
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Adapted:
    """One adapted linear layer: W is (out, into), A (rank, into), B (out, rank); the update is scaled by `scale`."""

    out: int
    into: int
    rank: int
    alpha: float
    scale: float


@dataclass(frozen=True)
class AdapterSpec:
    """An adapter, resolved for one model.

    Attributes:
        kind: lora, dora or full.
        rank, alpha: of every module that has none of its own.
        rslora: the scale is alpha / sqrt(rank) (arXiv 2312.03732) instead of alpha / rank.
        dropout: share of the low-rank path's inputs left out while training.
        modules: full module name to what stands beside it; empty for `full`.
        weights: of `full`, the name of every trained weight to its shape; empty otherwise.
    """

    kind: Kind
    rank: int
    alpha: float
    modules: Mapping[str, Adapted]
    rslora: bool = False
    dropout: float = 0.0
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def layer_indices(self) -> list[int]:
        """The transformer layers in which something is trained, ascending."""
        return sorted({layer_and_key(name)[0] for name in (*self.modules, *self.weights)})

    @property
    def keys(self) -> tuple[str, ...]:
        """The adapted modules' names inside a layer, sorted."""
        return tuple(sorted({layer_and_key(module)[1] for module in self.modules}))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of every array, in the model's order."""
        shapes: dict[str, tuple[int, ...]] = dict(self.weights)
        for module, adapted in self.modules.items():
            shapes[f"{module}.A"] = (adapted.rank, adapted.into)
            shapes[f"{module}.B"] = (adapted.out, adapted.rank)
            if self.kind == "dora":
                shapes[f"{module}.m"] = (adapted.out,)
        return shapes

    def parameter_count(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes().values())


def layer_and_key(name: str) -> tuple[int, str]:
    """`model.layers.3.self_attn.q_proj` -> (3, `self_attn.q_proj`)."""
    index, key = name.removeprefix("model.layers.").split(".", 1)
    return int(index), key


def resolve_adapter(
    kind: Kind,
    rank: int,
    alpha: float,
    layers: int | Literal["all"],
    patterns: Sequence[str],
    linears: Mapping[str, tuple[int, int]],
    *,
    side: Side = "last",
    rslora: bool = False,
    dropout: float = 0.0,
    ranks: Mapping[str, int] | None = None,
    alphas: Mapping[str, float] | None = None,
    weights: Mapping[str, tuple[int, ...]] | None = None,
) -> AdapterSpec:
    """Choose the linear layers that the patterns name.

    Args:
        layers: `all`, or how many layers.
        patterns: names inside a layer (`self_attn.q_proj`, or just `q_proj`), globs, or `all-linear`.
        linears: the model's linear layers, module name to (out, in).
        side: which layers, when they are not all.
        ranks, alphas: pattern to what its modules have instead of `rank` and `alpha`; the first match counts.
        weights: every weight of the model's layers, name to shape; `full` trains those of the chosen layers.

    Raises:
        BlueprintError: a pattern matches nothing, or there are fewer layers than asked for; all such problems at once.
    """
    total = max(layer_and_key(module)[0] for module in linears) + 1
    count = total if layers == "all" else layers
    keys = sorted({layer_and_key(module)[1] for module in linears})
    own_ranks, own_alphas = dict(ranks or {}), dict(alphas or {})
    problems = [
        f"{where}: '{pattern}' matches no linear layer; {_hint(pattern, keys)}"
        for where, named in (
            ("adapter.modules", patterns),
            ("adapter.ranks", own_ranks),
            ("adapter.alphas", own_alphas),
        )
        for pattern in named
        if not any(_matches(key, pattern) for key in keys)
    ]
    if count > total:
        problems.insert(0, f"adapter.layers: {count} of a model that has {total}; use 'all' or a smaller number")
    if problems:
        raise BlueprintError("the blueprint's adapter does not fit the model", problems)
    chosen = range(total - count, total) if side == "last" else range(count)
    if kind == "full":
        trained = {name: shape for name, shape in (weights or {}).items() if layer_and_key(name)[0] in chosen}
        return AdapterSpec(kind, rank, alpha, {}, weights=trained)
    modules = {}
    for module, (out, into) in linears.items():
        layer, key = layer_and_key(module)
        if layer in chosen and any(_matches(key, pattern) for pattern in patterns):
            r, a = _first(own_ranks, key, rank), _first(own_alphas, key, alpha)
            modules[module] = Adapted(out, into, r, a, a / math.sqrt(r) if rslora else a / r)
    return AdapterSpec(kind, rank, alpha, modules, rslora, dropout)


def initialize(spec: AdapterSpec, base: TensorSource, seed: int) -> AdapterArrays:
    """The adapter before its first step; it changes nothing yet.

    A is uniform in ±1/√in (as PEFT and mlx-lm draw it), from a generator of its own per module, so that the same module
    begins the same whatever else is adapted; B is zero; m holds the base weight's row norms.

    Returns:
        an array for every one of `spec.shapes()`, float32.
    """
    arrays: AdapterArrays = {name: base.read(name) for name in spec.weights}
    for module, adapted in spec.modules.items():
        digest = hashlib.sha256(module.encode()).digest()
        generator = np.random.Generator(np.random.PCG64([seed, int.from_bytes(digest[:8], "little")]))
        bound = 1.0 / np.sqrt(adapted.into)
        arrays[f"{module}.A"] = generator.uniform(-bound, bound, (adapted.rank, adapted.into)).astype(np.float32)
        arrays[f"{module}.B"] = np.zeros((adapted.out, adapted.rank), np.float32)
        if spec.kind == "dora":
            weight = base.read(f"{module}.weight")
            arrays[f"{module}.m"] = np.linalg.norm(weight, axis=1).astype(np.float32)
    return arrays


def _matches(key: str, pattern: str) -> bool:
    return pattern == ALL_LINEAR or fnmatchcase(key, pattern) or key.endswith(f".{pattern}")


def _first(own: Mapping[str, float], key: str, default: float) -> Any:
    return next((value for pattern, value in own.items() if _matches(key, pattern)), default)


def _hint(pattern: str, keys: Iterable[str]) -> str:
    names = [*keys, *(key.split(".")[-1] for key in keys)]
    near = difflib.get_close_matches(pattern, names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"this model has: {', '.join(keys)}"
