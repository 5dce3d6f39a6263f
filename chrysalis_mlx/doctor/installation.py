"""Python, the packages and the operating system."""

from __future__ import annotations

import platform as host
import re
import shlex
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from chrysalis_mlx.doctor.check import Check, ok, problem, warning
from chrysalis_mlx.doctor.processes import ask, run

if typing.TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "chrysalis-mlx"
MAC_OS = (14, 0)  # what MLX's wheels are built for
GLIBC = (2, 35)
# Whose module is called otherwise than the package.
_MODULES = {
    "detect-secrets": "detect_secrets.core.scan",
    "google-re2": "re2",
    "libggml-python": "libggml",
    "pyyaml": "yaml",
}
# They have checks of their own; mlx-lm is a part of the MLX backend.
_EXAMINED_ELSEWHERE = ("mlx", "mlx-cpu", "mlx-metal", "mlx-lm", "xllamacpp")


def python() -> Check:
    """Whether this Python is one of 64 bits. It is new enough: an older one does not come as far as this."""
    where = "in a virtual environment" if sys.prefix != sys.base_prefix else "outside of a virtual environment"
    if sys.maxsize < 2**32:
        return problem("python", f"{host.python_version()}, 32 bit: MLX needs 64", "install a 64-bit Python")
    return ok("python", f"{host.python_version()}, 64 bit, {where}")


def packages(limit: float) -> Check:
    """Whether everything that chrysalis-mlx requires is there, new enough, and can be imported.

    Args:
        limit: seconds for the imports.
    """
    name = "packages"
    try:
        wanted = list(requirements(DISTRIBUTION))
    except metadata.PackageNotFoundError:
        root = Path(__file__).parents[2]
        found = f"{DISTRIBUTION} runs from {root} and is not installed, so that nobody knows what it requires"
        return warning(name, found, f"pip install {shlex.quote(str(root))}")
    lacking = [(one, state) for one in wanted if (state := _lacking(one))]
    if lacking:
        found = ", ".join(f"{one.name} {state}" for one, state in lacking)
        return problem(name, found, f"pip install --upgrade {shlex.join(_asked(one) for one, _ in lacking)}")
    examined = [one.name for one in wanted if one.name.lower() not in _EXAMINED_ELSEWHERE]
    modules = {_MODULES.get(package, package.replace("-", "_")): package for package in map(str.lower, examined)}
    answer = ask("imports", *modules, limit=limit)
    if answer.reason:
        return problem(name, f"they cannot be imported: {answer.reason}", _reinstall(modules.values()))
    if answer.facts:
        found = "; ".join(f"{modules[module]} cannot be imported: {reason}" for module, reason in answer.facts.items())
        return problem(name, found, _reinstall(modules[module] for module in answer.facts))
    return ok(name, f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}, and {len(wanted)} packages as it requires them")


def requirements(distribution: str, extra: str = "") -> Iterator[Requirement]:
    """What a package requires on this machine, with what the named extras of its requirements require.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    from packaging.requirements import Requirement

    for line in metadata.requires(distribution) or ():
        one = Requirement(line)
        if one.marker is not None and not one.marker.evaluate({"extra": extra}):
            continue
        if extra and "extra" not in str(one.marker):
            continue  # required with or without the extra: it was given before
        yield one
        for inner in sorted(one.extras):
            try:
                yield from requirements(one.name, inner)
            except metadata.PackageNotFoundError:
                break  # it is missing as a whole, which its own line says


def _lacking(one: Requirement) -> str:
    """What is wrong with an installed package; nothing when it is as required."""
    try:
        version = metadata.version(one.name)
    except metadata.PackageNotFoundError:
        return "is missing"
    if one.specifier.contains(version, prereleases=True):
        return ""
    return f"is {version}, and {one.specifier} is required"


def _asked(one: Requirement) -> str:
    """As pip takes it, for this machine alone."""
    extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
    return f"{one.name}{extras}{one.specifier}"


def _reinstall(names: typing.Iterable[str]) -> str:
    return f"pip install --force-reinstall {shlex.join(names)}"


@dataclass(frozen=True)
class System:
    """An operating system and its processor.

    Attributes:
        system, machine: as the module `platform` names them.
        version: of macOS or of glibc; empty where it is another C library.
        translated: whether Rosetta runs a Python for Intel on Apple Silicon.
        instructions: of an x86 processor on Linux.
    """

    system: str
    machine: str
    version: tuple[int, ...] = ()
    translated: bool = False
    instructions: frozenset[str] = field(default_factory=frozenset)


def this_system() -> System:
    """The one that this process runs on."""
    system, machine = host.system(), host.machine()
    if system == "Darwin":
        # 1 under Rosetta, 0 natively; an Intel Mac does not know the name.
        translated = run(["/usr/sbin/sysctl", "-in", "sysctl.proc_translated"], 5.0).out.strip() == "1"
        return System(system, machine, _numbers(host.mac_ver()[0]), translated)
    name, version = host.libc_ver()
    libc = _numbers(version) if name == "glibc" else ()
    return System(system, machine, libc, instructions=_instructions(Path("/proc/cpuinfo")))


def platform(this: System | None = None) -> Check:
    """Whether there are wheels of MLX and llama.cpp for this system.

    Args:
        this: another system than this one.
    """
    this = this or this_system()
    name = "platform"
    version = ".".join(map(str, this.version))
    if this.system == "Darwin":
        found = f"macOS {version} {this.machine}"
        if this.translated:
            fix = "install Python for Apple Silicon (arm64), and chrysalis-mlx with it"
            return problem(name, f"{found}: a Python for Intel that Rosetta translates; MLX does not run in it", fix)
        if this.machine != "arm64":
            return problem(name, f"{found}: MLX needs Apple Silicon", "use a Mac with Apple Silicon, or Linux")
        if this.version < MAC_OS:
            return problem(name, f"{found}: MLX needs macOS 14 or newer", "update macOS")
        return ok(name, found)
    if this.system != "Linux":
        fix = "use macOS on Apple Silicon or Linux; on Windows, WSL 2 is Linux"
        return problem(name, f"{this.system} {this.machine} is not supported", fix)
    found = f"Linux {this.machine}, {f'glibc {version}' if version else 'a C library that is not glibc'}"
    missing = {"avx2", "f16c"} - this.instructions
    if this.machine == "x86_64" and this.instructions and missing:
        lacks = " and ".join(map(str.upper, sorted(missing)))
        return problem(name, f"{found}: the processor lacks {lacks}, which llama.cpp needs", "use another computer")
    if this.version < GLIBC:
        found = f"{found}; MLX's wheels are made for glibc 2.35"
        return warning(name, found, "if MLX does not load, use a newer Linux (Ubuntu 22.04, Debian 12)")
    return ok(name, found)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _instructions(file: Path) -> frozenset[str]:
    if file.is_file():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()
