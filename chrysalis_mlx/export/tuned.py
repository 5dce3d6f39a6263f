"""What an export starts from: a base model, what was trained on it, and where both come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from chrysalis_mlx.adapters.experts import EXPERT
from chrysalis_mlx.adapters.merge import MergedSource
from chrysalis_mlx.adapters.spec import AdapterSpec, Array
from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.export.lineage.lineage import Lineage
from chrysalis_mlx.models.checkpoint import TensorSource
from chrysalis_mlx.models.directory import ModelDirectory


@dataclass(frozen=True)
class Tuned:
    """A model with its adapter.

    Attributes:
        model: the base, quantized or not.
        lineage: where it comes from.
        spec, arrays: what was trained; None and nothing for a plain conversion.
    """

    model: ModelDirectory
    lineage: Lineage
    spec: AdapterSpec | None = None
    arrays: Mapping[str, Array] = field(default_factory=dict)

    @property
    def source(self) -> TensorSource:
        """The weights that are exported, float32: the base's, with what was trained merged into it."""
        base = self.model.checkpoint()
        return base if self.spec is None else MergedSource(base, self.spec, self.arrays)

    @property
    def fits_engine(self) -> bool:
        """Whether a backend can run base and adapter; it knows linear layers inside the transformer layers alone.

        One on embeddings, the output head, experts or a router is run fused.
        """
        if self.spec is None:
            return True
        modules = self.spec.modules.keys()
        mixed = any(EXPERT.fullmatch(name) or name.endswith(".mlp.gate") for name in modules)
        inside = modules <= self.model.layer_linears().keys() and not mixed
        whole = set(self.spec.weights)
        return inside and (not whole or (self.spec.kind == "full" and whole <= self.model.layer_weights().keys()))

    def check(self) -> None:
        """See that what was trained is finite.

        Raises:
            ExportError: it names the first array that is not.
        """
        for name in self.spec.shapes() if self.spec else ():
            if not np.isfinite(self.arrays[name]).all():
                raise ExportError(
                    f"the adapter's {name} has values that are not finite",
                    where=name,
                    fix="the training went wrong or the file is damaged; export an earlier checkpoint",
                )
