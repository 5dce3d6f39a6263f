"""One run with everything that its stages need opened: record, blueprint, model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chrysalis_mlx.adapters.spec import AdapterSpec
from chrysalis_mlx.blueprint.adapter import adapter_spec
from chrysalis_mlx.blueprint.library import find_blueprint
from chrysalis_mlx.blueprint.load import dump_blueprint, load_blueprint, to_dict
from chrysalis_mlx.blueprint.match import best_blueprint
from chrysalis_mlx.blueprint.schema import Blueprint, ModelSection
from chrysalis_mlx.errors import CorpusError, ModelError, RunError, UsageError
from chrysalis_mlx.genome.history import History
from chrysalis_mlx.genome.manifest import copy_manifest
from chrysalis_mlx.genome.text.format import genome_identity
from chrysalis_mlx.gguf import architectures
from chrysalis_mlx.machine import memory_bytes
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.facts import resolve_facts
from chrysalis_mlx.models.source import resolve_model
from chrysalis_mlx.run import Run, sha256_file, sha256_files, sha256_json, write_text

# What `grow --sources` has put into the directory before the run begins.
GENOME_FILES = ("genome.txt", "genome.json")


@dataclass(frozen=True)
class Origin:
    """What a run is to be made from. What is None was not named.

    Attributes:
        genome: a genome file.
        data: a file or directory of one's own rows, instead of a genome.
        folder: where the genome's lock lies, with clones/ beside it; None: where the genome lies.
        model: a directory, a .gguf file or a Hub id; None: the blueprint's.
        blueprint: a shipped one's name or a YAML file; None: the one that matches the model best.
    """

    genome: Path | None = None
    data: Path | None = None
    folder: Path | None = None
    model: str | None = None
    blueprint: str | None = None


@dataclass(frozen=True)
class Workspace:
    """A run, its resolved blueprint and its base model."""

    run: Run
    blueprint: Blueprint
    model: ModelDirectory

    @classmethod
    def create(cls, directory: Path, origin: Origin, *, again: bool = False) -> Workspace:
        """Begin a run. What cannot work is found here, before any stage has cost time.

        Args:
            again: in place of a run of which no stage has finished.

        Raises:
            UsageError: not exactly one of genome and data, or no model named, neither here nor in the blueprint.
            GenomeError, ModelError, BlueprintError, CorpusError, ExportError: that input cannot be used.
            RunError: the directory holds something else.
        """
        taken = directory.is_dir() and any(
            path.suffix != ".partial" and path.name not in GENOME_FILES for path in directory.iterdir()
        )
        if (taken and not again) or (directory.exists() and not directory.is_dir()):
            raise RunError("the directory is not empty and holds no run", where=directory, fix="name a new directory")
        name, reason = _named_or_matching(origin)
        resolved = _with_model(load_blueprint(find_blueprint(name)), origin.model)
        if resolved.model.source is None:
            raise UsageError("no model is named", where=name, fix="add --model, or model.source to the blueprint")
        opened = resolve_model(resolved.model.source, resolved.model.revision)
        _check_fit(resolved, opened)
        record: dict[str, Any] = {
            **_material(origin, directory, resolved),
            "model": {"source": resolved.model.source, "directory": str(opened.path), "files": opened.hashes()},
            "blueprint": {"name": resolved.name, "reason": reason, "sha256": _identity(to_dict(resolved))},
            "seed": resolved.training.seed,
        }
        if again and "data" in record:
            (directory / "genome.json").unlink(missing_ok=True)
        write_text(directory / "blueprint.yaml", dump_blueprint(resolved, header=_header(name)))
        return cls(Run.create(directory, record), resolved, opened)

    @classmethod
    def open(cls, directory: Path) -> Workspace:
        """Open a run that was begun.

        Raises:
            RunError: no run here, or its blueprint or model is no longer the recorded one.
        """
        run = Run.open(directory)
        blueprint = load_blueprint(run.path("blueprint.yaml"))
        if _identity(to_dict(blueprint)) != run.record["blueprint"]["sha256"]:
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
    def ensure(cls, directory: Path, origin: Origin = Origin()) -> Workspace:
        """Open the run, or begin it when there is none; what is named must agree with what is recorded.

        A run of which no stage has finished is begun again from other material: data that were mended, for instance.

        Raises:
            UsageError: a new run without a genome or data.
            RunError: the run was made from something else.
        """
        if not Run.exists(directory):
            return cls.create(directory, origin)
        opened = cls.open(directory)
        nothing_done = not any(stage.get("status") == "done" for stage in opened.run.record["stages"].values())
        if nothing_done and opened._is_from_other(origin):
            source = origin.model or opened.run.record["model"]["source"]
            return cls.create(directory, dataclasses.replace(origin, model=source), again=True)
        opened._require_same(origin)
        return opened

    @property
    def data(self) -> Path | None:
        """The rows of one's own that the run is made from, when it is."""
        return Path(self.run.record["data"]["path"]) if "data" in self.run.record else None

    @property
    def material(self) -> dict[str, str]:
        """What the run is made from, `genome` or `data`, and its sha256; of `history`, too, where it is wanted."""
        found = {name: self.run.record[name]["sha256"] for name in ("genome", "data") if name in self.run.record}
        history = self.run.record.get("genome", {}).get("history")
        return found | ({"history": history} if history else {})

    @property
    def genome(self) -> Path:
        return Path(self.run.record["genome"]["path"])

    def history(self, takes: Callable[[str, str], bool]) -> History:
        """The commits of the genome's repositories, where the mix wants them.

        Args:
            takes: whether changes of a file are wanted, by repository and path.
        """
        folder, most = Path(self.run.record["genome"]["folder"]), self.blueprint.framing.max_commits
        return History(self.run.path("genome.json"), folder, max_commits=most, takes=takes)

    def require_material(self) -> Path:
        """The genome or data, proved to be what was recorded.

        Raises:
            RunError: it has changed since the run began.
        """
        path, recorded = self.data or self.genome, next(iter(self.material.values()))
        found = sha256_files(path) if self.data else genome_identity(path).sha256
        if found != recorded:
            what = "data were" if self.data else "genome was"
            raise RunError(f"the {what} changed after the run began", where=path, fix="begin a new run")
        return path

    def adapter_spec(self) -> AdapterSpec:
        return _adapter_spec(self.blueprint, self.model)

    def input_hashes(self, *sections: str) -> dict[str, str]:
        """Hashes of the base model and of the named blueprint sections: what a stage depends on beside files."""
        content: dict[str, Any] = to_dict(self.blueprint)
        hashes = {f"blueprint.{section}": _identity(content[section]) for section in sections}
        return {"model": sha256_json(self.run.record["model"]["files"]), **hashes}

    def _is_from_other(self, origin: Origin) -> bool:
        """Whether a genome or data are named that the run was not begun with."""
        if origin.data is not None:
            return self.material.get("data") != sha256_files(origin.data)
        return origin.genome is not None and self.material.get("genome") != genome_identity(origin.genome).sha256

    def _require_same(self, origin: Origin) -> None:
        record, fix = self.run.record, "use a new run directory"
        where = self.run.directory
        if origin.blueprint is not None:
            named = load_blueprint(find_blueprint(origin.blueprint))
            asked = _with_model(named, origin.model or self.blueprint.model.source)
            if _identity(to_dict(asked)) != record["blueprint"]["sha256"]:
                was = record["blueprint"]["name"]
                raise RunError(
                    f"this run was begun with another blueprint ('{was}') than '{origin.blueprint}'",
                    where=where,
                    fix=fix,
                )
        if origin.model is not None and origin.model != record["model"]["source"]:
            raise RunError(
                f"this run was begun with the model {record['model']['source']}, not {origin.model}",
                where=where,
                fix=fix,
            )
        if self._is_from_other(origin):
            what = "other data" if origin.data else "another genome"
            raise RunError(f"this run was begun with {what}", where=where, fix=fix)


