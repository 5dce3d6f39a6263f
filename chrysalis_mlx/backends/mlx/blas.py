"""A fast BLAS for MLX on Linux.

The Linux wheel of MLX links the reference BLAS, whose matrix product is tens of times slower than OpenBLAS's. The
dynamic linker takes a symbol from the first library in the process that has it, so an OpenBLAS loaded globally before
MLX serves MLX. One of the system is taken as it is; the one that pip installs (scipy-openblas32) puts `scipy_` before
its names, and gets a one-function bridge, compiled once with the C compiler that MLX's own kernels need anyway.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from chrysalis_mlx.models.source import cache_directory

_BRIDGE = """\
void scipy_cblas_sgemm(int, int, int, int, int, int, float, const float *, int, const float *, int,
                       float, float *, int);
void cblas_sgemm(int order, int transA, int transB, int m, int n, int k, float alpha, const float *a, int lda,
                 const float *b, int ldb, float beta, float *c, int ldc) {
    scipy_cblas_sgemm(order, transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
"""


_serving: list[ctypes.CDLL] = []


def preload() -> str | None:
    """Load OpenBLAS globally. Must run before `mlx.core` is imported; elsewhere than on Linux it does nothing.

    Returns:
        the library that serves `cblas_sgemm`, or None where there is none or none is needed.
    """
    if sys.platform != "linux" or "mlx.core" in sys.modules:
        return None
    for library in _candidates():
        try:
            loaded = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        if hasattr(loaded, "cblas_sgemm"):
            _serving.append(loaded)
            return str(library)
    return None


def serving() -> str | None:
    """The library that `preload` has put in MLX's way; None where it found none."""
    return _serving[-1]._name if _serving else None


def use_threads(count: int) -> None:
    """How many threads a matrix product takes from now on, at most what OpenBLAS began with."""
    for name in ("openblas_set_num_threads", "scipy_openblas_set_num_threads"):
        for library in _serving:
            if hasattr(library, name):
                getattr(library, name)(min(count, _threads_at_first(library, name)))


@functools.cache
def _threads_at_first(library: ctypes.CDLL, setter: str) -> int:
    return int(getattr(library, setter.replace("_set_", "_get_"))())


def _candidates() -> Iterator[str | Path]:
    system = ctypes.util.find_library("openblas")
    if system:
        yield system
    bridge = _bridge()
    if bridge:
        yield bridge


def _bridge() -> Path | None:
    """A library that gives scipy-openblas32's matrix product its plain name; None without package or compiler."""
    package = importlib.util.find_spec("scipy_openblas32")
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if package is None or package.origin is None or compiler is None:
        return None
    openblas = Path(package.origin).parent / "lib" / "libscipy_openblas.so"
    key = hashlib.sha256(f"{_BRIDGE}{openblas}{openblas.stat().st_mtime_ns}".encode()).hexdigest()[:16]
    bridge = cache_directory() / "blas" / f"bridge-{key}.so"
    if not bridge.is_file():
        bridge.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=bridge.parent) as directory:
            source, built = Path(directory, "bridge.c"), Path(directory, "bridge.so")
            source.write_text(_BRIDGE)
            command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(built), str(source), str(openblas)]
            command.append(f"-Wl,-rpath,{openblas.parent}")
            if subprocess.run(command, capture_output=True, check=False).returncode != 0:
                return None
            os.replace(built, bridge)  # another process may have been faster; the bytes are the same
    return bridge
