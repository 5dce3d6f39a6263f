"""Git commands that many threads run at once and one call ends all of."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.command import GitError, command_line, environment
from chrysalis_mlx.genome.git.remote import shown


@contextlib.contextmanager
def worker_pool(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for many repositories at once; after Ctrl-C or an error no further repository is begun."""
    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class StoppedError(GenomeError):
    """The work was stopped before this command was done."""

    def __init__(self) -> None:
        super().__init__("stopped")


class Children:
    """The git commands that are running. `stop` kills them with all that they started; no other begins after it."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def git(
        self, root: Path, *arguments: str, settings: tuple[str, ...] = (), stdin: bytes = b"", network: bool = False
    ) -> bytes:
        """Run git in exactly this repository, never in one of the folders above it; see `genome.git.git`.

        Args:
            root: its work tree; .git lies there.
            settings: NAME=VALUE each, for this command alone.

        Raises:
            GitError: it failed, with git's own words, free of passwords.
            StoppedError: `stop` was called.
        """
        words = [word for setting in settings for word in ("-c", setting)]
        process = self._start(
            command_line(root, "--git-dir=.git", "--work-tree=.", *words, *arguments),
            environment(root, network=network),
        )
        try:
            output, errors = process.communicate(stdin)
        finally:
            with self._lock:
                self._running.discard(process)
        if self._stopped.is_set():
            raise StoppedError
        if process.returncode:
            said = shown(errors.decode("utf-8", "replace").strip())
            fix = "git's own words say what is wrong; mend that and run the command again"
            raise GitError(arguments[0], said, process.returncode, where=root, fix=fix)
        return output

    def sleep(self, seconds: float) -> None:
        """Wait; `stop` ends it.

        Raises:
            StoppedError: `stop` was called.
        """
        if self._stopped.wait(seconds):
            raise StoppedError

    def stop(self) -> None:
        with self._lock:
            self._stopped.set()
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped.is_set():
                raise StoppedError
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environment,
                    # A session of its own: one signal reaches the helpers too, and there is no terminal to ask at.
                    start_new_session=True,
                )
            except FileNotFoundError:
                fix = "install git and run the command again"
                raise GenomeError("git is not installed", where="PATH", fix=fix) from None
            self._running.add(process)
            return process
