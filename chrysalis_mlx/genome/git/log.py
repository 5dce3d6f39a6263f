"""The commits of a repository and their patches, whatever its settings and the user's say.

git runs in an empty repository of its own that borrows the objects of the other one. So no settings, attributes,
filters, hooks, grafts or replacements have a say, nothing of them is run, and the same objects give the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.command import algorithm_of, command_line, environment, git
from chrysalis_mlx.genome.git.patch import FileDiff, read_patch

_WALK = ("log", "-z", "--first-parent", "--min-parents=1", "--max-parents=1", "--encoding=UTF-8", "--no-show-signature")
_DIFF = (
    "diff-tree",
    "--stdin",
    "-r",
    "-p",
    "--no-commit-id",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--full-index",
    "--unified=3",
    "--inter-hunk-context=0",
    "--diff-algorithm=myers",
    "--indent-heuristic",
    "--ignore-cr-at-eol",
    "--find-renames=50%",
    "-l400",
    "--irreversible-delete",  # what a deleted file held tells nothing of the change
    "--submodule=short",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)
Diff = Callable[[str], Iterator[FileDiff | None]]
_END = b"=\n"  # diff-tree repeats a line that names no commit; no line of a patch begins so


@contextlib.contextmanager
def borrow(root: Path, commit: str) -> Iterator[Store]:
    """An empty repository, without settings of anybody's, that has the objects of the one at `root`."""
    paths = git(root, "rev-parse", "--git-path", "objects", "--git-path", "shallow").split(b"\n")
    objects, shallow = (root / os.fsdecode(path) for path in paths[:2])
    with tempfile.TemporaryDirectory() as place:
        git(None, "init", "--quiet", "--bare", "--template=", f"--object-format={algorithm_of(commit)}", place)
        with contextlib.suppress(FileNotFoundError):  # so that git ends where the clone's commits end
            shutil.copyfile(shallow, Path(place, "shallow"))
        yield Store(root, Path(place), objects.absolute(), commit)


class Store:
    """The commits of a repository, read through another one that borrows its objects."""

    def __init__(self, root: Path, place: Path, objects: Path, commit: str) -> None:
        self._root, self._place, self._commit = root, place, commit
        kept = {name: value for name, value in environment().items() if not name.startswith("GIT_")}
        self._environment = kept | {
            "HOME": str(place),
            "XDG_CONFIG_HOME": str(place),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_DIR": str(place),
            "GIT_OBJECT_DIRECTORY": str(objects),
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_NO_LAZY_FETCH": "1",
        }

    @property
    def why_empty(self) -> str:
        if (self._place / "shallow").exists():
            return "shallow: the pinned commit alone is here; clone with `history: true`"
        return "no commit but the first and merges"

    def walk(self, *, messages: bool = True) -> Iterator[tuple[str, bytes]]:
        """Name and message of each commit, the newest first."""
        with self._run(*_WALK, f"--format=%H%n{'%B' if messages else ''}", self._commit, "--") as process:
            assert process.stdout is not None
            for record in _split(process.stdout, b"\0"):
                sha, _, words = record.partition(b"\n")
                yield sha.decode("ascii"), words
            if process.wait():
                raise self._damaged()

    @contextlib.contextmanager
    def differ(self, folder: str, *, max_bytes: int, max_diff: int) -> Iterator[Diff]:
        """A function from a commit to the files of its diff, to be read to the end. One git answers for all of them.

        Args:
            folder: of the repository, that the diff is about.
            max_bytes: git takes larger files for binary ones.
            max_diff: larger diffs of a file are passed over; bytes.
        """
        settings = ("-c", f"core.bigFileThreshold={max_bytes}", "-c", "core.quotePath=false")
        relative = (f"--relative={folder}/",) if folder else ()
        with self._run(*settings, *_DIFF, *relative) as process:
            requests, answers = process.stdin, process.stdout
            assert requests is not None
            assert answers is not None

            def lines(commit: str) -> Iterator[bytes]:
                with contextlib.suppress(BrokenPipeError):  # git is gone; the missing answer tells
                    requests.write(commit.encode("ascii") + b"\n" + _END)
                    requests.flush()
                for line in answers:
                    if line == _END:
                        return
                    yield line
                raise self._damaged()

            yield lambda commit: read_patch(lines(commit), max_diff)

    @contextlib.contextmanager
    def _run(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            command_line(self._place, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            bufsize=1 << 16,
        )
        try:
            yield process
        finally:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            process.wait()

    def _damaged(self) -> GenomeError:
        return GenomeError(
            f"the history of the commit {self._commit} cannot be read: objects are missing or damaged",
            where=self._root,
            fix="bring the clone again, fetch what a partial clone lacks, or set framing.mix.history to 0",
        )


def _split(stream: IO[bytes], mark: bytes) -> Iterator[bytes]:
    """What each `mark` ends."""
    pieces: list[bytes] = []
    for piece in iter(lambda: stream.read(1 << 16), b""):
        *ends, rest = piece.split(mark)
        for end in ends:
            yield b"".join([*pieces, end])
            pieces = []
        pieces.append(rest)
