"""A pinned repository's files and their contents, proved to be those that were pinned."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from pathlib import Path

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.command import MODES_FILE, BlobReader, GitError, TreeEntry, git, list_tree, object_id
from chrysalis_mlx.genome.git.disk import scan, tree_id
from chrysalis_mlx.genome.sources.pins import Pin


class CommitSnapshot:
    """The files of a commit, read from git's store: what lies in the work tree has no say.

    Attributes:
        entries: every file, in the order of the bytes of its path.
        top: the files at the top of the repository, also when a folder of it is taken.
        skipped: nothing; a commit holds what it holds.
    """

    def __init__(self, pin: Pin, root: Path) -> None:
        assert pin.commit is not None
        self._root = root
        try:
            git(root, "cat-file", "-e", f"{pin.commit}^{{commit}}")
        except (GitError, NotADirectoryError) as error:
            fix = "chrysalis-mlx genome clone" if pin.kind == "remote" else "fetch it there, or lock again"
            raise GenomeError(f"the commit {pin.commit} is not here", where=root, fix=fix) from error
        try:
            self.entries = list_tree(root, f"{pin.commit}:{pin.folder}" if pin.folder else pin.commit)
            self.top = _top(list_tree(root, pin.commit) if pin.folder else self.entries)
        except GitError as error:
            raise GenomeError(
                f"the commit's files cannot be listed: {error.words}",
                where=root,
                fix="genome audit says more",
            ) from error
        self.skipped: list[tuple[bytes, str]] = []

    def read(self, entries: Sequence[TreeEntry]) -> Generator[bytes, None, None]:
        """The content of each entry, in order.

        Raises:
            GenomeError: an object is missing or damaged.
        """
        with BlobReader(self._root) as blobs:
            yield from blobs.read([entry.oid for entry in entries])


class DirectorySnapshot:
    """The files of a plain directory, proved to be those of its locked tree.

    Attributes:
        entries: every file, in the order of the bytes of its path.
        top: the files at its top.
        skipped: what is not looked at, each with its reason.
    """

    def __init__(self, pin: Pin, root: Path) -> None:
        self._root = root / pin.folder
        found = scan(self._root, plain=True)
        if tree_id(found.entries) != pin.tree:
            raise self._changed()
        self.entries = found.entries
        self.top = _top(found.entries)
        self.skipped = found.skipped

    def read(self, entries: Sequence[TreeEntry]) -> Generator[bytes, None, None]:
        """The content of each entry, in order.

        Raises:
            GenomeError: a file was changed after it was locked.
        """
        for entry in entries:
            content = (self._root / os.fsdecode(entry.path)).read_bytes()
            if object_id("blob", content) != entry.oid:
                raise self._changed()
            yield content

    def _changed(self) -> GenomeError:
        return GenomeError(
            "the directory was changed after it was locked",
            where=self._root,
            fix="lock it again: chrysalis-mlx genome lock",
        )


def _top(entries: Sequence[TreeEntry]) -> list[TreeEntry]:
    return [entry for entry in entries if b"/" not in entry.path and entry.mode in MODES_FILE]


Snapshot = CommitSnapshot | DirectorySnapshot


def open_snapshot(pin: Pin, root: Path) -> Snapshot:
    """The files of a pinned repository that lies at `root`.

    Raises:
        GenomeError: it is not there, lacks the commit, or is not what was locked.
    """
    if not root.is_dir():
        fix = "chrysalis-mlx genome clone" if pin.kind == "remote" else "bring it back, or lock again"
        raise GenomeError("the repository is not here", where=root, fix=fix)
    if pin.kind != "directory" and not (root / ".git").exists():  # git would look for one in the folders above
        raise GenomeError("this is no git repository", where=root, fix="move it away, then: genome clone")
    return DirectorySnapshot(pin, root) if pin.kind == "directory" else CommitSnapshot(pin, root)
