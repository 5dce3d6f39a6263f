"""Which files of a repository are taken, how they become text, and why the others stay out."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from chrysalis_mlx.genome.files.render import head_rows, notebook_text
from chrysalis_mlx.genome.git.command import MODE_LINK, MODE_SUBMODULE, TreeEntry
from chrysalis_mlx.genome.sources.schema import FileRules

Reason = Literal[
    "type",  # no suffix that is asked for
    "rule",  # left out by a glob, or in a folder of installed packages
    "size",
    "binary",
    "encoding",  # not UTF-8
    "name",  # one that the genome format cannot hold
    "link",
    "submodule",
    "lfs",  # a pointer to a content that is kept elsewhere
    "notebook",  # a suffix of notebooks, and no notebook
    "secret",
    "licence",
    "unreadable",
]

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS_MAX_BYTES = 1024


class Refusal(NamedTuple):
    """Why a file is left out: the kind of reason, and what exactly."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not in the genome, and why; its path is quoted as git does where it is unusual."""

    path: str
    reason: Reason
    detail: str


class Rules:
    """The rules for files of a genome.yaml, ready to be applied."""

    def __init__(self, files: FileRules) -> None:
        # detect-secrets takes a tenth of a second to import, and commands that build nothing import this module.
        from chrysalis_mlx.genome.files.secrets import DEFAULT_DETECTORS, SecretScanner

        self.files = files
        self._scanner = SecretScanner(files.detectors or DEFAULT_DETECTORS) if files.secrets == "leave-out" else None

    def refuse(self, entry: TreeEntry) -> Refusal | None:
        """Why an entry is left out, as far as its name, mode and size tell."""
        path = shown_path(entry.path)
        if entry.mode == MODE_SUBMODULE:
            return Refusal("submodule", "another repository; name it as a source of its own")
        if refusal := self._refuse_path(path):
            return refusal
        if entry.mode == MODE_LINK:
            return Refusal("link", "symbolic link")
        if "\n" in path:
            return Refusal("name", "its name holds a line break")
        if path.encode("utf-8") != entry.path:
            return Refusal("name", "its name is not UTF-8")
        if entry.size > self.files.max_bytes:
            return Refusal("size", f"{entry.size:,} bytes, more than the limit of {self.files.max_bytes:,}")
        return None

    def refuse_licence(self, licence: str | None) -> Refusal | None:
        """Why a repository of this licence (an SPDX id, or None) stays out."""
        allowed = self.files.licences
        if not allowed or any(fnmatchcase(licence or "none", glob) for glob in allowed):
            return None
        return Refusal("licence", f"{licence or 'none'}, and files.licences allows {', '.join(allowed)}")

    def text_of(self, path: str, content: bytes) -> str | Refusal:
        """What stands in the genome for a file's content, or why nothing does."""
        suffix = PurePosixPath(path).suffix.lower()
        if len(content) < _LFS_MAX_BYTES and content.startswith(_LFS_POINTER):
            return Refusal("lfs", "a Git LFS pointer; its content is not in the repository")
        if b"\0" in content:
            return Refusal("binary", "it holds a NUL byte")
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            return Refusal("encoding", f"not UTF-8: byte 0x{content[error.start]:02x} in line {line}")
        if suffix in self.files.notebook:
            try:
                text = notebook_text(content)
            except ValueError as error:
                return Refusal("notebook", str(error))
        elif suffix in self.files.table:
            text = head_rows(text, self.files.table_rows)
        return self._refuse_secret(path, text) or text

    def _refuse_path(self, path: str) -> Refusal | None:
        files = self.files
        for glob in files.exclude:
            if matches(path, glob):
                return Refusal("rule", f"exclude {glob!r}")
        if files.include:
            asked = any(matches(path, glob) for glob in files.include)
            return None if asked else Refusal("rule", "none of the include globs")
        suffix = PurePosixPath(path).suffix.lower()
        if suffix in files.text or suffix in files.notebook or suffix in files.table:
            return None
        return Refusal("type", suffix or "no suffix")

    def _refuse_secret(self, path: str, text: str) -> Refusal | None:
        finding = self._scanner.scan(path, text) if self._scanner else None
        return Refusal("secret", f"{finding.type} in line {finding.line}") if finding else None


def matches(path: str, glob: str) -> bool:
    """Whether a path fits a glob.

    One without a slash is compared with the file's name, one with a slash with its whole path; `*` also stands for
    slashes. `docs/` is everything in that folder.
    """
    if glob.endswith("/"):
        glob += "*"
    return fnmatchcase(path if "/" in glob else PurePosixPath(path).name, glob)


def shown_path(path: bytes) -> str:
    """A path as text; bytes that are not UTF-8 have no other honest spelling than `\\\\xff`."""
    return path.decode("utf-8", "backslashreplace")
