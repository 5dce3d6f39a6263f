"""What a Hub holds: accounts, repositories with their commits and branches, and the large files of its storage."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ATTRIBUTES = b"*.gguf filter=lfs\n*.safetensors filter=lfs\n*.bin filter=lfs\n"
_LARGE = 10 << 20


def git_oid(content: bytes) -> str:
    """The name that git gives to a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Account:
    """Who a token belongs to, and the owners it may write to."""

    name: str
    writes: frozenset[str]


@dataclass
class Repository:
    """Its whole content at every commit.

    Attributes:
        commits: id to the files, by path.
        branches: name to a commit's id; pull requests are among them, as refs/pr/N.
        granted: who may read it although it is gated.
        log: every commit that was sent: its branch, its header and its operations.
    """

    name: str
    private: bool = False
    gated: bool = False
    granted: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    log: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = field(default_factory=list)

    @classmethod
    def empty(cls, name: str, **settings: bool) -> Repository:
        """As the Hub makes it: with one commit, of its .gitattributes."""
        repository = cls(name, **settings)
        repository.commit("main", {".gitattributes": ATTRIBUTES})
        return repository

    @classmethod
    def of_directory(cls, name: str, directory: Path, **settings: bool) -> Repository:
        repository = cls.empty(name, **settings)
        repository.commit("main", {path.name: path.read_bytes() for path in sorted(directory.iterdir())})
        return repository

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    @property
    def head(self) -> str:
        return self.branches["main"]

    @property
    def files(self) -> Mapping[str, bytes]:
        """Of the main branch."""
        return self.commits[self.head]

    def commit(self, branch: str, changes: Mapping[str, bytes | None], *, onto: str | None = None) -> str:
        """Change files, or remove those that are None; the new commit's id."""
        parent = onto or self.branches.get(branch)
        files = {**self.commits.get(parent or "", {}), **changes}
        kept = {path: content for path, content in sorted(files.items()) if content is not None}
        named = json.dumps([self.name, parent, {path: git_oid(content) for path, content in kept.items()}])
        commit = hashlib.sha1(named.encode()).hexdigest()
        self.commits[commit] = kept
        self.branches[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        """A branch's or a commit's id."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


def is_large(path: str, size: int, sample: bytes = b"") -> bool:
    """Whether the Hub wants a file in its storage and not in git."""
    patterns = [line.split()[0] for line in ATTRIBUTES.decode().splitlines()]
    return size > _LARGE or b"\0" in sample or any(fnmatch.fnmatch(Path(path).name, pattern) for pattern in patterns)
