"""Bring the pinned commits of remotes: exactly these, byte for byte, and nothing that they hold is run.

A clone is made under clones/.partial/ in a folder that no other attempt will ever have, and takes its place by one
rename when it is whole, its marker inside. An update is a new clone as well, which shares the objects of the old one.
So what has its name is always whole; whatever kills a run, the next one finds nothing to mend, and what a killed run
left behind running writes where nobody looks any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.children import Children
from chrysalis_mlx.genome.git.command import GitError, algorithm_of
from chrysalis_mlx.genome.git.fetch import fetch_commit
from chrysalis_mlx.genome.git.remote import may_pass, shown
from chrysalis_mlx.genome.sources.pins import Lock, Pin
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import write_json

PARTIAL = ".partial"  # no repository can be called so
FAILURES = "failed.json"
MARKER = Path(".git", "chrysalis.json")

# Conversions are off for every path, whatever .gitattributes says: this file outranks it.
_ATTRIBUTES = "* -text -eol -ident -filter !working-tree-encoding\n"
# A link becomes a small file with its target, so that nothing on disk leads out of the clone.
CLONE_SETTINGS = {"core.autocrlf": "false", "core.symlinks": "false"}


@dataclass(frozen=True)
class CloneOutcome:
    """What became of one remote.

    Attributes:
        name: of the repository.
        outcome: cloned; updated (another commit, another remote or damage was replaced); present; failed.
        reason: why it failed, in git's own words where they are git's.
    """

    name: str
    outcome: Literal["cloned", "updated", "present", "failed"]
    reason: str | None = None


def clone(
    lock: Lock,
    clones: Path,
    *,
    offline: bool = False,
    jobs: int = 4,
    retries: int = 3,
    only: Collection[str] | None = None,
    progress: Progress = silent,
) -> list[CloneOutcome]:
    """Bring every pinned remote to clones/NAME, at its commit. A clone is the program's: edits in it may be replaced.

    Args:
        lock: the pins; those of other kinds are passed over.
        clones: the folder of the clones; made when it is not there.
        offline: use what is there; no remote is asked and nothing is written.
        jobs: how many are brought at once.
        retries: how often a remote is asked again after trouble on the way.
        only: names of the repositories that are meant; None for all.

    Returns:
        one outcome for each remote, in the order of the lock; a failure does not keep the others from being brought.

    Raises:
        GenomeError: `only` names what is not a remote of the lock, an fsck id is none, the folder cannot be used, or
            another process is cloning into it.
    """
    pins = _chosen(lock, only)
    if offline:
        with progress("cloning", len(pins), unit="repository") as bar:
            outcomes = []
            for pin in pins:
                outcomes.append(_offline(pin, lock, clones))
                bar.update(1, last=pin.name)
            return outcomes
    if not pins:
        return []
    with _workshop(clones) as workshop, progress("cloning", len(pins), unit="repository") as bar:
        children = Children()
        pool = ThreadPoolExecutor(jobs)
        try:
            work = {pool.submit(_Clone(pin, lock, clones, workshop, children, retries).bring): pin for pin in pins}
            done = {}
            for future in as_completed(work):
                done[work[future].name] = future.result()
                bar.update(1, last=work[future].name)
            outcomes = [done[pin.name] for pin in pins]
            _note_failures(workshop / FAILURES, outcomes)
            return outcomes
        finally:  # after Ctrl-C too; no process and no thread outlives this function
            children.stop()
            pool.shutdown(cancel_futures=True)


def read_failures(clones: Path) -> dict[str, str]:
    """Why the last clone() could not bring a repository, by name; in git's own words."""
    try:
        failures = json.loads((clones / PARTIAL / FAILURES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(reason) for name, reason in failures.items()} if isinstance(failures, dict) else {}


def _note_failures(file: Path, outcomes: Sequence[CloneOutcome]) -> None:
    failures = {item.name: item.reason for item in outcomes if item.outcome == "failed"}
    file.unlink(missing_ok=True)
    if failures:
        write_json(file, failures)


def read_marker(root: Path) -> dict[str, Any] | None:
    """What clone() noted of a clone of its own: url (without secrets), commit, history; None for any other folder."""
    if root.is_symlink() or (root / ".git").is_symlink():
        return None
    try:
        marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError:
        return {}
    return marker if isinstance(marker, dict) else {}


def is_whole(root: Path, pin: Pin, *, history: bool, children: Children) -> bool:
    """Whether the clone at `root` is that of the pin, its HEAD is at the commit, and the commit is there."""
    marker = read_marker(root)
    if marker is None or (marker.get("url"), marker.get("commit")) != (shown(pin.location), pin.commit):
        return False
    if history and not marker.get("history"):
        return False
    try:
        found = children.git(root, "cat-file", "--batch-check", stdin=b"HEAD\nHEAD^{tree}\n").decode().splitlines()
    except GitError:
        return False
    return [line.split()[1] for line in found] == ["commit", "tree"] and found[0].split()[0] == pin.commit


class _Clone:
    """One remote on its way to its folder."""

    def __init__(self, pin: Pin, lock: Lock, clones: Path, workshop: Path, children: Children, retries: int) -> None:
        assert pin.commit is not None
        self._pin, self._commit, self._lock = pin, pin.commit, lock
        self._root = clones / pin.name
        self._workshop, self._children, self._retries = workshop, children, retries

    def bring(self) -> CloneOutcome:
        try:
            return CloneOutcome(self._pin.name, self._bring())
        except GitError as error:
            return CloneOutcome(self._pin.name, "failed", error.words or str(error.what))
        except GenomeError as error:
            fix = f" ({error.fix})" if error.fix else ""
            return CloneOutcome(self._pin.name, "failed", error.what + fix)
        except OSError as error:  # a full disk, a folder that may not be written
            return CloneOutcome(self._pin.name, "failed", shown(str(error)))

    def _bring(self) -> Literal["cloned", "updated", "present"]:
        if self._is_whole(self._root):
            return "present"
        existed = os.path.lexists(self._root)
        if existed and read_marker(self._root) is None:
            raise GenomeError(
                f"{self._root} is there and no clone of ours",
                fix="move it away, or name it as a checkout instead of the URL",
            )
        place = self._left_behind() or self._made()
        if existed:
            os.rename(self._root, place.parent / PARTIAL)
        os.rename(place, self._root)
        shutil.rmtree(place.parent, ignore_errors=True)
        return "updated" if existed else "cloned"

    def _is_whole(self, root: Path) -> bool:
        return is_whole(root, self._pin, history=self._lock.history, children=self._children)

    def _left_behind(self) -> Path | None:
        """A clone that was whole when its run was killed, a rename before the end."""
        places = (folder / self._pin.name for folder in self._workshop.iterdir())
        return next((place for place in places if self._is_whole(place)), None)

    def _made(self) -> Path:
        seed = self._seed()
        if seed is not None:
            try:
                return self._make(seed)
            except GitError as error:
                if may_pass(error.words):
                    raise
        # Also after a seed that turned out to be damaged.
        return self._make(None)

    def _seed(self) -> Path | None:
        """The clone that stands there, when it holds an earlier state of the same remote."""
        marker = read_marker(self._root)
        if not marker or marker.get("url") != shown(self._pin.location):
            return None
        if self._lock.history and not marker.get("history"):
            return None
        try:
            self._children.git(self._root, "cat-file", "-e", "HEAD^{tree}")
        except GitError:
            return None
        return self._root

    def _make(self, seed: Path | None) -> Path:
        place = Path(tempfile.mkdtemp(dir=self._workshop)) / self._pin.name
        place.mkdir()
        self._children.git(place, "init", "--quiet", "--template=", f"--object-format={algorithm_of(self._commit)}")
        for name, value in {**CLONE_SETTINGS, "remote.origin.url": shown(self._pin.location)}.items():
            self._children.git(place, "config", name, value)
        (place / ".git" / "info").mkdir(exist_ok=True)
        (place / ".git" / "info" / "attributes").write_text(_ATTRIBUTES, encoding="ascii")
        if seed is not None:
            _share_objects(seed, place)
            self._children.git(place, "update-ref", "--no-deref", "HEAD", self._head(seed))
        fetch_commit(
            place,
            self._pin,
            history=self._lock.history,
            fsck_ignore=self._lock.fsck_ignore,
            children=self._children,
            retries=self._retries,
        )
        self._children.git(place, "checkout", "--quiet", "--force", "--detach", self._commit)
        for garbage in (place / ".git" / "objects").rglob("tmp_*"):  # of a transfer that was cut
            garbage.unlink()
        history = not (place / ".git" / "shallow").exists()
        url = shown(self._pin.location)
        write_json(place / MARKER, {"url": url, "commit": self._commit, "history": history})
        return place

    def _head(self, root: Path) -> str:
        return self._children.git(root, "rev-parse", "--verify", "HEAD").decode("ascii").strip()


def _share_objects(seed: Path, place: Path) -> None:
    """Give a new clone the objects of an old one. They never change, so a second name for each file is enough."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:  # a file system without hard links
            shutil.copy2(source, target, follow_symlinks=False)

    left_out = shutil.ignore_patterns("info", "tmp_*")
    objects = Path(".git", "objects")
    shutil.copytree(
        seed / objects, place / objects, symlinks=True, ignore=left_out, copy_function=link, dirs_exist_ok=True
    )
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(seed / ".git" / "shallow", place / ".git" / "shallow")


def _chosen(lock: Lock, only: Collection[str] | None) -> list[Pin]:
    for name in lock.fsck_ignore:
        if not re.fullmatch(r"[A-Za-z0-9]+", name):
            raise GenomeError(f"{name!r} is no fsck message id", fix="see `git help fsck`, under FSCK MESSAGES")
    pins = [pin for pin in lock.repositories if pin.kind == "remote"]
    if only is None:
        return pins
    unknown = sorted(set(only) - {pin.name for pin in pins})
    if unknown:
        names = ", ".join(pin.name for pin in pins) or "none"
        raise GenomeError(f"the lock has no remote called {', '.join(unknown)}", fix=f"its remotes are: {names}")
    return [pin for pin in pins if pin.name in only]


def _offline(pin: Pin, lock: Lock, clones: Path) -> CloneOutcome:
    if is_whole(clones / pin.name, pin, history=lock.history, children=Children()):
        return CloneOutcome(pin.name, "present")
    return CloneOutcome(pin.name, "failed", f"the commit {pin.commit} is not here, and --offline")


@contextlib.contextmanager
def _workshop(clones: Path) -> Iterator[Path]:
    """The folder where clones are made, for one process at a time. What nobody needs in it is removed at the end."""
    workshop = clones / PARTIAL
    try:
        workshop.mkdir(parents=True, exist_ok=True)
        lock = (workshop / "lock").open("w")
    except OSError as error:
        raise GenomeError(f"the folder for clones cannot be used: {error.strerror}", where=clones) from error
    with lock:  # closing it lets go; so does the death of this process, and its children do not inherit it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GenomeError(
                "another process is cloning into this folder", where=clones, fix="let it finish, or name another folder"
            ) from None
        try:
            yield workshop
        finally:
            for folder in workshop.iterdir():
                if folder.is_dir():  # the lock's file stays: another process may wait to open it
                    shutil.rmtree(folder, ignore_errors=True)
