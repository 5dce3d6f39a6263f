"""Fetch one commit from a remote, whatever the remote is able to give."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.children import Children
from chrysalis_mlx.genome.git.command import GitError
from chrysalis_mlx.genome.git.remote import retrying, shown
from chrysalis_mlx.genome.sources.pins import REF_NAME, Pin

# Nothing is written but objects and what is asked for, whatever the user's configuration says of remotes.
_FETCH = ("fetch", "--quiet", "--no-tags", "--refmap=", "--no-write-fetch-head")
# A server of the old protocol that gives only what its refs stand at, and one that is a plain folder of files.
_REFUSED = re.compile(r"not our ref|unadvertised object|not valid|couldn't find remote ref|dumb http", re.IGNORECASE)
_HOME = "refs/remotes/origin/"


def fetch_commit(
    root: Path, pin: Pin, *, history: bool, fsck_ignore: Sequence[str], children: Children, retries: int
) -> None:
    """Bring a pin's commit into the repository at `root`: by its id, or by its ref, or with everything there is.

    Args:
        history: bring its ancestors too; otherwise the commit alone, from a server that can give it alone.
        fsck_ignore: fsck message ids that are let through.

    Raises:
        GitError: the remote cannot be read, or git refuses what it sends.
        GenomeError: the remote does not have the commit.
    """
    assert pin.commit is not None
    settings = tuple(f"fetch.fsck.{name}=ignore" for name in fsck_ignore)
    attempts = _attempts(root, pin, [] if history else ["--depth=1"])
    while not _has(root, pin.commit, children):
        options, refspec = next(attempts, (None, ""))
        if options is None:
            raise GenomeError(
                f"the remote {shown(pin.location)} does not have the commit {pin.commit}",
                fix="its branch may have been rewritten: lock again",
            )
        words = (*_FETCH, *options, "--", pin.location, refspec)
        try:
            fetch = partial(children.git, root, *words, settings=settings, network=True)
            retrying(fetch, retries, sleep=children.sleep)
        except GitError as error:
            if not _REFUSED.search(error.words):
                raise


def _attempts(root: Path, pin: Pin, shallow: list[str]) -> Iterator[tuple[list[str], str]]:
    """Options and refspec of each fetch, the cheapest first."""
    yield shallow, pin.commit or ""
    if pin.ref is not None:
        if not REF_NAME.fullmatch(pin.ref):
            raise GenomeError(f"{pin.ref!r} is no name of a ref", fix="lock again")
        # With a ref of its own here, a tag object that the commit hangs on is not left dangling.
        yield shallow, f"+{pin.ref}:{_HOME}{pin.ref.removeprefix('refs/')}"
    yield ["--unshallow"] if (root / ".git" / "shallow").exists() else [], f"+refs/*:{_HOME}*"


def _has(root: Path, commit: str, children: Children) -> bool:
    found = children.git(root, "cat-file", "--batch-check", stdin=f"{commit}\n".encode()).split()[1].decode("ascii")
    if found not in ("commit", "missing"):
        raise GenomeError(f"{commit} is a {found} and no commit", fix="lock again")
    return found == "commit"
