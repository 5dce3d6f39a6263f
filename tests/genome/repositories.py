"""Real repositories and files for the tests of the genome."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[2]
# Beside the checkout, where there is one; it is not part of the project.
REAL_GENOME = PROJECT.parent / "shared" / "data" / "ecosystem-genome.txt.xz"
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")


def put(root: Path, path: str, content: str | bytes = "text\n") -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.encode() if isinstance(content, str) else content)
    return target


def git(root: Path, *arguments: str) -> str:
    """Run git as a user would, without the package's armour."""
    command = ["git", "-C", str(root), *IDENTITY, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_repository(root: Path, files: dict[str, str | bytes], message: str = "first") -> str:
    """A repository whose branch `main` has these files; its commit. Called again, it adds a commit."""
    if not (root / ".git").exists():
        root.mkdir(parents=True, exist_ok=True)
        git(root, "init", "--quiet", "-b", "main")
    for path, content in files.items():
        put(root, path, content)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(root, "rev-parse", "HEAD")
