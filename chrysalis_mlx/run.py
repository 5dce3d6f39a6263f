"""The run directory: the program's memory.

`run.json` holds what the run was made from (genome, model, blueprint, seed, package versions) and one record per stage:
status, input and output hashes, seconds, and the reason when it failed. A stage reads only recorded inputs and is
skipped only while they still match. No file carries its final name before it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from chrysalis_mlx import __version__
from chrysalis_mlx.errors import RunError

SCHEMA = 1
STAGES = ("corpus", "train", "eval", "fuse")
PACKAGES = ("mlx", "mlx-lm", "torch", "transformers", "peft", "numpy", "tokenizers", "gguf", "xllamacpp")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield `NAME.partial` beside `path`; sync it and give it its final name when the block ends without an error.

    Works for a file or a directory. After an error the partial is removed and whatever stood at `path` still stands.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    _remove(partial)
    try:
        yield partial
        _sync(partial)
        if path.is_dir():  # os.replace cannot put a directory over one that has content
            replaced = path.with_name(path.name + ".replaced")
            _remove(replaced)
            os.replace(path, replaced)
            os.replace(partial, path)
            _remove(replaced)
        else:
            os.replace(partial, path)
        _sync_entry(path.parent)
    finally:
        _remove(partial)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or nothing."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: object) -> None:
    """Write a whole, indented JSON file or nothing; bytes in a path that are not UTF-8 come back when it is read."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # What Python makes of such bytes is escaped, which is JSON as well as Python.
    write_text(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_files(path: Path) -> str:
    """sha256 of a file's bytes, or of the names and bytes of the files in a directory.

    Directories inside, where a run may lie, and hidden files, which a file manager leaves behind, play no part.
    """
    if path.is_dir():
        files = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
        return sha256_json({file.name: sha256_file(file) for file in files})
    return sha256_file(path)


def sha256_json(value: object, *, in_order: bool = False) -> str:
    """sha256 of a value's canonical JSON; `in_order`: the order of keys counts."""
    return hashlib.sha256(json.dumps(value, sort_keys=not in_order, separators=(",", ":")).encode()).hexdigest()


class Run:
    """One run directory and its record.

    Attributes:
        directory: where everything of this run lies.
        record: the content of run.json.
        read_only: of several processes that work on one run, all but the first write nothing.
    """

    def __init__(self, directory: Path, record: dict[str, Any], *, read_only: bool = False) -> None:
        self.directory = directory
        self.record = record
        self.read_only = read_only

    @classmethod
    def create(cls, directory: Path, origin: Mapping[str, Any]) -> Run:
        """Start a run: `origin` names the genome, model and blueprint it is made from, each with its hash."""
        record = {
            "schema": SCHEMA,
            "chrysalis_mlx": __version__,
            "created": _now(),
            "packages": _package_versions(),
            **origin,
            "stages": {},
        }
        run = cls(directory, record)
        run.save()
        return run

    @classmethod
    def open(cls, directory: Path) -> Run:
        """Read an existing run.

        Raises:
            RunError: no run here, a damaged record, or one written by a newer version.
        """
        path = directory / "run.json"
        if not path.is_file():
            raise RunError(
                "this is not a run directory",
                where=directory,
                fix="start one with: chrysalis-mlx grow RUN --genome G --model M --blueprint B",
            )
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            schema = record["schema"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(
                "run.json is damaged", where=f"{path}: {error}", fix="remove the run directory and grow it again"
            ) from error
        if schema != SCHEMA:
            raise RunError(
                f"run.json has schema {schema}, this version reads {SCHEMA}", where=path, fix="use a new run directory"
            )
        return cls(directory, record)

    @staticmethod
    def exists(directory: Path) -> bool:
        return (directory / "run.json").is_file()

    def save(self) -> None:
        if not self.read_only:
            write_json(self.directory / "run.json", self.record)

    def path(self, *parts: str) -> Path:
        return self.directory.joinpath(*parts)

    def stage(self, name: str) -> dict[str, Any]:
        """The record of a stage; empty when it never ran."""
        record: dict[str, Any] = self.record["stages"].get(name, {})
        return record

    def is_done(self, name: str, inputs: Mapping[str, str]) -> bool:
        """Whether the stage finished with exactly these inputs and its outputs are still there, size for size."""
        record = self.stage(name)
        return (
            record.get("status") == "done"
            and record["inputs"] == dict(inputs)
            and all(self._is_whole(path, output) for path, output in record["outputs"].items())
        )

    def require(self, name: str) -> dict[str, Any]:
        """The record of a finished stage.

        Raises:
            RunError: the stage has not finished.
        """
        record = self.stage(name)
        if record.get("status") != "done":
            raise RunError(
                f"the stage '{name}' has not finished (status: {record.get('status', 'never ran')})",
                where=self.directory,
                fix=f"run: chrysalis-mlx {name} {self.directory}",
            )
        return record

    def status(self, name: str) -> str:
        """A stage's status: done, running, paused, interrupted, failed; empty when it never ran.

        What is recorded as running, by a process of this machine that is gone, was interrupted.
        """
        record = self.stage(name)
        status: str = record.get("status", "")
        return "interrupted" if status == "running" and _is_gone(record.get("process", {})) else status

    def state(self) -> tuple[str, str, str | None]:
        """What the whole run is (`status`, or begun), which stage says so, and why it failed."""
        statuses = {name: self.status(name) for name in STAGES}
        for name, status in statuses.items():
            if status not in ("done", ""):
                gone = "its process is gone" if status == "interrupted" else None
                return status, name, self.stage(name).get("reason", gone)
        if statuses[STAGES[-1]] == "done":
            return "done", STAGES[-1], None
        return "begun", next(name for name, status in statuses.items() if not status), None

    @contextlib.contextmanager
    def recording(self, name: str, inputs: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Record a stage while it runs.

        The block puts its results into the yielded dictionary: `outputs`, a list of paths inside the run, is replaced
        by their sizes and hashes; everything else is kept as it is. A failure is recorded with its reason and raised.
        A block that stops before its end, to go on another time, sets `status` to paused.
        A record of the same inputs keeps what it knew (a training's checkpoints), so that the stage can go on.
        """
        previous = self.stage(name)
        record: dict[str, Any] = {**previous} if previous.get("inputs") == dict(inputs) else {}
        record.pop("reason", None)
        record |= {"status": "running", "inputs": dict(inputs), "outputs": {}, "started": _now(), "process": _process()}
        self.record["stages"][name] = record
        self.save()
        start = time.perf_counter()
        try:
            yield record
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            record |= {"status": status, "reason": str(error) or type(error).__name__, "outputs": {}}
            record.pop("process")
            with contextlib.suppress(OSError):  # on a full disk; the error itself says more
                self.save()
            raise
        if record["status"] == "running":
            record["status"] = "done"
            record["outputs"] = {} if self.read_only else self._described(record["outputs"])
        record["seconds"] = round(time.perf_counter() - start, 3)
        record.pop("process")
        self.save()

    def _described(self, paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
        return {
            path.relative_to(self.directory).as_posix(): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
            for path in paths
        }

    def _is_whole(self, path: str, output: Mapping[str, Any]) -> bool:
        """Whether a recorded output is still there, of its recorded size."""
        file = self.path(path)
        return file.is_file() and bool(file.stat().st_size == output["bytes"])

    def output_hashes(self, name: str) -> dict[str, str]:
        """Path and sha256 of everything a finished stage wrote: the inputs of the stages after it.

        Raises:
            RunError: the stage has not finished, or what it wrote is gone or has another size.
        """
        record = self.require(name)
        changed = [path for path, output in record["outputs"].items() if not self._is_whole(path, output)]
        if changed:
            raise RunError(
                f"what the stage '{name}' made is missing or was changed: {', '.join(changed)}",
                where=self.directory,
                fix=f"make it again: chrysalis-mlx {name} {self.directory}",
            )
        return {path: output["sha256"] for path, output in record["outputs"].items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _process() -> dict[str, Any]:
    return {"host": platform.node(), "pid": os.getpid()}


def _is_gone(process: Mapping[str, Any]) -> bool:
    """Whether a recorded process ran on this machine and has ended."""
    if process.get("host") != platform.node():
        return False
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's, hence there
        return False
    return False


def _package_versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    if path.is_dir():
        for entry in path.rglob("*"):
            _sync_entry(entry)
    _sync_entry(path)


def _sync_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
