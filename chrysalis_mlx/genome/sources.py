"""Where a genome comes from: local directories and git checkouts, and which of their files count.

A git checkout gives the files that git tracks, as they lie in the work tree: what is ignored or untracked stays out.
Another directory gives everything beneath it, except version control's own folders and installed packages. No symbolic
link is followed; submodules are left out. What is left out is listed with its reason.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from chrysalis_mlx.errors import GenomeError

# The types that the asi-ecosystem's own pipeline reads, then more of the same three kinds.
_ASI_ECOSYSTEM = ".md .txt .rst .json .yaml .yml .toml .xml .ini .py .rs .js .ts .java .c .h .cpp .go .sh"
_MORE = ".tex .csv .cfg .html .css .swift"
TEXT_TYPES = frozenset(f"{_ASI_ECOSYSTEM} {_MORE}".split())
MAX_BYTES = 2 * 1024 * 1024
VERSION_CONTROL = frozenset({".git", ".hg", ".svn"})
INSTALLED = frozenset({"node_modules", "__pycache__", ".venv", "site-packages"})

# Set inside a git hook; they would point every git command at the repository of the hook.
_GIT_LOCAL = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not in the genome, and why."""

    repository: str
    path: str
    reason: str


@dataclass(frozen=True)
class Selection:
    """Which files of a source count.

    A glob without a slash is compared with the file's name, one with a slash with its whole path; `*` also stands for
    slashes. `docs/` is everything in that folder.

    Attributes:
        include: globs; when there are any, they take the place of `TEXT_TYPES`.
        exclude: globs of files that stay out in any case.
        max_bytes: larger files are left out.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_bytes: int = MAX_BYTES

    def wants(self, path: str) -> bool:
        """Whether a file with this path, relative to its source, is asked for."""
        if any(_matches(path, glob) for glob in self.exclude):
            return False
        if self.include:
            return any(_matches(path, glob) for glob in self.include)
        return PurePosixPath(path).suffix.lower() in TEXT_TYPES


@dataclass(frozen=True)
class Source:
    """A directory that becomes one repository of the genome.

    Attributes:
        name: the repository's name in the genome.
        root: the directory, resolved.
    """

    name: str
    root: Path


@dataclass
class Listing:
    """What a source holds.

    Attributes:
        source: the source.
        tracked: whether git says what belongs to it.
        commit: the checkout's commit, 40 hexadecimal digits; None without one.
        dirty: whether tracked files differ from that commit; None without one.
        paths: relative POSIX paths of the files that are asked for, sorted by their bytes.
        left_out: what is not taken though it might be expected.
        not_selected: how many files are of other types or excluded.
    """

    source: Source
    tracked: bool = False
    commit: str | None = None
    dirty: bool | None = None
    paths: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    not_selected: int = 0

    def leave_out(self, path: str, reason: str) -> None:
        # A name that is not UTF-8 has no other honest spelling.
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        self.left_out.append(LeftOut(self.source.name, shown, reason))


def parse_sources(texts: Sequence[str]) -> list[Source]:
    """Read `PATH` or `NAME=PATH`, as a command takes them; without a name the directory's own name is used.

    Raises:
        GenomeError: not a directory, no usable name, or two sources of the same name.
    """
    sources: dict[str, Source] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or "/" in name:  # ./a=b is a directory with an odd name
            name, path = "", text
        root = _directory(path, text)
        name = name or root.name
        if not name or "\n" in name:
            raise GenomeError("the source has no usable name", where=text, fix="name it: NAME=PATH")
        if name in sources:
            raise GenomeError(
                f"two sources are called {name!r}",
                where=f"{sources[name].root} and {root}",
                fix=f"name one of them: OTHER={path}",
            )
        sources[name] = Source(name, root)
    return list(sources.values())


def list_source(source: Source, selection: Selection) -> Listing:
    """List the files of a source; reads names and sizes only.

    Raises:
        GenomeError: git refuses, or a bare repository.
    """
    listing = Listing(source)
    listing.tracked = _is_checkout(source.root)
    candidates = _tracked_files(listing) if listing.tracked else _walk(listing)
    if listing.tracked:
        listing.commit = (
            _git(source.root, "rev-parse", "--verify", "--quiet", "HEAD", allow_failure=True).strip() or None
        )
        status = _git(source.root, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules", "--", ".")
        listing.dirty = bool(status) if listing.commit else None
    for path in sorted(set(candidates), key=os.fsencode):
        if not selection.wants(path):
            listing.not_selected += 1
        elif reason := _unfit(source.root, path, selection.max_bytes):
            listing.leave_out(path, reason)
        else:
            listing.paths.append(path)
    return listing


def read_text(listing: Listing, path: str) -> str | None:
    """Read one listed file; None, with the reason noted, when it is binary, not UTF-8 or cannot be read."""
    try:
        content = (listing.source.root / path).read_bytes()
    except OSError as error:
        listing.leave_out(path, f"cannot be read: {error.strerror}")
        return None
    if b"\0" in content:
        listing.leave_out(path, "binary: it holds a NUL byte")
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        listing.leave_out(path, f"not UTF-8: byte 0x{content[error.start]:02x} in line {line}")
        return None


def _directory(path: str, text: str) -> Path:
    root = Path(path).expanduser()
    if root.is_dir():
        return root.resolve()
    if "://" in path or path.startswith("git@"):
        what, fix = "a source is a local directory, not an address", f"clone it first: git clone {path}"
    elif root.exists():
        what, fix = "a source is a directory, and this is a file", "name the directory that holds it"
    else:
        what, fix = "there is no such directory", "name a directory or a git checkout: PATH or NAME=PATH"
    raise GenomeError(what, where=text, fix=fix)


def _matches(path: str, glob: str) -> bool:
    if glob.endswith("/"):
        glob += "*"
    return fnmatchcase(path if "/" in glob else PurePosixPath(path).name, glob)


def _unfit(root: Path, path: str, max_bytes: int) -> str | None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if "\n" in path:
        return "its name holds a line break"
    try:
        status = (root / path).lstat()
    except OSError as error:
        return "tracked, but not in the work tree" if isinstance(error, FileNotFoundError) else str(error.strerror)
    # Also when a folder above it is a link: what lies behind a link belongs to somebody else.
    if stat.S_ISLNK(status.st_mode) or (root / path).resolve() != root / path:
        return "symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_size > max_bytes:
        return f"{status.st_size:,} bytes, more than the limit of {max_bytes:,}"
    return None


def _walk(listing: Listing) -> list[str]:
    root, found = listing.source.root, []

    def unreadable(error: OSError) -> None:
        listing.leave_out(os.path.relpath(error.filename, root), f"cannot be read: {error.strerror}")

    for folder, folders, files in os.walk(root, onerror=unreadable):
        here = Path(folder).relative_to(root)
        kept = []
        for name in sorted(folders, key=os.fsencode):
            if (Path(folder) / name).is_symlink():
                listing.leave_out((here / name).as_posix(), "symbolic link")
            elif name in INSTALLED or (Path(folder) / name / "pyvenv.cfg").is_file():
                listing.leave_out((here / name).as_posix(), "folder of installed packages")
            elif name not in VERSION_CONTROL:
                kept.append(name)
        folders[:] = kept
        found += [(here / name).as_posix() for name in files]
    return found


def _is_checkout(root: Path) -> bool:
    try:
        inside = _git(root, "rev-parse", "--is-inside-work-tree").strip()
    except _NotARepositoryError:
        return False
    if inside != "true":
        raise GenomeError(
            "this is a repository without a work tree", where=root, fix="clone it and name the clone: git clone PATH"
        )
    # A folder inside somebody's checkout that tracks nothing of it, such as an ignored one, is a plain directory.
    at_top = not _git(root, "rev-parse", "--show-prefix").strip("\n")
    return at_top or bool(_git(root, "ls-files", "-z", "--", "."))


def _tracked_files(listing: Listing) -> list[str]:
    found = []
    for entry in _git(listing.source.root, "ls-files", "-z", "--stage", "--", ".").split("\0")[:-1]:
        about, path = entry.split("\t", 1)
        if about.startswith("160000"):
            listing.leave_out(path, "submodule")
        else:
            found.append(path)
    return found


class _NotARepositoryError(Exception):
    pass


def _git(root: Path, *arguments: str, allow_failure: bool = False) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_LOCAL}
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", os.fspath(root), *arguments],
            capture_output=True,
            check=False,
            env={**environment, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        if any((folder / ".git").exists() for folder in (root, *root.parents)):
            raise GenomeError("git is needed to read a checkout", where=root, fix="install git") from None
        raise _NotARepositoryError from None
    message = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode and "not a git repository" in message:
        raise _NotARepositoryError
    if done.returncode and not allow_failure:
        raise GenomeError(
            f"git {arguments[0]} failed: {message}", where=root, fix="make git work there, then try again"
        )
    return os.fsdecode(done.stdout)
