"""The proof of a lineage: every hash that a run recorded, against what lies on the disk now.

A run is a chain: material and model, blueprint -> corpus -> adapter -> fused model and GGUF files. Each link is checked
where it is recorded: files against run.json, what a stage read against what the stage before it wrote, and the keys
inside of every GGUF against the run.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chrysalis_mlx.blueprint.load import load_blueprint, to_dict
from chrysalis_mlx.errors import BlueprintError, ChrysalisError, GenomeError
from chrysalis_mlx.export.lineage.lineage import (
    OF_THE_EXPORT,
    PREFIX,
    TOKENS,
    Lineage,
    Value,
    chrysalis_keys,
    general_keys,
)
from chrysalis_mlx.genome.history import History
from chrysalis_mlx.genome.manifest import read_manifest
from chrysalis_mlx.genome.sources.pins import Lock
from chrysalis_mlx.genome.text.format import genome_identity
from chrysalis_mlx.genome.verify import verify_genome
from chrysalis_mlx.gguf.keys import read_keys
from chrysalis_mlx.progress import Bar, Progress, silent
from chrysalis_mlx.run import Run, sha256_file, sha256_files, sha256_json

State = Literal["ok", "differs", "missing"]
_BLOCK = 1 << 20
_SHOWN = 5


@dataclass(frozen=True)
class Check:
    """One thing that was compared.

    Attributes:
        what: a file, by its path in the run where it lies there; a stage; or a key of a GGUF, as FILE: KEY.
        state: missing: there is nothing here to compare.
        expected, found: mostly a sha256; what was recorded, and what is.
        note: what a hash cannot say.
    """

    what: str
    state: State
    expected: str | None = None
    found: str | None = None
    note: str = ""


def prove_run(run: Run, file: Path | None = None, *, progress: Progress = silent) -> list[Check]:
    """Compare everything that a run recorded with what is there.

    Args:
        file: a GGUF that is said to be of this run, wherever it lies.
    """
    files = dict(_recorded_files(run))
    outside = [file] if file is not None and file.absolute() not in {path.absolute() for path in files.values()} else []
    present = [path for path in [*files.values(), *outside] if path.is_file()]
    with progress("hashing", sum(_blocks(path) for path in present), unit="MiB") as bar:
        found = {path: _sha256(path, bar) for path in present}
    expected = _recorded_hashes(run)
    checks = [_blueprint(run), *_material(run, progress), *_stage_inputs(run)]
    checks += [_file(what, expected[what], found.get(path)) for what, path in files.items()]
    checks += [_foreign(path, found.get(path), run) for path in outside]
    ggufs = {what: path for what, path in files.items() if path.suffix == ".gguf" and what in _outputs(run)}
    ggufs |= {str(path): path for path in outside}
    return [*checks, *_keys(run, {what: path for what, path in ggufs.items() if path in found}, found, expected)]


def run_of(file: Path) -> Run | None:
    """The run in whose export/ a file lies; None for a file elsewhere."""
    folder = file.absolute().parent
    return Run.open(folder.parent) if folder.name == "export" and Run.exists(folder.parent) else None


def _outputs(run: Run) -> dict[str, str]:
    return {
        path: output["sha256"] for stage in run.record["stages"].values() for path, output in stage["outputs"].items()
    }


def _recorded_files(run: Run) -> Iterator[tuple[str, Path]]:
    """The files of the base model and the outputs of all stages, under the names that they are told by."""
    model = run.record["model"]
    for name in model["files"]:
        yield f"model: {name}", Path(model["directory"]) / name
    for path in _outputs(run):
        yield path, run.path(path)


def _recorded_hashes(run: Run) -> dict[str, str]:
    return {f"model: {name}": sha256 for name, sha256 in run.record["model"]["files"].items()} | _outputs(run)


def _compared(what: str, expected: str | None, found: str | None, note: str = "") -> Check:
    return Check(what, "ok" if expected == found else "differs", expected, found, note)


def _file(what: str, expected: str, found: str | None) -> Check:
    return _compared(what, expected, found) if found else Check(what, "missing", expected, note="the file is not there")


def _foreign(file: Path, found: str | None, run: Run) -> Check:
    """A file that lies elsewhere, or that the run does not know."""
    names = [path for path, sha256 in _outputs(run).items() if sha256 == found]
    if names:
        return Check(str(file), "ok", found, found, f"it is {names[0]}")
    return Check(str(file), "differs", None, found, "no file of the run has this sha256")


def _blueprint(run: Run) -> Check:
    """The blueprint's content; comments and layout do not count."""
    recorded = run.record["blueprint"]["sha256"]
    try:
        found = sha256_json(to_dict(load_blueprint(run.path("blueprint.yaml"))), in_order=True)
    except BlueprintError as error:
        state: State = "differs" if run.path("blueprint.yaml").is_file() else "missing"
        return Check("blueprint.yaml", state, recorded, note=" ".join(str(error).split()))
    return _compared("blueprint.yaml", recorded, found)


def _material(run: Run, progress: Progress) -> Iterator[Check]:
    record = run.record
    if "data" in record:
        path = Path(record["data"]["path"])
        yield _hashed(f"data: {path.name}", record["data"]["sha256"], path, sha256_files)
    if "genome" in record:
        genome, recorded = Path(record["genome"]["path"]), record["genome"]
        text = _hashed(f"genome: {genome.name}", recorded["sha256"], genome, lambda path: genome_identity(path).sha256)
        yield text
        yield _manifest(run, genome if text.state == "ok" else None, progress)
        if "history" in recorded:
            yield _history(run)


