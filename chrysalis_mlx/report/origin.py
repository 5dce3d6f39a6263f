"""Where a run comes from: its base model, its repositories down to their commits, and their licences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chrysalis_mlx.export.lineage.lineage import Lineage
from chrysalis_mlx.genome.git.remote import shown
from chrysalis_mlx.genome.manifest import RepositoryRecord

NO_LICENCE = "none stated"


@dataclass(frozen=True)
class Place:
    """A repository of the genome.

    Attributes:
        url: of a remote, without a password or token; None of a folder of this machine, which is named nowhere.
        state: the commit, or of a plain directory the id that git would give to its tree.
        folder: the part of it that was taken; empty for all.
        files: that are in the genome.
    """

    name: str
    url: str | None
    state: str | None
    ref: str | None
    folder: str
    licence: str
    files: int


@dataclass(frozen=True)
class Origin:
    """Everything that a run was made from.

    Attributes:
        base: Hub id or name of the base model.
        revision: its commit on the Hub.
        licence: of the base model.
        model_files: name to sha256.
        adapter_files: path to sha256.
        material: genome or data, and history: sha256.
        repositories: in the genome's order.
        licences: how many repositories state each.
        failed: sources that could not be had, and why.
    """

    base: str
    revision: str | None = None
    licence: str | None = None
    licence_told_by: str | None = None
    model_files: Mapping[str, str] = field(default_factory=dict)
    adapter_files: Mapping[str, str] = field(default_factory=dict)
    material: Mapping[str, str] = field(default_factory=dict)
    manifest: str | None = None
    repositories: tuple[Place, ...] = ()
    licences: Mapping[str, int] = field(default_factory=dict)
    failed: tuple[str, ...] = ()


def origin_of(lineage: Lineage, failed: Sequence[Mapping[str, Any]] = ()) -> Origin:
    """What a report tells of a lineage."""
    base, licence = lineage.base, lineage.base.licence
    places = tuple(map(_place, lineage.repositories))
    return Origin(
        base=lineage.source,
        revision=base.hub.commit if base.hub else None,
        licence=licence.title if licence else None,
        licence_told_by=licence.told_by if licence else None,
        model_files=dict(lineage.model_files),
        adapter_files=dict(lineage.adapter.files) if lineage.adapter else {},
        material=lineage.material,
        manifest=lineage.manifest_sha256,
        repositories=places,
        licences=dict(Counter(place.licence for place in places).most_common()),
        failed=tuple(f"{failure['name']}: {failure['reason']}" for failure in failed),
    )


def _place(record: RepositoryRecord) -> Place:
    return Place(
        record.name,
        shown(record.location) if record.kind == "remote" and record.location else None,
        record.commit or record.tree,
        record.ref,
        record.folder,
        record.licence or NO_LICENCE,
        len(record.files),
    )
