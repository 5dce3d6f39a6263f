"""Other programs, and this package's own probes, each in a process of its own with a limit of time.

What may crash or hang (a driver that MLX wakes, a compiler, a file system that does not answer) does so there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
# The package's own folder comes last: it counts only where the package is not installed.
_PROBE = "import sys; sys.path.append(sys.argv.pop(1)); from chrysalis_mlx.doctor.probes import main; main()"

_running: set[subprocess.Popen[str]] = set()
_lock = threading.Lock()


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        status: its exit status, below 0 for a signal; None when it did not end within the limit.
        limit: seconds that it had.
    """

    status: int | None
    out: str
    err: str
    limit: float

    @property
    def reason(self) -> str:
        """Why it failed, in one line."""
        if self.status is None:
            return f"no answer within {self.limit:g} seconds"
        if self.status < 0:
            return f"it was ended by {_signal_name(-self.status)}"
        said = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        return said[-1] if said else f"exit status {self.status}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def run(command: Sequence[str], limit: float) -> Ended:
    """Run a program with nothing to read, and end it with all that it started when it takes too long.

    Args:
        limit: seconds.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # a group, so that what it started ends with it
    )
    with _lock:
        _running.add(process)
    try:
        out, err = process.communicate(timeout=limit)
        return Ended(process.returncode, out, err, limit)
    except subprocess.TimeoutExpired:
        _end(process)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a process that waits for a driver cannot even be killed
            process.communicate(timeout=1)
        return Ended(None, "", "", limit)
    finally:
        with _lock:
            _running.discard(process)


def end_all() -> None:
    """End what still runs, as after Ctrl-C."""
    with _lock:
        for process in _running:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Answer:
    """What a probe found out, or why it could not."""

    facts: dict[str, Any]
    reason: str | None = None


def ask(probe: str, *arguments: str, limit: float) -> Answer:
    """Run one of `probes` in a process of its own.

    Args:
        probe: the name of its function.
        arguments: what it is called with.
        limit: seconds.
    """
    ended = run([sys.executable, "-P", "-c", _PROBE, str(_ROOT), probe, *arguments], limit)
    if ended.status != 0:
        return Answer({}, ended.reason)
    told: dict[str, Any] = json.loads(ended.out)
    return Answer(told["facts"], told["reason"])