def _hashed(what: str, recorded: str, path: Path, hashed: Callable[[Path], str]) -> Check:
    if not path.exists():
        return Check(what, "missing", recorded, note=f"it is not at {path}")
    try:
        return _compared(what, recorded, hashed(path))
    except GenomeError as error:  # damaged packing
        return Check(what, "differs", recorded, note=error.what)


def _manifest(run: Run, genome: Path | None, progress: Progress) -> Check:
    """genome.json: against its recorded hash where there is one, and file by file against the genome that it tells of.

    Args:
        genome: the genome's text, when it is there and the recorded one.
    """
    path, recorded = run.path("genome.json"), run.record["genome"].get("manifest")
    if not path.is_file():
        return Check("genome.json", "missing", recorded, note="the file is not there")
    found, problems = sha256_file(path), []
    if genome is not None:
        try:
            problems = verify_genome(genome, path, progress=progress).problems
        except GenomeError as error:
            problems = [error.what]
    note = "; ".join([*problems[:_SHOWN], *([f"and {len(problems) - _SHOWN} more"] if problems[_SHOWN:] else [])])
    if problems or (recorded and recorded != found):
        return Check("genome.json", "differs", recorded, found, note)
    if recorded is None and genome is None:
        return Check("genome.json", "missing", None, found, "its hash was not recorded, and its genome is not here")
    return Check("genome.json", "ok", recorded or found, found)


def _history(run: Run) -> Check:
    recorded, folder = run.record["genome"]["history"], Path(run.record["genome"]["folder"])
    try:
        most = load_blueprint(run.path("blueprint.yaml")).framing.max_commits
        found = History(run.path("genome.json"), folder, max_commits=most).fingerprint()
        absent = _absent_clones(run.path("genome.json"), folder)
    except ChrysalisError as error:
        return Check("history", "missing", recorded, note=error.what)
    if found != recorded and absent:
        return Check("history", "missing", recorded, note=f"these are not cloned here: {', '.join(absent)}")
    return _compared("history", recorded, found)


def _absent_clones(manifest: Path, folder: Path) -> list[str]:
    """Names of repositories that have commits, but not on this machine."""
    having = [record for record in read_manifest(manifest)[1] if record.kind in ("remote", "checkout")]
    lock = Lock().at(folder)
    return [record.name for record in having if not (lock.root(record.pin(), folder / "clones") / ".git").exists()]


def _stage_inputs(run: Run) -> Iterator[Check]:
    """What each finished stage read, against what the run says of it now: other stages' outputs, model, material."""
    record = run.record
    known = _outputs(run) | {"model": sha256_json(record["model"]["files"])}
    known |= {name: record[name]["sha256"] for name in ("genome", "data") if name in record}
    if "history" in record.get("genome", {}):
        known["history"] = record["genome"]["history"]
    for name, stage in record["stages"].items():
        if stage["status"] == "done":
            read = {what: sha256 for what, sha256 in stage["inputs"].items() if what in known or "/" in what}
            others = [what for what in read if read[what] != known.get(what)]
            again = f"make it again: chrysalis-mlx {name} {run.directory}"
            note = f"it was made from another {', '.join(others)}; {again}" if others else ""
            there = {what: known.get(what) for what in read}
            yield _compared(f"stage {name}: inputs", sha256_json(read), sha256_json(there), note)


def _keys(
    run: Run, ggufs: Mapping[str, Path], found: Mapping[Path, str], expected: Mapping[str, str]
) -> Iterator[Check]:
    """The keys of each GGUF against what the run would write into it now.

    Of a file with its recorded hash our own keys are compared; of another one the `general.*` keys too, which follow
    from the base's README.md as well, to name what was changed.
    """
    for what, path in ggufs.items():
        try:
            lineage, keys = Lineage.of_run(run), read_keys(path)
        except ChrysalisError as error:
            yield Check(f"{what}: keys", "missing", note=" ".join(str(error).split()))
            continue
        if keys.get("general.type") != "imatrix":
            wanted = chrysalis_keys(lineage)
            if expected.get(what) != found[path]:
                wanted |= general_keys(lineage)
            yield from _differences(what, wanted, keys)


def _differences(what: str, wanted: Mapping[str, Value], keys: Mapping[str, Any]) -> Iterator[Check]:
    """One line for each key that differs, one for those that are not there, and one for all that agree."""
    ours = [name for name in keys if name.startswith(PREFIX)]
    agree, absent = 0, []
    for name in dict.fromkeys([*wanted, *ours]):
        if name in OF_THE_EXPORT or (name == TOKENS and name not in wanted):  # metrics.jsonl may be gone
            continue
        if name not in keys:
            absent.append(name)
        elif name not in wanted or not _equal(wanted[name], keys[name]):
            yield Check(f"{what}: {name}", "differs", _shown(wanted.get(name)), _shown(keys[name]))
        else:
            agree += 1
    if absent:
        yield Check(f"{what}: keys", "missing", note=f"the file does not have {', '.join(absent)}")
    if agree:
        yield Check(f"{what}: keys", "ok", note=f"{agree} agree with the run")


def _equal(wanted: Value, found: object) -> bool:
    """A GGUF holds a float in 32 bits."""
    if isinstance(wanted, float):
        return isinstance(found, float) and struct.pack("<f", wanted) == struct.pack("<f", found)
    return wanted == found


def _shown(value: object) -> str | None:
    return None if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _blocks(path: Path) -> int:
    return -(-path.stat().st_size // _BLOCK)


def _sha256(path: Path, bar: Bar) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            bar.update()
    return digest.hexdigest()
