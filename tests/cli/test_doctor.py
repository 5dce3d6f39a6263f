"""`doctor`, as a person calls it: on a terminal, in a script, and on a machine with a broken compiler."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from chrysalis_mlx.cli import main
from chrysalis_mlx.doctor import examine
from chrysalis_mlx.doctor.check import Check, ok, problem, warning
from tests.doctor.test_frameworks import without_frameworks
from tests.doctor.test_processes import is_gone
from tests.end_to_end.inputs import call, report

DOCTOR = ["-m", "chrysalis_mlx", "doctor", "--offline", "--timeout", "240"]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """Takes the place of what the checks find."""
    checks: list[Check] = []
    monkeypatch.setattr(examine, "examine", lambda **options: iter(checks))
    return checks


def test_for_people(found: list[Check], capfd: pytest.CaptureFixture[str]) -> None:
    found += [ok("python", "3.11"), warning("ollama", "not here [red]\x1b[31m", "install it"), ok("disk", "full")]
    status, out, _ = call(capfd, "doctor")
    lines = [line.rstrip() for line in out.splitlines()]
    assert status == 0
    assert lines == [
        "✓ ok       python     3.11",
        r"! warning  ollama     not here [red]\x1b[31m",
        "✓ ok       disk       full",
        "",
        "to do:",
        "  ollama: install it",
        "",
        "2 ok, 1 warning",
    ]


def test_a_problem_is_status_1(found: list[Check], capfd: pytest.CaptureFixture[str]) -> None:
    found += [problem("mlx", "broken", "mend it"), problem("blas", "gone", "mend it"), ok("disk", "free")]
    status, out, _ = call(capfd, "doctor")
    assert (status, out.splitlines()[0], out.splitlines()[-1]) == (
        1,
        "✗ problem  mlx        broken",
        "1 ok, 2 problems",
    )
    status, out, _ = call(capfd, "doctor", "--json")
    assert status == 1
    assert json.loads(out) == {
        "checks": [
            {"name": "mlx", "status": "problem", "found": "broken", "fix": "mend it"},
            {"name": "blas", "status": "problem", "found": "gone", "fix": "mend it"},
            {"name": "disk", "status": "ok", "found": "free", "fix": None},
        ],
        "ok": False,
    }
    del found[:2]
    assert report(capfd, "doctor")["ok"] is True


def test_its_options(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[dict[str, object]] = []

    def remember(**options: object) -> list[Check]:
        told.append(options)
        return []

    monkeypatch.setattr(examine, "examine", remember)
    assert (main(["doctor"]), main(["doctor", "--offline", "--timeout", "5"])) == (0, 0)
    assert told == [{"offline": False, "limit": examine.LIMIT}, {"offline": True, "limit": 5.0}]
    assert main(["doctor", "--timeout", "0"]) == 2


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *DOCTOR, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MLX needs no compiler")
def test_a_machine_with_a_broken_compiler_and_a_broken_package(tmp_path: Path) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\necho 'fatal error: cmath: No such file' >&2\nexit 1\n")
    compiler.chmod(0o755)
    (tmp_path / "jinja2.py").write_text("raise ImportError('no such symbol')\n")
    done = run("--json", PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHONPATH=str(tmp_path))
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["ok"]) == (1, "", False)
    checks = {check["name"]: check for check in told["checks"]}
    assert checks["compiler"]["status"] == "problem"
    assert checks["compiler"]["found"].endswith("cannot compile, and so MLX cannot: fatal error: cmath: No such file")
    assert checks["packages"]["found"].endswith("jinja2 cannot be imported: ImportError: no such symbol")
    assert checks["packages"]["fix"] == "pip install --force-reinstall jinja2"
    assert (checks["python"]["status"], checks["xllamacpp"]["status"]) == ("ok", "ok")


def terminal(**environment: str) -> tuple[str, int]:
    """What `doctor` writes to a terminal of 200 columns, and its exit status."""
    spare = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"}
    kept = {name: os.environ[name] for name in ("CHRYSALIS_CACHE", "VIRTUAL_ENV") if name in os.environ}
    child = pexpect.spawn(
        sys.executable,
        DOCTOR,
        env={**spare, **kept, "TERM": "xterm-256color", **environment},  # type: ignore[arg-type]
        dimensions=(50, 200),
        encoding="utf-8",
        timeout=240,
    )
    child.expect(pexpect.EOF)
    child.close()
    assert child.before is not None
    assert child.exitstatus is not None
    return child.before, child.exitstatus


def test_on_a_terminal() -> None:
    written, status = terminal()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", written)
    assert status == 0, plain
    assert "\x1b[32m✓ ok     \x1b[0m  python " in written
    assert re.search(r"✓ ok +terminal +xterm-256color, 200 columns, colours\r\n", plain)
    assert "\x1b" not in plain  # colours alone: nothing moves the cursor
    assert re.search(r"\r\n\d+ ok(, \d warnings?)?\r\n$", plain)


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_on_a_terminal_without_colours(tmp_path: Path, name: str, value: str) -> None:
    without_frameworks(tmp_path)
    written, status = terminal(PYTHONPATH=str(tmp_path), **{name: value})
    assert status == 1
    assert re.search(r"✓ ok +python ", written)
    assert re.search(r"✗ problem +mlx +the MLX backend does not load or compute: ", written)
    assert "\x1b" not in written


def test_ctrl_c_ends_it_and_what_it_started(tmp_path: Path) -> None:
    folder = tmp_path / "mlx"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "core.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}}\\n')\ntime.sleep(120)\n"
    )
    process = subprocess.Popen(
        [sys.executable, *DOCTOR],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pid = wait_for(tmp_path / "pid")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "interrupted; run the same command again to go on")
    assert is_gone(pid), "the probe of MLX outlived the doctor"


def wait_for(file: Path) -> int:
    for _ in range(6000):
        if file.exists() and file.read_text().endswith("\n"):
            return int(file.read_text())
        time.sleep(0.02)
    raise AssertionError("MLX was not asked")
