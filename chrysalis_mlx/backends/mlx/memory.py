"""Memory: what MLX may hold, and on Linux how the C library gives it out."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import mlx.core as mx

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_CACHE_SHARE = 8


@cache
def prepare_memory() -> None:
    """Set the limits for this process, once.

    On Metal the weights are wired, so that the system does not swap them out, and the cache of freed buffers is held to
    an eighth of what the GPU may use. On Linux freed arrays stay with the process: by default the C library gives each
    large one back to the system, and the system clears every page of the next one, which costs as much as computing it.
    One arena serves all threads: the others' arenas give large arrays back whatever the thresholds say.
    """
    if mx.metal.is_available():
        working_set = int(mx.device_info()["max_recommended_working_set_size"])
        mx.set_wired_limit(working_set)
        mx.set_cache_limit(working_set // _CACHE_SHARE)
    elif sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
