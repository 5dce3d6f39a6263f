"""Where an exported model comes from, and how a GGUF tells of it.

`general.*` keys are those of llama.cpp's converter (gguf-py, Metadata). `chrysalis.*` keys are ours:

    version, created, seed, backend                       of the program, of the run
    model.source, .revision, .sha256, .files              files: "SHA256  NAME", as sha256sum writes it
    adapter.kind, .rank, .alpha, .sha256, .files          sha256: of adapters.safetensors (mlx-lm) or PEFT's file
    training.steps, .best_step, .tokens, .train_loss, .valid_loss, .best_loss, .learning_rate
    blueprint.name, .sha256                               of its content, not of its bytes
    genome.sha256, .manifest, .lock                       manifest: sha256 of genome.json; lock: PLACE@COMMIT
    data.sha256, history.sha256

A path of this machine is written nowhere: of a local directory or file the name alone, and of a checkout its name in
the genome.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chrysalis_mlx import __version__
from chrysalis_mlx.adapters.foreign import adapter_files
from chrysalis_mlx.adapters.spec import AdapterSpec
from chrysalis_mlx.blueprint.load import load_blueprint
from chrysalis_mlx.blueprint.schema import Blueprint
from chrysalis_mlx.export.lineage.base_model import HUB, BaseModel, HubSnapshot, name_parts, plain_name, size_label
from chrysalis_mlx.genome.git.remote import shown
from chrysalis_mlx.genome.manifest import RepositoryRecord, read_manifest
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.run import Run, sha256_file, sha256_json

Value = str | int | float | bool | list[str]

PREFIX = "chrysalis."
TOKENS = f"{PREFIX}training.tokens"
# What says with what a file was written, not from what: two exports of one run may differ in these.
OF_THE_EXPORT = (f"{PREFIX}version", "general.quantized_by")

_RUN_WEIGHTS = "adapters/adapters.safetensors"  # a run's peft/ says the same


@dataclass(frozen=True)
class Adapter:
    """What was trained.

    Attributes:
        kind: lora, dora or full.
        rank, alpha: None where there is none, or no single one is known.
        files: path to sha256.
    """

    kind: str
    rank: int | None = None
    alpha: float | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str | None:
        """Of the file that holds its weights."""
        weights = [sha256 for name, sha256 in self.files.items() if not name.endswith(".json")]
        return self.files.get(_RUN_WEIGHTS) or next(iter(weights), None)


@dataclass(frozen=True)
class Lineage:
    """Everything that is known of where an export comes from.

    Attributes:
        base: the model that was trained or converted.
        model_files: its files that decide what it computes, name to sha256.
        adapter: None for a plain conversion.
        run, blueprint: None for an adapter that was trained elsewhere.
        repositories: of the run's genome; empty for one made from data.
        manifest_sha256: of the run's genome.json.
    """

    base: BaseModel
    model_files: Mapping[str, str]
    adapter: Adapter | None = None
    run: Run | None = None
    blueprint: Blueprint | None = None
    repositories: Sequence[RepositoryRecord] = ()
    manifest_sha256: str | None = None

    @classmethod
    def of_run(cls, run: Run) -> Lineage:
        """Read a run: its record, its blueprint.yaml and, where it was made from a genome, its genome.json.

        Raises:
            BlueprintError, GenomeError: the run's blueprint.yaml or genome.json cannot be read.
        """
        recorded, manifest = run.record["model"], run.path("genome.json")
        blueprint = load_blueprint(run.path("blueprint.yaml"))
        section = blueprint.adapter
        files = {
            path: output["sha256"]
            for path, output in run.stage("train").get("outputs", {}).items()
            if path.startswith("adapters/")
        }
        rank = None if section.kind == "full" or section.ranks else section.rank
        alpha = None if section.kind == "full" or section.alphas else section.alpha
        return cls(
            BaseModel.read(recorded["source"], Path(recorded["directory"])),
            recorded["files"],
            Adapter(section.kind, rank, alpha, files),
            run,
            blueprint,
            read_manifest(manifest)[1] if "genome" in run.record else (),
            sha256_file(manifest) if "genome" in run.record else None,
        )

    @classmethod
    def of_files(
        cls, source: str, model: ModelDirectory, adapter: Path | None = None, spec: AdapterSpec | None = None
    ) -> Lineage:
        """What can be known without a run; every file is hashed.

        Args:
            source: what the user named: a directory, a .gguf file or a Hub id.
            adapter: directory of an adapter that mlx-lm or PEFT wrote; None for a plain conversion.
            spec: what was read there.
        """
        found = None
        if adapter is not None and spec is not None:
            files = {path.relative_to(adapter).as_posix(): sha256_file(path) for path in adapter_files(adapter)}
            full = spec.kind == "full"
            found = Adapter(spec.kind, None if full else spec.rank, None if full else spec.alpha, files)
        return cls(BaseModel.read(source, model.path), model.hashes(), found)

    @property
    def name(self) -> str:
        """Of the model that is exported."""
        return f"{self.base.name} {self.blueprint.name}" if self.blueprint else self.base.name

    @property
    def source(self) -> str:
        """The Hub id of the base, or its name."""
        return self.base.hub.id if self.base.hub else self.base.name

    @property
    def material(self) -> dict[str, str]:
        """sha256 of what was trained on: `genome` or `data`, and `history` where there is one."""
        record = self.run.record if self.run else {}
        found = {name: record[name]["sha256"] for name in ("genome", "data") if name in record}
        history = record.get("genome", {}).get("history")
        return found | ({"history": history} if history else {})

    @property
    def training(self) -> dict[str, int | float]:
        """Figures of the training, as far as it is recorded. Losses are in nats per token."""
        if self.run is None or self.blueprint is None:
            return {}
        report = self.run.stage("train").get("report", {})
        names = ("steps", "best_step", "train_loss", "valid_loss", "best_loss")
        found = {name: report[name] for name in names if name in report}
        found["tokens"] = _tokens(self.run.path("training", "metrics.jsonl"))
        found["learning_rate"] = self.blueprint.training.learning_rate
        return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}

    @property
    def data_on_hub(self) -> HubSnapshot | None:
        """Where the data lie on the Hub; None when they do not come from there."""
        record = self.run.record if self.run else {}
        return HubSnapshot.of(Path(record["data"]["path"]), "datasets") if "data" in record else None


def place(repository: RepositoryRecord) -> str:
    """Where a repository of a genome comes from, as PLACE@COMMIT.

    PLACE is its URL, without a password or token, or its name where it has none.
    """
    remote = repository.kind == "remote" and repository.location
    where = shown(str(repository.location)) if remote else repository.name
    state = repository.commit or repository.tree
    folder = f":{repository.folder}" if repository.folder else ""
    return f"{where}@{state}{folder}" if state else where


def metadata(lineage: Lineage) -> dict[str, Value]:
    """The keys that a GGUF of this lineage carries, beside those of its architecture and vocabulary."""
    return {**general_keys(lineage), **chrysalis_keys(lineage)}


def chrysalis_keys(lineage: Lineage) -> dict[str, Value]:
    """Our keys: hashes and figures. Of a run they follow from its directory alone."""
    adapter, run = lineage.adapter, lineage.run
    keys: dict[str, Value | None] = {
        "version": __version__,
        "created": run.record["created"] if run else None,
        "seed": run.record.get("seed") if run else None,
        "backend": run.record.get("backend", {}).get("name") if run else None,
        "model.source": lineage.source,
        "model.revision": lineage.base.hub.commit if lineage.base.hub else None,
        "model.sha256": sha256_json(dict(lineage.model_files)),
        "model.files": _sums(lineage.model_files),
    }
    if adapter:
        keys |= {
            "adapter.kind": adapter.kind,
            "adapter.rank": adapter.rank,
            "adapter.alpha": adapter.alpha,
            "adapter.sha256": adapter.sha256,
            "adapter.files": _sums(adapter.files),
        }
    keys |= {f"training.{name}": value for name, value in lineage.training.items()}
    if run and lineage.blueprint:
        keys |= {"blueprint.name": lineage.blueprint.name, "blueprint.sha256": run.record["blueprint"]["sha256"]}
    keys |= {f"{name}.sha256": sha256 for name, sha256 in lineage.material.items()}
    keys |= {
        "genome.manifest": lineage.manifest_sha256,
        "genome.lock": [place(repository) for repository in lineage.repositories],
    }
    return {f"{PREFIX}{name}": value for name, value in keys.items() if value is not None and value != []}


def general_keys(lineage: Lineage) -> dict[str, Value]:
    """The keys that llama.cpp's converter writes, of a name with its parts, a licence, a base and data."""
    base, blueprint = lineage.base, lineage.blueprint
    named = name_parts(base.name, base.parameters)
    basename, size, tuned_for = named or (None, size_label(base.parameters) if base.parameters else None, None)
    finetune = "-".join(filter(None, (tuned_for, blueprint.name.replace(" ", "-") if blueprint else None)))
    licence = base.licence
    keys: dict[str, Value | None] = {
        "general.name": lineage.name,
        "general.description": (blueprint.description or blueprint.name) if blueprint else None,
        "general.basename": basename,
        "general.finetune": finetune or None,
        "general.size_label": size,
        "general.quantized_by": f"chrysalis-mlx {__version__}",
        "general.license": licence.id if licence else None,
        "general.license.name": licence.name if licence else None,
        "general.license.link": licence.link if licence else None,
        **(_base_keys([lineage.source], base) if lineage.adapter else _converted_keys(base)),
        **_dataset_keys(lineage),
        "general.tags": tags(lineage),
        "general.languages": list(base.languages),
    }
    return {name: value for name, value in keys.items() if value is not None and value != []}


