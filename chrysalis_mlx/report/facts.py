"""Everything that a report tells, read from the run directory. Nothing is computed that no record gives.

A run can be in any state: begun, training, paused, failed, done. What is not there yet is None; what is there and
cannot be read, because another version or a crash left it so, is told in `problems`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from chrysalis_mlx.blueprint.load import load_blueprint, to_dict
from chrysalis_mlx.blueprint.schema import Blueprint
from chrysalis_mlx.corpus.data.report import writable
from chrysalis_mlx.errors import ChrysalisError, RunError
from chrysalis_mlx.evaluation.results import Evaluation, read_evaluation
from chrysalis_mlx.export.lineage.lineage import Lineage
from chrysalis_mlx.export.results import Exports, read_exports
from chrysalis_mlx.genome.manifest import RepositoryRecord, read_manifest
from chrysalis_mlx.report.curves import Training, read_training
from chrysalis_mlx.report.material import Material, read_material
from chrysalis_mlx.report.origin import Origin, origin_of
from chrysalis_mlx.run import STAGES, Run

T = TypeVar("T")

# Sections that say how a model and a blueprint find each other, and where the model lies on this machine.
_NOT_TOLD = ("match", "model")
ODD = (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError)
"""What Python says where a record has another form than this version writes."""
_UNREADABLE = (ChrysalisError, OSError, *ODD)


@dataclass(frozen=True)
class Stage:
    """What is recorded of a stage.

    Attributes:
        status: done, running, paused, interrupted, failed; empty when it never ran.
        seconds: that its last call took.
        reason: why it failed.
        notes: what the user was told.
        outdated: it was made from other files than those that other stages have made since.
    """

    name: str
    status: str = ""
    started: str | None = None
    seconds: float | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()
    outdated: bool = False


@dataclass(frozen=True)
class Facts:
    """A run, as far as it has come.

    Attributes:
        name: of its directory.
        created: when it was begun, an ISO time.
        model: Hub id or name.
        state: begun, running, paused, interrupted, failed or done; `stage` is the one that says so.
        reason: why it failed.
        backend: name and reason; empty before the training.
        settings: the blueprint, flat: dotted path to value, the model's own place left out.
        defaults: the same of a blueprint that says nothing.
        tests: sha256 of the test texts and of the tokenizer; runs in which both agree can be compared.
        problems: what could not be read, a sentence each.
    """

    name: str
    version: str
    created: str
    model: str
    blueprint: str
    description: str
    state: str
    stage: str
    reason: str | None
    stages: tuple[Stage, ...]
    seed: int | None
    backend: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    material: Material | None = None
    training: Training | None = None
    evaluation: Evaluation | None = None
    exports: Exports | None = None
    origin: Origin | None = None
    tests: tuple[str | None, str | None] = (None, None)
    problems: tuple[str, ...] = ()

    def stage_of(self, name: str) -> Stage:
        """The record of a stage."""
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def own_settings(self) -> dict[str, Any]:
        """Those settings that are not the default, but for what only names the blueprint."""
        return {
            name: value
            for name, value in self.settings.items()
            if self.defaults.get(name) != value and name.split(".")[0] not in ("name", "description", "version")
        }

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        plain: dict[str, Any] = _plain(self)
        return plain


def read_facts(directory: Path) -> Facts:
    """Read a run.

    Raises:
        RunError: there is no run here, or its record is damaged.
    """
    run = Run.open(directory)
    try:
        return _facts(run)
    except ODD as error:
        where = f"{run.path('run.json')}: {type(error).__name__}: {error}"
        raise RunError("run.json is damaged", where=where, fix="bring the original back") from error


def _facts(run: Run) -> Facts:
    problems: list[str] = []
    manifest, failed = _told(problems, "genome.json", lambda: _manifest(run)) or ((), ())
    lineage = _told(problems, "the lineage", lambda: Lineage.of_run(run))
    settings = _told(problems, "blueprint.yaml", lambda: _settings(load_blueprint(run.path("blueprint.yaml"))))
    stages = tuple(_stage(run, name) for name in STAGES)
    evaluated = run.status("eval") == "done"
    state, stage, reason = run.state()
    blueprint, record = lineage.blueprint if lineage else None, run.record
    return Facts(
        name=run.directory.absolute().name,
        version=record.get("chrysalis_mlx", ""),
        created=record.get("created", ""),
        model=lineage.source if lineage else Path(record.get("model", {}).get("source", "")).name,
        blueprint=record.get("blueprint", {}).get("name", ""),
        description=blueprint.description if blueprint else "",
        state=state,
        stage=stage,
        reason=reason,
        stages=stages,
        seed=record.get("seed"),
        backend=record.get("backend", {}),
        packages=record.get("packages", {}),
        settings=settings or {},
        defaults=_settings(Blueprint()),
        material=_told(problems, "the corpus", lambda: read_material(run, manifest)),
        training=_told(problems, "the training", lambda: read_training(run)),
        evaluation=_told(problems, "evaluation.json", lambda: read_evaluation(run.path("evaluation.json")))
        if evaluated
        else None,
        exports=_told(problems, "export/verification.json", lambda: read_exports(run)),
        origin=_told(problems, "the lineage", lambda: origin_of(lineage, failed)) if lineage else None,
        tests=_tests(run),
        problems=tuple(problems),
    )


def _told(problems: list[str], what: str, read: Callable[[], T]) -> T | None:
    """What `read` gives; None, and a line in `problems`, where that cannot be read."""
    try:
        return read()
    except _UNREADABLE as error:
        reason = error.what if isinstance(error, ChrysalisError) else f"{type(error).__name__}: {error}"
        problems.append(f"{what} cannot be read ({reason})")
        return None


def _manifest(run: Run) -> tuple[Sequence[RepositoryRecord], Sequence[Mapping[str, Any]]]:
    """Repositories of the genome, and sources that could not be had; none of a run from one's own data."""
    if "genome" not in run.record:
        return (), ()
    head, repositories = read_manifest(run.path("genome.json"))
    return repositories, head["failed"]


def _settings(blueprint: Blueprint) -> dict[str, Any]:
    return {name: value for name, value in _flat(to_dict(blueprint)).items() if name.split(".")[0] not in _NOT_TOLD}


def _flat(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= _flat(item, f"{path}{name}.") if isinstance(item, Mapping) else {f"{path}{name}": item}
    return found


def _stage(run: Run, name: str) -> Stage:
    record = run.stage(name)
    return Stage(
        name=name,
        status=run.status(name),
        started=record.get("started"),
        seconds=record.get("seconds"),
        reason=record.get("reason"),
        notes=tuple(record.get("notes", ())),
        outdated=_is_outdated(run, name),
    )


def _is_outdated(run: Run, name: str) -> bool:
    """Whether another stage has since made other files than those that this one was made from."""
    others = [run.stage(stage) for stage in STAGES if stage != name]
    done = [record for record in others if record.get("status") == "done"]
    now = {path: made["sha256"] for record in done for path, made in record["outputs"].items()}
    return any(now.get(path, sha256) != sha256 for path, sha256 in run.stage(name).get("inputs", {}).items())


def _tests(run: Run) -> tuple[str | None, str | None]:
    texts = run.stage("corpus").get("outputs", {}).get("corpus/test.jsonl", {}).get("sha256")
    files = run.record.get("model", {}).get("files", {})
    return texts, next((files[name] for name in ("tokenizer.json", "tokenizer.model") if name in files), None)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {writable(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, str):
        return writable(value)
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
