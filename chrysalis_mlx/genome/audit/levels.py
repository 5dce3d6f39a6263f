"""The audit: is every repository what the lock says, down to the last bit? Four levels, each with its evidence.

    L1 commit   the checked-out commit and the remote's URL are the locked ones; what the remote has by now is told
    L2 objects  git's store is whole: nothing missing, nothing corrupt
    L3 files    every file on disk has the bytes and the mode that the index says, and there is no other file
    L4 tree     the tree recomputed from the files on disk is the locked commit's

L4 trusts neither git's index nor its store: the commit is hashed, it names the tree, and the tree is made again here.
Nothing is changed and nothing of a repository is run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.audit.fsck import fsck
from chrysalis_mlx.genome.audit.worktree import Entries, WorkTree, convert, read_commit, read_index, read_worktree
from chrysalis_mlx.genome.git.children import worker_pool
from chrysalis_mlx.genome.git.clone import CLONE_SETTINGS
from chrysalis_mlx.genome.git.command import MODE_SUBMODULE, GitError, algorithm_of, git, object_id
from chrysalis_mlx.genome.git.disk import quoted, scan, tree_id
from chrysalis_mlx.genome.git.remote import resolve, shown
from chrysalis_mlx.genome.sources.pins import Lock, Pin
from chrysalis_mlx.progress import Progress, silent

Level = Literal["L1", "L2", "L3", "L4"]
Status = Literal["pass", "fail", "not applicable"]
Word = Literal["current", "behind", "unreachable", "not asked"]

NAMES: dict[Level, str] = {"L1": "commit", "L2": "objects", "L3": "files", "L4": "tree"}
# Anything else than what a clone is made with hides damage from git, and is damage.
_SETTINGS = {**CLONE_SETTINGS, "core.filemode": "true"}
_RETRIES = 1  # a remote that does not answer is no failure, only a word


@dataclass(frozen=True)
class Verdict:
    """What one level found.

    Attributes:
        level: L1 to L4.
        name: what it looked at.
        status: pass, fail or not applicable.
        evidence: short sentences, every one of them.
    """

    level: Level
    name: str
    status: Status
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class RepositoryAudit:
    """The four verdicts on one repository.

    Attributes:
        name: of the repository.
        remote: whether its remote still has the locked commit at the locked ref; none of the words is a failure.
        verdicts: L1 to L4.
    """

    name: str
    remote: Word
    verdicts: tuple[Verdict, ...]

    @property
    def failed(self) -> bool:
        return any(verdict.status == "fail" for verdict in self.verdicts)


@dataclass(frozen=True)
class AuditReport:
    """What the audit found, in the order of the lock.

    Attributes:
        repositories: each with its verdicts.
    """

    repositories: tuple[RepositoryAudit, ...]

    @property
    def failed(self) -> list[str]:
        """The names of the repositories of which a level failed."""
        return [item.name for item in self.repositories if item.failed]

    def as_dict(self) -> dict[str, Any]:
        return {"failed": self.failed, **asdict(self)}


def audit(
    lock: Lock,
    clones: Path,
    *,
    offline: bool = False,
    jobs: int = 4,
    only: Collection[str] | None = None,
    progress: Progress = silent,
) -> AuditReport:
    """Examine every repository of a lock on four levels. Damage is a verdict, never an exception.

    Args:
        clones: the folder that holds the clones.
        offline: ask no remote.
        jobs: how many repositories are examined at once.
        only: names of the repositories that are meant; all of them by default.

    Raises:
        GenomeError: `only` names a repository that is not in the lock, or git is not installed.
    """
    pins = [pin for pin in lock.repositories if only is None or pin.name in only]
    if unknown := sorted({*(only or ())} - {pin.name for pin in pins}):
        raise GenomeError(
            f"the lock has no repository {', '.join(map(repr, unknown))}",
            where=", ".join(pin.name for pin in lock.repositories),
            fix="name one of these",
        )
    git(None, "version")
    with worker_pool(jobs) as pool, progress("auditing", len(pins), unit="repository") as bar:

        def examine(pin: Pin) -> RepositoryAudit:
            item = _examine(pin, lock, clones, offline)
            bar.update(1, last=pin.name)
            return item

        return AuditReport(tuple(pool.map(examine, pins)))


def _examine(pin: Pin, lock: Lock, clones: Path, offline: bool) -> RepositoryAudit:
    root = lock.root(pin, clones)
    if pin.kind == "directory":
        why = "a plain directory has no commit, no objects and no index"
        tree = _verdict("L4", lambda: _directory(pin, root))
        return RepositoryAudit(pin.name, "not asked", (*_not_applicable(("L1", "L2", "L3"), why), tree))
    word, said = _ask_remote(pin, offline)
    if problem := _no_repository(root):
        gone = Verdict("L1", NAMES["L1"], "fail", (problem, *said))
        others = _not_applicable(("L2", "L3", "L4"), "there is no repository to look at")
        return RepositoryAudit(pin.name, word, (gone, *others))
    examination = _Examination(pin, root, lock.fsck_ignore)
    first = _verdict("L1", examination.commit)
    verdicts = (
        dataclasses.replace(first, evidence=(*first.evidence, *said)),
        _verdict("L2", examination.objects),
        _verdict("L3", examination.files),
        _verdict("L4", examination.tree),
    )
    return RepositoryAudit(pin.name, word, verdicts)


def _not_applicable(levels: Sequence[Level], why: str) -> list[Verdict]:
    return [Verdict(level, NAMES[level], "not applicable", (why,)) for level in levels]


def _verdict(level: Level, look: Callable[[], tuple[bool, list[str]]]) -> Verdict:
    try:
        passed, evidence = look()
    except (GenomeError, OSError) as error:
        passed, evidence = False, [_one_line(error)]
    return Verdict(level, NAMES[level], "pass" if passed else "fail", tuple(evidence))


def _directory(pin: Pin, root: Path) -> tuple[bool, list[str]]:
    algorithm = algorithm_of(pin.tree or "")
    found = scan(root / pin.folder, algorithm=algorithm, plain=True)
    tree = tree_id(found.entries, algorithm)
    if tree == pin.tree:
        return True, [f"tree {tree} of {len(found.entries)} file(s)"]
    unread = [f"skipped: {quoted(path)} ({reason})" for path, reason in found.skipped]
    return False, [f"the locked tree is {pin.tree}, that on disk is {tree}", *unread]


def _ask_remote(pin: Pin, offline: bool) -> tuple[Word, list[str]]:
    if offline or pin.kind != "remote":
        return "not asked", []
    try:
        ref, commit = resolve(pin.location, pin.ref, retries=_RETRIES)
    except GitError as error:
        return "unreachable", [f"unreachable: {_one_line(error)}"]
    except GenomeError as error:  # it answers, and has no such ref
        return "behind", [f"behind: {_one_line(error)}"]
    if commit == pin.commit:
        return "current", [f"current: {ref} of the remote is the locked commit"]
    if pin.ref is None:
        return "behind", [f"behind: no ref was pinned, and the remote's own {ref} is at {commit}"]
    return "behind", [f"behind: the ref stands elsewhere: {ref} of the remote is at {commit}"]


def _no_repository(root: Path) -> str | None:
    """Why there is nothing to examine."""
    if not root.is_dir():
        return f"there is no repository at {root}"
    if not (root / ".git").exists():
        return f"there is no .git in {root}"
    try:
        git(root, "rev-parse", "--git-dir")
    except GenomeError as error:
        return _one_line(error)
    return None


def _one_line(error: GenomeError | OSError) -> str:
    words = error.what if isinstance(error, GenomeError) else str(error)
    return "; ".join(line.strip() for line in words.splitlines() if line.strip())


class _Examination:
    """One repository under examination; its disk is read once."""

    def __init__(self, pin: Pin, root: Path, fsck_ignore: Sequence[str]) -> None:
        assert pin.commit is not None
        self._pin, self._root, self._ignore = pin, root, fsck_ignore
        self._commit = pin.commit
        self._own = pin.kind == "checkout"
        self._objects_sound = False

    @cached_property
    def _disk(self) -> WorkTree:
        return read_worktree(self._root, algorithm_of(self._commit), own=self._own)

    def commit(self) -> tuple[bool, list[str]]:
        problems = []
        head = git(self._root, "rev-parse", "--verify", "HEAD").decode("ascii").strip()
        if head != self._commit:
            problems.append(f"HEAD is {head} and should be {self._commit}")
        if not self._own:
            problems += self._settings()
        return not problems, problems or [f"HEAD is {head}"]

    def _settings(self) -> list[str]:
        """Which settings of a clone are not those that it was made with."""
        should = {"remote.origin.url": shown(self._pin.location), **_SETTINGS}
        values: dict[str, list[str]] = {name: [] for name in should}
        for setting in git(self._root, "config", "--local", "--list", "-z").decode("utf-8", "replace").split("\0"):
            name, _, value = setting.partition("\n")
            values.get(name, []).append(shown(value))
        return [
            f"{name} is {', '.join(values[name]) or 'not set'} and should be {value}"
            for name, value in should.items()
            if values[name] != [value]
        ]

    def objects(self) -> tuple[bool, list[str]]:
        report = fsck(self._root, self._ignore)
        self._objects_sound = report.sound
        return report.sound, report.evidence() or ["every object is there and whole"]

    def files(self) -> tuple[bool, list[str]]:
        index = read_index(self._root)
        disk = self._disk_beside(index.entries)
        problems = [f"unmerged: {quoted(path)}" for path in index.unmerged]
        problems += disk.differences(index.entries, extra="untracked")
        if not self._own:
            problems += [f"unreadable: {quoted(path)} ({reason})" for path, reason in disk.unread]
        submodules = [entry for entry in index.entries.values() if entry.mode == MODE_SUBMODULE]
        said = [f"not applicable: {quoted(entry.path)} is a submodule, another repository" for entry in submodules]
        said += [f"not applicable: {quoted(path)} is left out by a sparse checkout" for path in sorted(disk.left_out)]
        return not problems, [*dict.fromkeys(problems), *said] or [f"{len(index.entries)} file(s)"]

    def tree(self) -> tuple[bool, list[str]]:
        algorithm = algorithm_of(self._commit)
        content = git(self._root, "cat-file", "commit", self._commit)
        if object_id("commit", content, algorithm) != self._commit:
            return False, [f"corrupt: what git's store gives out for {self._commit} is not that commit"]
        locked = content.split(b"\n", 1)[0].removeprefix(b"tree ").decode("ascii")
        expected = read_commit(self._root, self._commit)
        disk = self._disk_beside(expected)
        found = tree_id(disk.as_stored(expected), algorithm)
        if found == locked:
            taken = f" and {len(disk.left_out)} that a sparse checkout leaves out" if disk.left_out else ""
            return True, [f"tree {locked} of {len(disk.files)} file(s){taken}"]
        differing = disk.differences(expected, extra="not in the commit")
        # Old tools wrote trees that git would write otherwise (modes such as 0100644), so that their ids differ; with
        # every object proved to be what its name says, git's list of the commit's files is proof enough.
        if not differing and self._objects_sound:
            return True, [f"tree {locked}, which git would write today as {found}, of {len(disk.files)} file(s)"]
        differing = differing or ["no path differs, and an object of the commit is damaged"]
        return False, [f"the commit's tree is {locked}, that of the files is {found}", *differing]

    def _disk_beside(self, expected: Entries) -> WorkTree:
        """The disk, after git's own conversions where they are allowed: in our clones they are switched off."""
        if self._own:
            convert(self._root, self._disk, expected)
        return self._disk
