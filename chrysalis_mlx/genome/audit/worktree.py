"""A repository's work tree, compared file by file with what git's index or a commit says it should be."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chrysalis_mlx.genome.git.command import MODE_LINK, MODE_SUBMODULE, MODES_FILE, TreeEntry, git
from chrysalis_mlx.genome.git.disk import quoted, scan

Entries = dict[bytes, TreeEntry]

# How git says that a path has no filter. A hostile checkout may call a filter so, hence these two are taken from it.
_NO_FILTER = (b"unspecified", b"unset")
_UNARMED = [
    word
    for name in _NO_FILTER
    for setting in ("clean=", "process=", "required=false")
    for word in ("-c", f"filter.{name.decode()}.{setting}")
]


@dataclass(frozen=True)
class Index:
    """What git's index holds. Every flag is looked through: an entry that is assumed unchanged or skipped is an entry.

    Attributes:
        entries: path -> entry.
        unmerged: paths of those that a merge left open.
        skipped: paths of those that a sparse checkout need not have on disk (skip-worktree).
    """

    entries: Entries
    unmerged: list[bytes]
    skipped: frozenset[bytes]


@dataclass
class WorkTree:
    """The files of a work tree as they lie on the disk.

    Attributes:
        files: path -> file.
        unread: path and reason of what is neither file nor link, or cannot be read.
        has_links: whether git made symbolic links here, or small files that hold their target.
        has_modes: whether the executable bit means anything here.
        left_out: paths that a sparse checkout of a person's own does not have on disk.
        converted: path -> blob id after git's own conversions of line ends, idents and encodings.
        filtered: path -> name of the filter that would convert it; none is ever run.
    """

    files: Entries
    unread: list[tuple[bytes, str]]
    has_links: bool
    has_modes: bool
    left_out: frozenset[bytes] = frozenset()
    converted: dict[bytes, str] = field(default_factory=dict)
    filtered: dict[bytes, str] = field(default_factory=dict)

    def stored(self, path: bytes, expected: TreeEntry | None) -> TreeEntry:
        """A file as git would store it where `expected` stands: in a case of doubt git keeps what is there."""
        entry = self.files[path]
        if expected is None or entry.mode not in MODES_FILE:
            return entry
        oid = expected.oid if self.converted.get(path) == expected.oid else entry.oid
        as_link = expected.mode == MODE_LINK and not self.has_links
        as_file = expected.mode in MODES_FILE and not self.has_modes
        return dataclasses.replace(entry, oid=oid, mode=expected.mode if as_link or as_file else entry.mode)

    def as_stored(self, expected: Mapping[bytes, TreeEntry]) -> list[TreeEntry]:
        """Every file as git would store it; what need not be on disk stands as it is expected."""
        absent = [entry for entry in expected.values() if entry.path not in self.files and self._may_be_absent(entry)]
        return [*(self.stored(path, expected.get(path)) for path in self.files), *absent]

    def differences(self, expected: Mapping[bytes, TreeEntry], *, extra: str) -> list[str]:
        """What the disk holds otherwise, one sentence each, in the order of the paths.

        Args:
            expected: path -> what should be there; a submodule and what is left out need not be.
            extra: the word for a file that is not expected.
        """
        sentences = []
        for path in sorted({*expected, *self.files}):
            should = expected.get(path)
            if should is None:
                sentences.append(f"{extra}: {quoted(path)}")
            elif path in self.files:
                sentences += self._changes(path, should)
            elif not self._may_be_absent(should):
                sentences.append(self._absence(path))
        return sentences

    def _may_be_absent(self, entry: TreeEntry) -> bool:
        return entry.mode == MODE_SUBMODULE or entry.path in self.left_out

    def _changes(self, path: bytes, should: TreeEntry) -> Iterable[str]:
        entry = self.stored(path, should)
        if entry.mode != should.mode:
            yield f"mode changed: {quoted(path)} is {entry.mode} and should be {should.mode}"
        if entry.oid != should.oid and should.mode != MODE_SUBMODULE:
            why = f" (its filter {self.filtered[path]!r} is not run)" if path in self.filtered else ""
            yield f"altered: {quoted(path)}{why}"

    def _absence(self, path: bytes) -> str:
        for unread, reason in self.unread:
            if path == unread or path.startswith(unread + b"/"):
                return f"unreadable: {quoted(path)} ({reason})"
        return f"deleted: {quoted(path)}"


def read_worktree(root: Path, algorithm: str, *, own: bool) -> WorkTree:
    """Hash every file of a work tree.

    Args:
        algorithm: of the repository's object names.
        own: it is a person's own checkout and not our clone: its settings hold, and what is ignored, what lies in a
            submodule and what a sparse checkout leaves out is theirs.

    Raises:
        GenomeError: it cannot be read, or git cannot say what is ignored.
    """
    if not own:  # whoever damages a clone can change its settings, too
        found = scan(root, algorithm=algorithm)
        files = {entry.path: entry for entry in found.entries}
        return WorkTree(files, found.skipped, has_links=False, has_modes=True)
    index = read_index(root)
    found = scan(root, algorithm=algorithm, without=_not_counted(root, index))
    files = {entry.path: entry for entry in found.entries}
    return WorkTree(
        files,
        found.skipped,
        has_links=_setting(root, "core.symlinks"),
        has_modes=_setting(root, "core.fileMode"),
        left_out=index.skipped - files.keys(),
    )


def read_index(root: Path) -> Index:
    """Read git's index.

    Raises:
        GitError: the index cannot be read.
    """
    entries: Entries = {}
    unmerged: dict[bytes, None] = {}
    skipped = set()
    for line in git(root, "ls-files", "--stage", "-t", "-z").split(b"\0")[:-1]:
        about, path = line.split(b"\t", 1)
        tag, mode, oid, stage = about.decode("ascii").split()
        entries[path] = TreeEntry(path, mode, oid, 0)
        if stage != "0":
            unmerged[path] = None
        if tag == "S":
            skipped.add(path)
    return Index(entries, list(unmerged), frozenset(skipped))


def read_commit(root: Path, commit: str) -> Entries:
    """The files of a commit; their sizes are 0, because that needs no blob to be there.

    Raises:
        GitError: the commit or one of its trees cannot be read.
    """
    entries: Entries = {}
    for line in git(root, "ls-tree", "-r", "-z", "--full-tree", "--end-of-options", commit).split(b"\0")[:-1]:
        about, path = line.split(b"\t", 1)
        mode, _, oid = about.decode("ascii").split()
        entries[path] = TreeEntry(path, mode, oid, 0)
    return entries


def convert(root: Path, tree: WorkTree, expected: Mapping[bytes, TreeEntry]) -> None:
    """Ask git what it would store for files whose raw bytes are not the expected ones, without running a filter.

    Raises:
        GitError: git cannot say.
    """
    known = {*tree.converted, *tree.filtered}
    doubtful = [
        path
        for path, entry in tree.files.items()
        if entry.mode in MODES_FILE and path not in known and path in expected and expected[path].oid != entry.oid
    ]
    answers = git(root, "check-attr", "-z", "--stdin", "filter", stdin=b"".join(path + b"\0" for path in doubtful))
    words = answers.split(b"\0")
    drivers = dict(zip(words[0:-1:3], words[2:-1:3], strict=True))
    for path in doubtful:
        if drivers[path] not in _NO_FILTER:
            tree.filtered[path] = os.fsdecode(drivers[path])
    asked = [path for path in doubtful if path not in tree.filtered]
    names = "".join(f"{quoted(path)}\n" for path in asked).encode("utf-8")
    oids = git(root, *_UNARMED, "hash-object", "--stdin-paths", stdin=names).decode("ascii").split()
    tree.converted.update(zip(asked, oids, strict=True))


def _not_counted(root: Path, index: Index) -> frozenset[bytes]:
    listed = git(root, "ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z").split(b"\0")
    submodules = [path for path, entry in index.entries.items() if entry.mode == MODE_SUBMODULE]
    return frozenset([path.rstrip(b"/") for path in listed if path] + submodules)


def _setting(root: Path, name: str) -> bool:
    return git(root, "config", "--type=bool", "--default=true", "--get", name).strip() == b"true"