def tags(lineage: Lineage) -> list[str]:
    """What the Hub and general.tags find the model by."""
    kind = lineage.adapter.kind if lineage.adapter else None
    return ["text-generation", "gguf", *([kind] if kind in ("lora", "dora") else []), "chrysalis-mlx"]


def _converted_keys(base: BaseModel) -> dict[str, Value | None]:
    """Of a plain conversion: the source is the model itself, and its bases are what it names."""
    return {
        "general.organization": base.organization,
        "general.source.repo_url": f"{HUB}/{base.hub.id}" if base.hub else None,
        **_base_keys(base.made_from, None),
    }


def _base_keys(ids: Sequence[str], base: BaseModel | None) -> dict[str, Value | None]:
    keys: dict[str, Value | None] = {"general.base_model.count": len(ids) or None}
    for number, name in enumerate(ids):
        owner, _, own = name.rpartition("/")
        on_hub = base.hub is not None if base else owner.count("/") == 0 and owner != ""
        keys |= {
            f"general.base_model.{number}.name": own,
            f"general.base_model.{number}.organization": base.organization if base else owner or None,
            f"general.base_model.{number}.repo_url": f"{HUB}/{name}" if on_hub else None,
        }
    return keys


def _dataset_keys(lineage: Lineage) -> dict[str, Value | None]:
    """One entry for the genome or the data; chrysalis.genome.lock names the genome's repositories.

    An entry for each repository would be hundreds of keys, which llama.cpp prints whenever it loads the file.
    """
    run, hub, first = lineage.run, lineage.data_on_hub, "general.dataset.0"
    if run is None:
        return {}
    if "data" in run.record:
        name = plain_name(Path(run.record["data"]["path"]).name)
        owner, own = hub.id.split("/") if hub else (None, name)
        return {
            "general.dataset.count": 1,
            f"{first}.name": own,
            f"{first}.organization": owner,
            f"{first}.version": hub.commit if hub else None,
            f"{first}.repo_url": f"{HUB}/datasets/{hub.id}" if hub else None,
        }
    found = lineage.repositories
    files = sum(len(repository.files) for repository in found)
    one = found[0] if len(found) == 1 else None
    return {
        "general.dataset.count": 1,
        f"{first}.name": one.name if one else plain_name(Path(run.record["genome"]["path"]).name.split(".")[0]),
        f"{first}.description": f"the text of {files} files from {len(found)} repositories"
        if len(found) > 1
        else f"the text of {files} files",
        f"{first}.version": one.commit if one else None,
        f"{first}.repo_url": one.location if one and one.kind == "remote" else None,
    }


def _tokens(metrics: Path) -> int | None:
    """Tokens that the training learned from, in all its calls; None when its metrics are gone."""
    if not metrics.is_file():
        return None
    events: list[dict[str, Any]] = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return sum(int(event["tokens"]) for event in events if event["kind"] == "train")


def _sums(files: Mapping[str, str]) -> list[str]:
    return [f"{sha256}  {name}" for name, sha256 in files.items()]
