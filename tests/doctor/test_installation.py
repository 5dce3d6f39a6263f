"""Python, packages and platforms, good and bad."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from chrysalis_mlx.doctor import installation
from chrysalis_mlx.doctor.check import Check
from chrysalis_mlx.doctor.installation import System, packages, platform, python, requirements, this_system
from chrysalis_mlx.doctor.processes import Ended

ALL = frozenset({"avx2", "f16c", "sse2"})


def test_python(monkeypatch: pytest.MonkeyPatch) -> None:
    found = python()
    assert (found.status, found.found.startswith(f"{sys.version.split()[0]}, 64 bit, ")) == ("ok", True)
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert python().found.endswith("outside of a virtual environment")
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    assert (python().status, "MLX needs 64" in python().found) == ("problem", True)


@pytest.mark.parametrize(
    ("system", "status", "words"),
    [
        (System("Linux", "x86_64", (2, 36), instructions=ALL), "ok", "Linux x86_64, glibc 2.36"),
        (System("Linux", "aarch64", (2, 35)), "ok", "Linux aarch64, glibc 2.35"),
        (System("Linux", "x86_64", (2, 31), instructions=ALL), "warning", "MLX's wheels are made for glibc 2.35"),
        (System("Linux", "x86_64", instructions=ALL), "warning", "a C library that is not glibc"),
        (System("Linux", "x86_64", (2, 36), instructions=frozenset({"sse2"})), "problem", "lacks AVX2 and F16C"),
        (System("Linux", "x86_64", (2, 36), instructions=ALL - {"f16c"}), "problem", "lacks F16C, which"),
        (System("Darwin", "arm64", (14, 5)), "ok", "macOS 14.5 arm64"),
        (System("Darwin", "arm64", (13, 6)), "problem", "MLX needs macOS 14 or newer"),
        (System("Darwin", "x86_64", (15, 1)), "problem", "MLX needs Apple Silicon"),
        (System("Darwin", "x86_64", (15, 1), translated=True), "problem", "that Rosetta translates"),
        (System("Windows", "AMD64"), "problem", "Windows AMD64 is not supported"),
    ],
)
def test_platforms(system: System, status: str, words: str) -> None:
    found = platform(system)
    assert (found.status, words in found.found) == (status, True), found
    assert (found.fix is None) is (status == "ok")


def test_this_platform_is_one_that_the_tests_run_on() -> None:
    this = this_system()
    assert platform().status == "ok", this
    assert this.version >= (installation.GLIBC if this.system == "Linux" else installation.MAC_OS)


def test_a_mac_is_asked_about_rosetta(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.host, "system", lambda: "Darwin")
    monkeypatch.setattr(installation.host, "machine", lambda: "x86_64")
    monkeypatch.setattr(installation.host, "mac_ver", lambda: ("15.1.1", ("", "", ""), "x86_64"))
    asked: list[list[str]] = []

    def sysctl(command: list[str], limit: float) -> Ended:
        asked.append(command)
        return Ended(0, "1\n", "", limit)

    monkeypatch.setattr(installation, "run", sysctl)
    assert this_system() == System("Darwin", "x86_64", (15, 1), translated=True)
    assert asked == [["/usr/sbin/sysctl", "-in", "sysctl.proc_translated"]]


def test_packages_are_all_here() -> None:
    found = packages(60.0)
    assert found.status == "ok", found
    count = len(list(requirements("chrysalis-mlx")))
    assert found.found == f"chrysalis-mlx {metadata.version('chrysalis-mlx')}, and {count} packages as it requires them"


def distribution(place: Path, name: str, version: str, *requires: str) -> None:
    """The record of an installed package, as pip writes it."""
    folder = place / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (folder / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {line}" for line in requires), ""]))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that counts before the real one, in which a package of ours has been installed."""
    monkeypatch.setattr(installation, "DISTRIBUTION", "larva")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_packages_that_are_missing_or_too_old(place: Path) -> None:
    distribution(
        place,
        "larva",
        "1.0",
        "leaf>=2,<3",
        "none-such>=1",
        "wing[blue]>=1",
        'windows-only>=1; sys_platform == "win32"',
        'optional>=1; extra == "more"',
    )
    distribution(place, "leaf", "1.9")
    distribution(place, "wing", "1.5", "scale>=1", 'blue-paint>=3; extra == "blue"')
    assert [str(one) for one in requirements("larva")] == [
        "leaf<3,>=2",
        "none-such>=1",
        "wing[blue]>=1",
        'blue-paint>=3; extra == "blue"',
    ]
    found = packages(30.0)
    assert found.status == "problem"
    assert found.found == "leaf is 1.9, and <3,>=2 is required, none-such is missing, blue-paint is missing"
    assert found.fix == "pip install --upgrade 'leaf<3,>=2' 'none-such>=1' 'blue-paint>=3'"


def test_packages_that_cannot_be_imported(place: Path) -> None:
    distribution(place, "larva", "1.0", "leaf>=2", "py-yam")
    distribution(place, "leaf", "2.0")
    distribution(place, "py-yam", "2.0")
    (place / "leaf.py").write_text("import no_stalk\n")
    (place / "py_yam.py").write_text("")
    found = packages(30.0)
    assert found == Check(
        "packages",
        "problem",
        "leaf cannot be imported: ModuleNotFoundError: No module named 'no_stalk'",
        "pip install --force-reinstall leaf",
    )
    (place / "leaf.py").write_text("import os\nos.kill(os.getpid(), 4)\n")
    assert packages(30.0).found == "they cannot be imported: it was ended by SIGILL"


def test_a_package_that_is_not_installed_itself(place: Path) -> None:
    found = packages(30.0)
    assert (found.status, "is not installed" in found.found) == ("warning", True)
    assert str(found.fix).startswith("pip install /")
