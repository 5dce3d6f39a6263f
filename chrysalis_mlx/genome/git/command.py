"""How git is called: nothing that a repository says is ever run.

Every call has the same armour. Hooks, submodules, file system monitors, filters (LFS among them), prompts and all
transports but https, http, ssh, git and file are off, whatever the configuration says; what arrives is checked as it
arrives; a repository that a hook's environment names is ignored. `git` gives a call's output, `BlobReader` the contents
of many blobs through one `git cat-file --batch`, and `object_id` the name that git gives to a content.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import subprocess
import sys
import threading
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from chrysalis_mlx.errors import GenomeError

TRANSPORTS = "https:http:ssh:git:file"
MODES_FILE, MODE_LINK, MODE_SUBMODULE = ("100644", "100755"), "120000", "160000"

# Command line settings outrank those of the repository, the user and the system.
_ARMOUR = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "credential.interactive": "false",
    "fetch.fsckObjects": "true",
    "fetch.recurseSubmodules": "false",
    "filter.lfs.process": "",
    "filter.lfs.required": "false",
    "filter.lfs.smudge": "",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "submodule.recurse": "false",
    "transfer.fsckObjects": "true",
}
# git maps whole packs and keeps 96 MB of delta bases; on a laptop that is much for a tenth of the time.
_BATCH = ("cat-file", "--batch", "--buffer")
_SPARING = ("core.packedGitWindowSize=4m", "core.packedGitLimit=16m", "core.deltaBaseCacheLimit=64m")
_QUIET = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
# Set inside a git hook; they would point every git command at the repository of the hook.
_HOOK_ENVIRONMENT = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
)
# They would mix with git's own words, headers with tokens among them.
_TALK = ("GIT_TRACE", "GIT_CURL_VERBOSE")
# A server that stands still for a minute is given up, also by a helper that outlives its git.
_PATIENCE = {"GIT_HTTP_LOW_SPEED_LIMIT": "1", "GIT_HTTP_LOW_SPEED_TIME": "60"}
_SSH_OPTIONS = "-oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=15 -oServerAliveCountMax=4"


class GitError(GenomeError):
    """A git command that failed.

    Attributes:
        words: what git said on standard error.
        status: its exit status.
    """

    def __init__(self, command: str, words: str, status: int, *, where: object, fix: str) -> None:
        super().__init__(f"git {command} failed: {words or f'exit status {status}'}", where=where, fix=fix)
        self.words = words
        self.status = status


class GitMissingError(GenomeError):
    """There is no git on this computer."""


@dataclass(frozen=True)
class TreeEntry:
    """One entry of a commit's tree, or a file on disk as git would store it.

    Attributes:
        path: relative to the tree, with forward slashes, as bytes: git knows no encoding.
        mode: 100644, 100755, 120000 (symbolic link) or 160000 (submodule).
        oid: the object's name, 40 or 64 hexadecimal digits.
        size: of the blob in bytes; 0 for a submodule or a missing blob.
    """

    path: bytes
    mode: str
    oid: str
    size: int


def git(
    root: Path | None,
    *arguments: str,
    stdin: bytes = b"",
    network: bool = False,
    discover: bool = False,
    timeout: float | None = None,
) -> bytes:
    """Run one git command and return its standard output.

    Args:
        root: the top of a work tree; None for a command that needs no repository.
        stdin: given to it.
        network: whether it may talk to a remote; otherwise every transport is closed.
        discover: whether the repository may be one of the folders above `root`.
        timeout: seconds after which it is ended; None for never.

    Raises:
        GitError: it failed, with git's own words, or timed out.
        GitMissingError: git is not installed.
    """
    try:
        done = subprocess.run(
            command_line(root, *arguments),
            input=stdin,
            capture_output=True,
            check=False,
            env=environment(root, network=network, discover=discover),
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        words, fix = f"timed out after {timeout:g} seconds", "the other side says nothing; try again later"
        raise GitError(arguments[0], words, 124, where=root or arguments[-1], fix=fix) from None
    except FileNotFoundError:
        raise GitMissingError("git is not installed", where="PATH", fix="install git, run the command again") from None
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise GitError(arguments[0], words, done.returncode, where=root or arguments[-1], fix=_fix(words))
    return done.stdout


def command_line(root: Path | None, *arguments: str) -> list[str]:
    """The words of a git command, armour included."""
    settings = [word for name, value in _ARMOUR.items() for word in ("-c", f"{name}={value}")]
    # Without a repository, out of all of them: the current folder may lie in one that has settings of its own.
    place = os.sep if root is None else os.fspath(root)
    return ["git", "--no-optional-locks", "--no-replace-objects", *settings, "-C", place, *arguments]


def environment(root: Path | None = None, *, network: bool = False, discover: bool = False) -> dict[str, str]:
    """The environment that every git command runs in; see `git`."""
    dropped = (name for name in os.environ if name in _HOOK_ENVIRONMENT or name.startswith(_TALK))
    kept = {name: os.environ[name] for name in os.environ.keys() - dropped}
    armour = {"GIT_ALLOW_PROTOCOL": TRANSPORTS if network else "none", "GIT_ASKPASS": "true", "SSH_ASKPASS": "true"}
    if network:
        armour |= _PATIENCE | {"GIT_SSH_COMMAND": _ssh_command()}
    if root is not None and not discover:
        # Where .git is missing or damaged, git would take a repository further up for this one.
        armour["GIT_CEILING_DIRECTORIES"] = os.fspath(root.resolve().parent)
    return {**kept, **_QUIET, **armour}


@cache
def _ssh_command() -> str:
    """The user's own ssh, which may name a key, made to ask for nothing and to wait for nobody for ever."""
    own = os.environ.get("GIT_SSH_COMMAND", "").strip()
    if not own:
        asked = subprocess.run(
            ["git", "-C", os.sep, "config", "--get", "core.sshCommand"], capture_output=True, check=False, text=True
        )
        # GIT_SSH is one program, the others are words for a shell.
        own = asked.stdout.strip() or shlex.quote(os.environ.get("GIT_SSH", "").strip() or "ssh")
    try:
        program = os.path.basename(shlex.split(own)[0])
    except ValueError:
        return own  # quotes that do not match; the shell will say so
    return f"{own} {_SSH_OPTIONS}" if program == "ssh" else own  # plink and others have no such options


