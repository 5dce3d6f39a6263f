"""One run with everything that its stages need opened: record, blueprint, model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chrysalis_mlx.adapters.spec import AdapterSpec, resolve_adapter
from chrysalis_mlx.blueprint.library import find_blueprint
from chrysalis_mlx.blueprint.load import dump_blueprint, load_blueprint, to_dict
from chrysalis_mlx.blueprint.schema import Blueprint
from chrysalis_mlx.errors import CorpusError, ModelError, RunError, UsageError
from chrysalis_mlx.genome.manifest import copy_manifest
from chrysalis_mlx.genome.text.format import genome_identity
from chrysalis_mlx.gguf.hyperparameters import Hyperparameters
from chrysalis_mlx.gguf.quantize import file_type
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.source import resolve_model
from chrysalis_mlx.run import Run, sha256_json, write_text

# What `grow --sources` has put into the directory before the run begins.
GENOME_FILES = ("genome.txt", "genome.json")


@dataclass(frozen=True)
class Workspace:
    """A run, its resolved blueprint and its base model."""

    run: Run
    blueprint: Blueprint
    model: ModelDirectory

    @classmethod
    def create(cls, directory: Path, genome: Path, model: str | None, blueprint: str) -> Workspace:
        """Begin a run. What cannot work is found here, before any stage has cost time.

        Raises:
            UsageError: no model named, neither here nor in the blueprint.
            GenomeError, ModelError, BlueprintError, CorpusError, ExportError: that input cannot be used.
            RunError: the directory holds something else.
        """
        taken = directory.is_dir() and any(
            path.suffix != ".partial" and path.name not in GENOME_FILES for path in directory.iterdir()
        )
        if taken or (directory.exists() and not directory.is_dir()):
            raise RunError("the directory is not empty and holds no run", where=directory, fix="name a new directory")
        resolved = _with_model(load_blueprint(find_blueprint(blueprint)), model)
        if resolved.model.source is None:
            raise UsageError("no model is named", where=blueprint, fix="add --model, or model.source to the blueprint")
        opened = resolve_model(resolved.model.source, resolved.model.revision)
        _check_fit(resolved, opened)
        # Read to its end before anything else is written: a malformed genome leaves no run.
        genome_hash = copy_manifest(genome, directory / "genome.json").sha256
        origin: dict[str, Any] = {
            "genome": {"path": str(genome.absolute()), "sha256": genome_hash},
            "model": {"source": resolved.model.source, "directory": str(opened.path), "files": opened.hashes()},
            "blueprint": {"name": resolved.name, "sha256": sha256_json(to_dict(resolved))},
            "seed": resolved.training.seed,
        }
        write_text(directory / "blueprint.yaml", dump_blueprint(resolved, header=_header(blueprint)))
        return cls(Run.create(directory, origin), resolved, opened)

    @classmethod
    def open(cls, directory: Path) -> Workspace:
        """Open a run that was begun.

        Raises:
            RunError: no run here, or its blueprint or model is no longer the recorded one.
        """
        run = Run.open(directory)
        blueprint = load_blueprint(run.path("blueprint.yaml"))
        if sha256_json(to_dict(blueprint)) != run.record["blueprint"]["sha256"]:
            raise RunError(
                "blueprint.yaml was changed after the run began",
                where=run.path("blueprint.yaml"),
                fix="begin a new run with the changed blueprint",
            )
        recorded = run.record["model"]
        model = ModelDirectory.open(Path(recorded["directory"]))
        if model.hashes() != recorded["files"]:
            raise RunError(
                "the base model is not the one that the run began with",
                where=model.path,
                fix="bring the original files back, or begin a new run",
            )
        return cls(run, blueprint, model)

    @classmethod
    def ensure(
        cls, directory: Path, genome: Path | None = None, model: str | None = None, blueprint: str | None = None
    ) -> Workspace:
        """Open the run, or begin it when there is none; what is named must agree with what is recorded.

        Raises:
            UsageError: a new run without genome or blueprint.
            RunError: the run was made from another genome, model or blueprint.
        """
        if not Run.exists(directory):
            if genome is None or blueprint is None:
                raise UsageError(
                    "a new run needs a genome and a blueprint",
                    where=directory,
                    fix="add --genome G --model M --blueprint B",
                )
            return cls.create(directory, genome, model, blueprint)
        opened = cls.open(directory)
        opened._require_same(genome, model, blueprint)
        return opened

    @property
    def genome(self) -> Path:
        return Path(self.run.record["genome"]["path"])

    def require_genome(self) -> Path:
        """The genome file, proved to be the recorded one.

        Raises:
            RunError: it has changed since the run began.
        """
        if genome_identity(self.genome).sha256 != self.run.record["genome"]["sha256"]:
            raise RunError("the genome was changed after the run began", where=self.genome, fix="begin a new run")
        return self.genome

    def adapter_spec(self) -> AdapterSpec:
        return _adapter_spec(self.blueprint, self.model)

    def input_hashes(self, *sections: str) -> dict[str, str]:
        """Hashes of the base model and of the named blueprint sections: what a stage depends on beside files."""
        content: dict[str, Any] = to_dict(self.blueprint)
        hashes = {f"blueprint.{section}": sha256_json(content[section]) for section in sections}
        return {"model": sha256_json(self.run.record["model"]["files"]), **hashes}

    def _require_same(self, genome: Path | None, model: str | None, blueprint: str | None) -> None:
        record, fix = self.run.record, "use a new run directory"
        if blueprint is not None:
            asked = _with_model(load_blueprint(find_blueprint(blueprint)), model or self.blueprint.model.source)
            if to_dict(asked) != to_dict(self.blueprint):
                raise RunError(
                    f"this run was begun with another blueprint ('{record['blueprint']['name']}') than '{blueprint}'",
                    where=self.run.directory,
                    fix=fix,
                )
        if model is not None and model != record["model"]["source"]:
            raise RunError(
                f"this run was begun with the model {record['model']['source']}, not {model}",
                where=self.run.directory,
                fix=fix,
            )
        if genome is not None and genome_identity(genome).sha256 != record["genome"]["sha256"]:
            raise RunError("this run was begun with another genome", where=self.run.directory, fix=fix)


def _with_model(blueprint: Blueprint, model: str | None) -> Blueprint:
    if model is None:
        return blueprint
    return dataclasses.replace(blueprint, model=dataclasses.replace(blueprint.model, source=model))


def _adapter_spec(blueprint: Blueprint, model: ModelDirectory) -> AdapterSpec:
    section = blueprint.adapter
    linears = model.layer_linears()
    if not linears:
        raise ModelError("the model has no linear layers under model.layers.N", where=model.path)
    return resolve_adapter(section.kind, section.rank, section.alpha, section.layers, section.modules, linears)


def _check_fit(blueprint: Blueprint, model: ModelDirectory) -> None:
    """Architecture, row length, adapter and export types, before anything is spent on them."""
    Hyperparameters.from_config(model.config)  # what cannot be exported is not worth training
    for name in blueprint.export.quantize:
        file_type(name)
    if blueprint.training.row_length > model.context_length:
        raise CorpusError(
            f"training.row_length is {blueprint.training.row_length}, the model's context has {model.context_length}",
            where=model.path,
            fix=f"set training.row_length to at most {model.context_length}",
        )
    _ = model.tokenizer, _adapter_spec(blueprint, model)


def _header(blueprint: str) -> str:
    return f"The blueprint '{blueprint}' with every default explicit, as this run uses it. Do not edit it."
