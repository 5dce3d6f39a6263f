"""All checks, at once, each on its own: one that crashes or hangs is a problem and not the end of the others."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from chrysalis_mlx.doctor import frameworks, installation, network, surroundings
from chrysalis_mlx.doctor.check import Check, problem
from chrysalis_mlx.doctor.passwords import without_passwords
from chrysalis_mlx.doctor.processes import Answer, ask, end_all

LIMIT = 30.0
_GRACE = 3.0  # seconds in which a check that ended its process may still say so


class Examination:
    """What the checks share.

    Args:
        offline: ask nothing of the network.
        limit: seconds that a process may take; what asks the network takes less.
    """

    def __init__(self, *, offline: bool = False, limit: float = LIMIT) -> None:
        self.offline = offline
        self.limit = limit
        self._lock = threading.Lock()
        self._mlx: Answer | None = None

    def mlx(self) -> Answer:
        """What the probe of MLX found; it runs once."""
        with self._lock:
            if self._mlx is None:
                self._mlx = ask("mlx", limit=self.limit)
            return self._mlx


CHECKS: Mapping[str, Callable[[Examination], Check]] = {
    "python": lambda _: installation.python(),
    "packages": lambda it: installation.packages(it.limit),
    "platform": lambda _: installation.platform(),
    "mlx": lambda it: frameworks.mlx(it.mlx()),
    "memory": lambda it: frameworks.memory(it.mlx()),
    "blas": lambda it: frameworks.blas(it.mlx()),
    "compiler": lambda it: frameworks.compiler(it.limit),
    "torch": lambda it: frameworks.torch(it.limit),
    "xllamacpp": lambda it: frameworks.xllamacpp(it.limit),
    "disk": lambda _: surroundings.disk(),
    "cache": lambda _: surroundings.cache(),
    "hub cache": lambda _: surroundings.hub_cache(),
    "git": lambda it: surroundings.git(it.limit),
    "ollama": lambda it: network.ollama(it.limit, offline=it.offline),
    "hub": lambda it: network.hub(offline=it.offline),
    "hub login": lambda it: network.login(offline=it.offline),
    "encoding": lambda _: surroundings.encoding(),
    "terminal": lambda _: surroundings.terminal(),
}
"""Name -> check, in the order in which they are told."""


def examine(*, offline: bool = False, limit: float = LIMIT) -> Iterator[Check]:
    """Run every check at the same time, and give them in order, each as soon as it is there.

    Args:
        offline: ask nothing of the network.
        limit: seconds that one check may take.
    """
    examination = Examination(offline=offline, limit=limit)
    found: dict[str, Check] = {}
    deadline = time.monotonic() + limit + _GRACE
    threads = {}
    for name, check in CHECKS.items():
        # Daemons: a thread that waits for a dead file system cannot be ended, and the program must.
        work = functools.partial(_isolated, name, check, examination, found)
        threads[name] = threading.Thread(target=work, name=f"doctor {name}", daemon=True)
        threads[name].start()
    try:
        for name, thread in threads.items():
            thread.join(max(0.0, deadline - time.monotonic()))
            yield found.get(name) or problem(
                name, f"no answer within {limit:g} seconds", "see why it hangs; --timeout gives it longer"
            )
    finally:
        end_all()


def _isolated(
    name: str, check: Callable[[Examination], Check], examination: Examination, found: dict[str, Check]
) -> None:
    try:
        found[name] = without_passwords(check(examination))
    except Exception as error:  # a check that fails must not take the others along
        fix = "mend what it names; if it is a bug of chrysalis-mlx, report it"
        found[name] = without_passwords(problem(name, f"the check failed: {type(error).__name__}: {error}", fix))
