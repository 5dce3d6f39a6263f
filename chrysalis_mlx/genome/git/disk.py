"""Files on disk as git would store them: their modes and blob ids, and the tree that they make.

Nothing here asks git or trusts its index: names, modes and contents are read from the disk and hashed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.command import MODE_LINK, TreeEntry, object_id

VERSION_CONTROL = frozenset({b".git", b".hg", b".svn"})
INSTALLED = frozenset({b"node_modules", b"__pycache__", b".venv", b"site-packages"})
PASSED_OVER = ("belongs to version control", "folder of installed packages")
_MODE_TREE = "40000"
_PIECE = 1 << 20


@dataclass(frozen=True)
class Scan:
    """What lies beneath a folder.

    Attributes:
        entries: every file and symbolic link, in the order of the bytes of its path.
        skipped: path and reason of what was passed over or could not be read, in the same order.
    """

    entries: list[TreeEntry] = field(default_factory=list)
    skipped: list[tuple[bytes, str]] = field(default_factory=list)


def scan(root: Path, *, algorithm: str = "sha1", plain: bool = False, without: Collection[bytes] = frozenset()) -> Scan:
    """Hash every file beneath `root`. No symbolic link is followed and no pipe opened; memory does not grow with sizes.

    Args:
        root: a work tree, of which the top .git does not count, or a plain directory.
        algorithm: sha1, or sha256 for a repository of that format.
        plain: it is a plain directory: version control's folders and installed packages are skipped at any depth.
        without: paths of files and folders that do not count either.

    Raises:
        GenomeError: the root cannot be listed.
    """
    found = Scan()
    folders = [b""]
    while folders:
        folder = folders.pop()
        try:
            items = _items(root, folder)
        except OSError as error:
            if not folder:
                raise GenomeError(f"the folder cannot be read: {error.strerror}", where=root) from error
            found.skipped.append((folder.removesuffix(b"/"), f"cannot be read: {error.strerror}"))
            continue
        for item in items:
            path = folder + item.name
            if path in without or (not plain and path == b".git"):
                continue
            if reason := _not_its_own(item) if plain else None:
                found.skipped.append((path, reason))
            elif item.is_dir(follow_symlinks=False):
                folders.append(path + b"/")
            else:
                _add(found, item, path, algorithm)
    found.entries.sort(key=lambda entry: entry.path)
    found.skipped.sort()
    return found


def tree_id(entries: Iterable[TreeEntry], algorithm: str = "sha1") -> str:
    """The id of the tree that git would write for these files, in any order.

    Every folder is a tree object: mode, name and id of each of its entries, a folder sorted as if its name ended in "/"
    (git's base_name_compare).
    """
    folders: dict[bytes, list[tuple[bytes, str, str]]] = {b"": []}
    for entry in entries:
        folder, _, name = entry.path.rpartition(b"/")
        above = folder
        while above not in folders:
            folders[above] = []
            above = above.rpartition(b"/")[0]
        folders[folder].append((name, entry.mode, entry.oid))
    # A folder's path is longer than that of the folder it lies in, so the deepest ones are done first.
    for folder in sorted(folders, key=len, reverse=True):
        oid = _one_tree(folders[folder], algorithm)
        if folder:
            parent, _, name = folder.rpartition(b"/")
            folders[parent].append((name, _MODE_TREE, oid))
    return oid


def quoted(path: bytes) -> str:
    """A path on one line, as git quotes it: as it is, or in quotation marks with octal escapes where that is unsafe."""
    text = path.decode("utf-8", "surrogateescape")
    escaped = "".join(char if char.isprintable() and char not in '"\\' else _octal(char) for char in text)
    return text if escaped == text else f'"{escaped}"'


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))


def _one_tree(items: list[tuple[bytes, str, str]], algorithm: str) -> str:
    items.sort(key=lambda item: item[0] + b"/" if item[1] == _MODE_TREE else item[0])
    content = b"".join(b"%s %s\0%s" % (mode.encode("ascii"), name, bytes.fromhex(oid)) for name, mode, oid in items)
    return object_id("tree", content, algorithm)


def _items(root: Path, folder: bytes) -> list[os.DirEntry[bytes]]:
    with os.scandir(os.path.join(os.fsencode(root), folder)) as listing:
        return list(listing)


def _not_its_own(item: os.DirEntry[bytes]) -> str | None:
    """Why a plain directory passes something over."""
    if item.name in VERSION_CONTROL:
        return PASSED_OVER[0]
    if item.is_dir(follow_symlinks=False) and (
        item.name in INSTALLED or os.path.isfile(os.path.join(item.path, b"pyvenv.cfg"))
    ):
        return PASSED_OVER[1]
    return None


def _add(found: Scan, item: os.DirEntry[bytes], path: bytes, algorithm: str) -> None:
    try:
        if item.is_symlink():
            target = os.readlink(item.path)
            found.entries.append(TreeEntry(path, MODE_LINK, object_id("blob", target, algorithm), len(target)))
        elif item.is_file(follow_symlinks=False):
            found.entries.append(hash_file(item.path, path, algorithm))
        else:
            found.skipped.append((path, "neither a file nor a folder"))
    except OSError as error:
        found.skipped.append((path, f"cannot be read: {error.strerror}"))


def hash_file(place: bytes, path: bytes, algorithm: str) -> TreeEntry:
    """A file as git would store it, read piece by piece.

    Args:
        place: where it lies.
        path: what the entry calls it.
        algorithm: sha1, or sha256 for a repository of that format.

    Raises:
        OSError: it cannot be read, is no regular file, or was written to at the same time.
    """
    # What was a file a moment ago may be a link or a pipe by now; these flags neither follow it nor wait for it.
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb", buffering=0) as stream:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(0, "it became something else at the same time")
        digest = hashlib.new(algorithm, b"blob %d\0" % about.st_size, usedforsecurity=False)
        size = 0
        while piece := stream.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    if size != about.st_size:
        raise OSError(0, "it was written to at the same time")
    mode = "100755" if about.st_mode & stat.S_IXUSR else "100644"
    return TreeEntry(path, mode, digest.hexdigest(), size)