def list_tree(root: Path, treeish: str) -> list[TreeEntry]:
    """Every file of a commit or tree, in the order of the bytes of its path.

    Args:
        treeish: a commit, or COMMIT:FOLDER.
    """
    entries = []
    listed = git(root, "ls-tree", "-r", "-z", "--full-tree", "--long", "--end-of-options", treeish)
    for line in listed.split(b"\0")[:-1]:
        about, path = line.split(b"\t", 1)
        mode, _, oid, size = about.decode("ascii").split()
        # "BAD" is a blob that git cannot find; whoever reads it will say so.
        entries.append(TreeEntry(path, mode, oid, int(size) if size.isdigit() else 0))
    return entries


def object_id(kind: str, content: bytes, algorithm: str = "sha1") -> str:
    """The name that git gives to an object, in hexadecimal digits.

    Args:
        kind: blob or tree.
        algorithm: sha1, or sha256 in a repository of that format.
    """
    digest = hashlib.new(algorithm, b"%s %d\0" % (kind.encode("ascii"), len(content)), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()


def algorithm_of(oid: str) -> str:
    """Which hash made an object's name: sha1 (40 digits) or sha256 (64)."""
    return "sha1" if len(oid) == 40 else "sha256"


class BlobReader:
    """The contents of blobs of one repository, through one `git cat-file --batch`. A context manager.

    Every content is hashed again: what a damaged object store gives out is an error and never passes for the blob.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            command_line(self._root, *(word for name in _SPARING for word in ("-c", name)), *_BATCH),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(self._root),
            bufsize=1 << 20,
        )
        if sys.platform == "linux":
            # So that git is busy with the next files while this process is with one. A user may have no room left.
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    fcntl.fcntl(typing.cast(IO[bytes], pipe), fcntl.F_SETPIPE_SZ, 1 << 20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.wait()

    def read(self, oids: Sequence[str]) -> Iterator[bytes]:
        """The content of each blob, in order. To be called once.

        Raises:
            GenomeError: a blob is missing or its content does not have that name.
        """
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        # A thread asks while this one reads; with both in one thread the pipes would fill up and stand still.
        threading.Thread(target=_ask, args=(requests, oids), daemon=True).start()
        for oid in oids:
            yield self._answer(answers, oid)

    def _answer(self, answers: IO[bytes], oid: str) -> bytes:
        header = answers.readline().split()
        if len(header) != 3 or header[1] != b"blob":
            raise self._damaged(oid, "missing" if header[1:] == [b"missing"] else "unreadable")
        content = answers.read(int(header[2]))
        answers.read(1)
        if object_id("blob", content, algorithm_of(oid)) != oid:
            raise self._damaged(oid, "damaged")
        return content

    def _damaged(self, oid: str, how: str) -> GenomeError:
        return GenomeError(
            f"the object {oid} is {how} in git's store",
            where=self._root,
            fix="remove the clone and bring it again: chrysalis-mlx genome clone",
        )


def _ask(requests: IO[bytes], oids: Iterable[str]) -> None:
    with contextlib.suppress(BrokenPipeError, ValueError):  # the reader left early and closed the pipe
        for oid in oids:
            requests.write(oid.encode("ascii") + b"\n")
        requests.close()


def _fix(words: str) -> str:
    if "dubious ownership" in words:
        return "it belongs to another user; if you trust it: git config --global --add safe.directory DIRECTORY"
    if "transport" in words and "not allowed" in words:
        return f"name it with one of the transports {TRANSPORTS.replace(':', ', ')}"
    return "git's own words say what is wrong; mend that and run the command again"