def _named_or_matching(origin: Origin) -> tuple[str, str]:
    """The blueprint's name and why it is this one."""
    if origin.blueprint is not None:
        return origin.blueprint, "asked for"
    if origin.model is None:
        raise UsageError(
            "a new run needs a model or a blueprint that names one",
            fix="add --model M, --blueprint B, or both; `chrysalis-mlx blueprint list` shows the shipped ones",
        )
    match = best_blueprint(resolve_facts(origin.model), memory_bytes())
    return match.name, "; ".join(match.reasons)


def _material(origin: Origin, directory: Path, blueprint: Blueprint) -> dict[str, Any]:
    """The record of what the run is made from. A genome is read to its end, so a malformed one leaves no run."""
    if (origin.genome is None) == (origin.data is None):
        raise UsageError(
            "a new run is made from a genome or from data of your own, one of them",
            where=directory,
            fix="add --genome G or --data PATH, and --model M",
        )
    if origin.data is not None:
        return {"data": {"path": str(origin.data.absolute()), "sha256": sha256_files(origin.data)}}
    assert origin.genome is not None
    manifest, folder = directory / "genome.json", (origin.folder or origin.genome.parent).absolute()
    record = {
        "path": str(origin.genome.absolute()),
        "folder": str(folder),
        "sha256": copy_manifest(origin.genome, manifest).sha256,
    }
    record["manifest"] = sha256_file(manifest)
    if blueprint.framing.mix.history:
        history = History(manifest, folder, max_commits=blueprint.framing.max_commits)
        record["history"] = history.fingerprint()
    return {"genome": record}


def _with_model(blueprint: Blueprint, model: str | None) -> Blueprint:
    """The blueprint on this model. A revision belongs to the model that it names; where it names none, to this one."""
    if model is None:
        return blueprint
    own = blueprint.model.source in (None, model)
    section = ModelSection(model, blueprint.model.revision if own else None)
    return dataclasses.replace(blueprint, model=section)


def _adapter_spec(blueprint: Blueprint, model: ModelDirectory) -> AdapterSpec:
    section = blueprint.adapter
    linears = model.layer_linears()
    if not linears:
        raise ModelError("the model has no linear layers under model.layers.N", where=model.path)
    return adapter_spec(section, linears, model.layer_weights() if section.kind == "full" else None)


def _check_fit(blueprint: Blueprint, model: ModelDirectory) -> None:
    """Architecture, row length and adapter, before anything is spent on them."""
    architectures.for_config(model.plain_config)  # what cannot be exported is not worth training
    if blueprint.training.row_length > model.context_length:
        raise CorpusError(
            f"training.row_length is {blueprint.training.row_length}, the model's context has {model.context_length}",
            where=model.path,
            fix=f"set training.row_length to at most {model.context_length}",
        )
    _ = model.tokenizer, _adapter_spec(blueprint, model)


def _identity(content: object) -> str:
    """Hash of a blueprint or of a section of it. Of expression.weights the first match counts, hence their order."""
    return sha256_json(content, in_order=True)


def _header(blueprint: str) -> str:
    return f"The blueprint '{blueprint}' with every default explicit, as this run uses it. Do not edit it."
