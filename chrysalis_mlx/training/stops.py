"""What asks a training to stop at the end of a step: Ctrl-C, or the minutes that it was given."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

_NOTICE = b"\nthis step is finished and saved first; Ctrl-C again stops at once\n"


class Stops:
    """Holds Ctrl-C back while the block runs: the first one is a wish, the second one stops at once.

    A program that was started deaf to Ctrl-C (`nohup`) stays so, and only the main thread can listen.

    Args:
        max_minutes: None: as long as it takes.
        clock: seconds.
    """

    def __init__(self, max_minutes: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.interrupted = False
        self._clock = clock
        self._end = math.inf if max_minutes is None else clock() + 60 * max_minutes
        self._before: Any = None

    @property
    def out_of_time(self) -> bool:
        return self._clock() >= self._end

    def __enter__(self) -> Stops:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if before not in (signal.SIG_IGN, None):
                self._before = before
                signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        # Past Python's own stream: the signal may have come in the middle of a write to it.
        os.write(2, _NOTICE)
