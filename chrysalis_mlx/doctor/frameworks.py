"""MLX and what it needs, torch, and llama.cpp."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from chrysalis_mlx import machine
from chrysalis_mlx.doctor.check import Check, ok, problem, warning
from chrysalis_mlx.doctor.processes import Answer, ask, run

SMALL_MEMORY = 7.5e9  # most shipped blueprints ask for 8 GB, of which Linux keeps some to itself
# As MLX calls it (mlx/backend/cpu/jit_compiler.cpp), and what its generated sources include.
COMPILE = ("g++", "-std=c++17", "-O3", "-Wall", "-fPIC", "-shared")
SOURCE = """\
#include <cmath>
#include <complex>
#include <cstdint>
extern "C" float half(float x) { return std::ldexp(x, -1); }
"""


def mlx(answer: Answer) -> Check:
    """Whether the MLX backend loads, and computes right.

    Args:
        answer: of the probe `mlx`.
    """
    if answer.reason:
        fix = "pip install --force-reinstall mlx mlx-lm; until then --backend torch works, where torch is installed"
        if "compile" in answer.reason.lower():
            fix = "see compiler"
        return problem("mlx", f"the MLX backend does not load or compute: {answer.reason}", fix)
    facts = answer.facts
    device = f"{facts['device']} ({facts['name']})" if facts["name"] else facts["device"]
    return ok("mlx", f"{facts['version']}, computes right on the {device}")


def memory(answer: Answer) -> Check:
    """How much memory a training has.

    Args:
        answer: of the probe `mlx`.
    """
    physical, usable = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), machine.memory_bytes()
    parts = [f"{_gigabytes(physical)} GB"]
    if usable < physical:
        parts.append(f"of which this process may use {_gigabytes(usable)} GB (a limit of its control group)")
    if working_set := answer.facts.get("working_set"):
        parts.append(f"of which macOS recommends {_gigabytes(working_set)} GB to the GPU")
    found = ", ".join(parts)
    if usable < SMALL_MEMORY:
        fix = "take a small or a quantized model; chrysalis-mlx plan --model MODEL tells what fits"
        return warning("memory", f"{found}: little for a training", fix)
    return ok("memory", found)


def blas(answer: Answer) -> Check:
    """Whether MLX has a fast matrix product on a processor.

    Args:
        answer: of the probe `mlx`.
    """
    name = "blas"
    if sys.platform != "linux":
        return ok(name, "Accelerate, which comes with macOS")
    if answer.reason:
        return warning(name, "not known: MLX does not load", "see mlx")
    if library := answer.facts["blas"]:
        return ok(name, f"OpenBLAS, {library}")
    fix = "pip install scipy-openblas32, and a C compiler (gcc), which makes the bridge to it"
    return warning(name, "MLX multiplies matrices with the reference BLAS, tens of times slower than OpenBLAS", fix)


def compiler(limit: float) -> Check:
    """Whether MLX can compile kernels while it runs: a small library is made, and loaded.

    Args:
        limit: seconds for the compiler.
    """
    name = "compiler"
    if sys.platform != "linux":
        return ok(name, "none is needed: Metal compiles MLX's kernels")
    install = "install it: apt install g++, dnf install gcc-c++, or what your Linux has"
    program = shutil.which(COMPILE[0])
    if program is None:
        return warning(name, "there is no g++: MLX works without compiled kernels, and slower", install)
    with tempfile.TemporaryDirectory() as directory:  # where MLX compiles, too
        source, library = Path(directory, "half.cpp"), Path(directory, "half.so")
        source.write_text(SOURCE, encoding="utf-8")
        compiled = run([*COMPILE, str(source), "-o", str(library)], limit)
        if compiled.status != 0:
            found = f"{program} cannot compile, and so MLX cannot: {compiled.reason}"
            return problem(name, found, "install a whole g++, with its headers, or remove it from PATH")
        loaded = ask("load", str(library), limit=limit)
        if loaded.reason:
            found = f"what {program} makes cannot be loaded from {directory}: {loaded.reason}"
            return problem(name, found, "set TMPDIR to a directory on a disk from which programs may run")
    version = run([program, "-dumpfullversion"], limit)
    return ok(name, f"g++ {version.out.strip()}, {program}")


def torch(limit: float) -> Check:
    """Whether the torch backend loads, where torch is installed; it is optional.

    Args:
        limit: seconds.
    """
    name = "torch"
    if importlib.util.find_spec("torch") is None:
        return ok(name, 'not installed; it is optional: pip install "chrysalis-mlx[torch]"')
    answer = ask("torch", limit=limit)
    if answer.reason:
        fix = 'pip install --force-reinstall "chrysalis-mlx[torch]"; nothing but --backend torch needs it'
        return warning(name, f"the torch backend does not load or compute: {answer.reason}", fix)
    return ok(name, f"{answer.facts['version']}, computes right on the {answer.facts['device']}")


def xllamacpp(limit: float) -> Check:
    """Whether llama.cpp loads, in which exported files are verified, and run.

    Args:
        limit: seconds.
    """
    answer = ask("xllamacpp", limit=limit)
    if answer.reason:
        fix = "pip install --force-reinstall xllamacpp; until then fuse needs --no-verify"
        return problem("xllamacpp", f"llama.cpp does not load: {answer.reason}", fix)
    devices = ", ".join(answer.facts["devices"]) or "no device"
    return ok("xllamacpp", f"{answer.facts['version']}, {devices}")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}"
