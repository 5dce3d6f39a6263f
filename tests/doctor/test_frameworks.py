"""MLX, its compiler, its BLAS, torch and llama.cpp: as they are here, and broken."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from chrysalis_mlx import machine
from chrysalis_mlx.backends.facts import facts
from chrysalis_mlx.doctor.frameworks import blas, compiler, memory, mlx, torch, xllamacpp
from chrysalis_mlx.doctor.processes import Answer, ask
from chrysalis_mlx.errors import BackendError

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Metal compiles MLX's kernels; nothing is examined there")


def stub(folder: Path, name: str, text: str) -> None:
    """A module that stands in the way of the real one."""
    (folder / f"{name}.py").write_text(text)


def without_frameworks(folder: Path) -> None:
    """An MLX and a torch that do not load: nobody waits for them."""
    (folder / "mlx").mkdir()
    stub(folder / "mlx", "__init__", "")
    stub(folder / "mlx", "core", "raise ImportError('nothing here')")
    stub(folder, "torch", "raise ImportError('nothing here')")


def program(folder: Path, name: str, text: str) -> None:
    """A program that stands in the way of the real one."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return folder


def test_mlx_memory_and_blas_as_they_are_here() -> None:
    answer = ask("mlx", limit=120.0)
    assert answer.reason is None
    found = mlx(answer)
    assert (found.status, "computes right on the" in found.found, found.fix) == ("ok", True, None)
    assert found.found.startswith(answer.facts["version"])
    assert answer.facts["error"] < 1e-2
    if sys.platform == "linux":
        assert (blas(answer).status, blas(answer).found) == ("ok", f"OpenBLAS, {answer.facts['blas']}")
        assert Path(answer.facts["blas"]).name.startswith(("bridge-", "libopenblas"))
    assert memory(answer).found.startswith(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise ImportError('libmlx.so: cannot open shared object file')", "libmlx.so: cannot open shared object file"),
        ("import os; os.abort()", "it was ended by SIGABRT"),
        ("import time; time.sleep(60)", "no answer within 2 seconds"),
    ],
)
def test_an_mlx_that_does_not_load(modules: Path, text: str, words: str) -> None:
    (modules / "mlx").mkdir()
    stub(modules / "mlx", "__init__", "")
    stub(modules / "mlx", "core", text)
    answer = ask("mlx", limit=2.0 if "sleep" in text else 60.0)
    found = mlx(answer)
    assert (found.status, words in found.found) == ("problem", True), found
    assert "--backend torch" in str(found.fix)
    assert memory(answer).status == memory(Answer({})).status  # it does not hang on MLX
    if sys.platform == "linux":
        assert (blas(answer).status, blas(answer).fix) == ("warning", "see mlx")


def test_a_compiler_that_fails_mlx_is_named() -> None:
    reason = "RuntimeError: [Compile::eval_cpu] Failed to compile function"
    assert mlx(Answer({}, reason)).fix == "see compiler"


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_a_framework_that_computes_wrong(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from chrysalis_mlx.backends.torch import facts as of_torch

    assert facts("torch")["error"] < 1e-5
    monkeypatch.setattr(of_torch, "facts", lambda: {"device": "cpu", "error": error})
    with pytest.raises(BackendError, match="computes a wrong matrix product on cpu"):
        facts("torch")


@LINUX
def test_without_a_fast_blas() -> None:
    found = blas(Answer({"blas": None}))
    assert (found.status, "reference BLAS" in found.found, "scipy-openblas32" in str(found.fix)) == (
        "warning",
        True,
        True,
    )


def test_memory_says_what_limits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 16 * 10**9 // 4096}[name])
    monkeypatch.setattr(machine, "memory_bytes", lambda: 12 * 10**9)
    found = memory(Answer({"working_set": 10 * 10**9}))
    assert (found.status, found.found) == (
        "ok",
        "16.0 GB, of which this process may use 12.0 GB (a limit of its control group), "
        "of which macOS recommends 10.0 GB to the GPU",
    )
    monkeypatch.setattr(machine, "memory_bytes", lambda: 7 * 10**9)
    found = memory(Answer({}))
    assert (found.status, "chrysalis-mlx plan" in str(found.fix)) == ("warning", True)


@LINUX
def test_a_compiler_that_works() -> None:
    found = compiler(60.0)
    assert (found.status, found.found.startswith("g++ ")) == ("ok", True), found


@LINUX
def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (compiler(30.0).status, compiler(30.0).found.startswith("there is no g++")) == ("warning", True)


@LINUX
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo 'fatal error: cmath: No such file' >&2; exit 1", "fatal error: cmath: No such file"),
        ("sleep 60", "no answer within 1 seconds"),
        ('while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"', "cannot be loaded from"),
        ("exit 0", "cannot be loaded from"),
    ],
)
def test_a_compiler_that_does_not_work(programs: Path, text: str, words: str) -> None:
    program(programs, "g++", text)
    found = compiler(1.0 if "sleep" in text else 30.0)
    assert (found.status, words in found.found) == ("problem", True), found
    assert ("TMPDIR" in str(found.fix)) is ("loaded" in words)


def test_torch(monkeypatch: pytest.MonkeyPatch, modules: Path) -> None:
    stub(modules, "torch", "raise ImportError('libtorch.so: wrong ELF class')")
    found = torch(60.0)
    assert (found.status, "wrong ELF class" in found.found) == ("warning", True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert (torch(60.0).status, torch(60.0).found.startswith("not installed")) == ("ok", True)


def test_torch_as_it_is_here() -> None:
    found = torch(120.0)
    assert (found.status, found.found.endswith("computes right on the cpu")) == ("ok", True), found


def test_llama_cpp() -> None:
    found = xllamacpp(60.0)
    assert (found.status, "CPU" in found.found or "MTL" in found.found or "Metal" in found.found) == ("ok", True), found


def test_a_llama_cpp_that_does_not_load(modules: Path) -> None:
    stub(modules, "xllamacpp", "import os; os.kill(os.getpid(), 4)")
    found = xllamacpp(60.0)
    assert (found.status, found.found) == ("problem", "llama.cpp does not load: it was ended by SIGILL")
    assert "--no-verify" in str(found.fix)
    stub(modules, "xllamacpp", "__version__ = '1'\ndef get_device_info(): return []")
    assert xllamacpp(60.0).found == "1, no device"
