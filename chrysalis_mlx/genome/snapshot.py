"""A pinned repository's files and their contents, proved to be those that were pinned."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.command import (
    MODES_FILE,
    BlobReader,
    GitError,
    TreeEntry,
    algorithm_of,
    git,
    list_tree,
    object_id,
)
from chrysalis_mlx.genome.git.disk import scan, tree_id
from chrysalis_mlx.genome.sources.pins import Pin


class CommitSnapshot:
    """The files of a commit, read from git's store: what lies in the work tree has no say.

    The commit's and its trees' ids are computed again here, and every blob's as it is read, so that nothing but the
    commit that was pinned passes for it, whatever the store holds.

    Attributes:
        entries: every file, in the order of the bytes of its path.
        top: the files at the top of the repository, also when a folder of it is taken.
        skipped: nothing; a commit holds what it holds.
    """

    def __init__(self, pin: Pin, root: Path) -> None:
        assert pin.commit is not None
        self._root, self._commit = root, pin.commit
        self.skipped: list[tuple[bytes, str]] = []
        content = self._commit_object(
            "chrysalis-mlx genome clone" if pin.kind == "remote" else "fetch it, or lock again"
        )
        tree = content.split(b"\n", 1)[0].removeprefix(b"tree ").decode("ascii")
        try:
            whole = list_tree(root, pin.commit)
            proved = tree_id(whole, algorithm_of(tree)) == tree or self._trees_are_sound(tree)
        except GitError as error:
            raise self._damaged(f"cannot be listed: {error.words}") from error
        if object_id("commit", content, algorithm_of(pin.commit)) != pin.commit or not proved:
            raise self._damaged("are not those of the commit: git's store is damaged or forged")
        folder = f"{pin.folder}/".encode() if pin.folder else b""
        inside = [entry for entry in whole if entry.path.startswith(folder)]
        if folder and not inside:
            raise GenomeError(
                f"the commit {pin.commit} has no folder {pin.folder!r}", where=root, fix="name another one"
            )
        self.entries = [replace(entry, path=entry.path.removeprefix(folder)) for entry in inside]
        self.top = _top(whole)

    def _commit_object(self, fix: str) -> bytes:
        try:
            return git(self._root, "cat-file", "commit", self._commit)
        except (GitError, NotADirectoryError) as error:
            raise GenomeError(f"the commit {self._commit} is not here", where=self._root, fix=fix) from error

    def _trees_are_sound(self, tree: str) -> bool:
        """Whether every tree object has the id it is called by: old tools wrote trees as git no longer does."""
        listed = git(self._root, "ls-tree", "-r", "-d", "-z", "--full-tree", "--end-of-options", self._commit)
        found = [line.split(b"\t", 1)[0].decode("ascii").split() for line in listed.split(b"\0")[:-1]]
        oids = {tree, *(oid for _, kind, oid in found if kind == "tree")}
        return all(
            object_id("tree", git(self._root, "cat-file", "tree", oid), algorithm_of(oid)) == oid for oid in oids
        )

    def _damaged(self, how: str) -> GenomeError:
        return GenomeError(
            f"the files of the commit {self._commit} {how}",
            where=self._root,
            fix="`chrysalis-mlx genome audit` says more; remove the clone and bring it again",
        )

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
