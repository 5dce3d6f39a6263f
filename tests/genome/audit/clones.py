"""Clones for the tests of the audit, and what it says of them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from chrysalis_mlx.genome.audit.levels import RepositoryAudit, audit
from chrysalis_mlx.genome.git.clone import clone
from chrysalis_mlx.genome.sources.pins import Lock, Pin
from tests.genome.repositories import git

UNUSUAL = 'odd "name" \\\n.md'
PLAIN = [f"plain-{number:03}.md" for number in range(150)]
LEVELS = ("L1", "L2", "L3", "L4")


@dataclass(frozen=True)
class World:
    """A remote, our clone of it, and the lock that pins it."""

    origin: Path
    clone: Path
    lock: Lock

    def file(self, path: str) -> Path:
        return self.clone / path

    def pack(self) -> Path:
        (pack,) = self.file(".git/objects/pack").glob("*.pack")
        pack.chmod(0o644)
        return pack

    def loose(self, revision: str) -> tuple[str, Path]:
        """The name of an object and its loose file; the clone's pack is taken apart for it."""
        oid = git(self.clone, "rev-parse", revision)
        for pack in self.file(".git/objects/pack").glob("*.pack"):
            content = pack.read_bytes()
            for part in pack.parent.iterdir():
                part.unlink()
            feed(self.clone, content, "unpack-objects", "-q")
        path = self.file(f".git/objects/{oid[:2]}/{oid[2:]}")
        path.chmod(0o644)
        return oid, path


def feed(root: Path, content: bytes, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(root), *arguments], input=content, check=True, capture_output=True)


def flip(path: Path, place: int) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0x20
    path.write_bytes(content)


def make_clone(origin: Path, clones: Path) -> World:
    """A clone as `genome clone` makes it."""
    commit = git(origin, "rev-parse", "HEAD")
    lock = Lock(repositories=(Pin("r", "remote", f"file://{origin}", commit, ref="refs/heads/main"),))
    (outcome,) = clone(lock, clones)
    assert outcome.outcome == "cloned", outcome
    return World(origin, clones / "r", lock)


def audited(lock: Lock, clones: Path = Path(), **options: bool) -> RepositoryAudit:
    (item,) = audit(lock, clones, **options).repositories
    assert [verdict.level for verdict in item.verdicts] == list(LEVELS)
    return item


def failed(item: RepositoryAudit) -> dict[str, str]:
    """Level -> its evidence, of those that failed."""
    return {verdict.level: "; ".join(verdict.evidence) for verdict in item.verdicts if verdict.status == "fail"}
