"""A blueprint's adapter, on the layers of one model."""

from __future__ import annotations

from collections.abc import Mapping

from chrysalis_mlx.adapters.spec import AdapterSpec, resolve_adapter
from chrysalis_mlx.blueprint.schema import AdapterSection


def adapter_spec(
    section: AdapterSection,
    linears: Mapping[str, tuple[int, int]],
    weights: Mapping[str, tuple[int, ...]] | None = None,
) -> AdapterSpec:
    """What the section puts beside a model.

    Args:
        linears: the model's linear layers, module name to (out, in).
        weights: every weight of its layers, name to shape; `full` trains those of the chosen layers.

    Raises:
        BlueprintError: it names modules or layers that the model does not have.
    """
    return resolve_adapter(
        section.kind,
        section.rank,
        section.alpha,
        section.layers,
        section.modules,
        linears,
        side=section.side,
        rslora=section.rslora,
        dropout=section.dropout,
        ranks=section.ranks,
        alphas=section.alphas,
        weights=weights,
    )
