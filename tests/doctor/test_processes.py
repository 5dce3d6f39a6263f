"""Other programs end: by themselves, by their limit, or with their reason."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chrysalis_mlx.doctor.processes import Answer, ask, end_all, run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("print('fine')", 0, "fine"),
        ("import sys; sys.stderr.write('first\\n  the last one \\n\\n'); sys.exit(3)", 3, "the last one"),
        ("raise SystemExit(4)", 4, "exit status 4"),
        ("import os; os.kill(os.getpid(), 11)", -11, "it was ended by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 40)", -40, "it was ended by signal 40"),
        ("import time; time.sleep(60)", None, "no answer within 0.5 seconds"),
    ],
)
def test_how_a_program_ended(code: str, status: int | None, reason: str) -> None:
    if status == -40 and sys.platform != "linux":
        pytest.skip("real-time signals are Linux's")
    ended = run(python(code), 0.5 if status is None else 30.0)
    assert (ended.status, ended.reason) == (status, reason)


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {told}; wait"
    assert run(["sh", "-c", script], 1.0).status is None
    assert is_gone(int(told.read_text()))


def test_end_all_ends_what_runs() -> None:
    code = (
        "import threading, time\n"
        "from chrysalis_mlx.doctor import processes\n"
        "done = []\n"
        "thread = threading.Thread(target=lambda: done.append(processes.run(['sleep', '60'], 60.0)))\n"
        "thread.start()\n"
        "while not processes._running: time.sleep(0.01)\n"
        "processes.end_all()\n"
        "thread.join()\n"
        "print(done[0].reason)\n"
    )
    assert (
        subprocess.run(python(code), capture_output=True, text=True, check=True).stdout == "it was ended by SIGKILL\n"
    )
    end_all()  # nothing runs: nothing happens


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        run(["/nowhere/program"], 1.0)


def test_probes_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud.py").write_text("import os\nprint('hello')\nos.write(1, b'past Python')\n")
    (tmp_path / "broken.py").write_text("raise RuntimeError('first line\\nsecond')\n")
    (tmp_path / "crash.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    failed = {"broken": "RuntimeError: first line", "none_such": "ModuleNotFoundError: No module named 'none_such'"}
    assert ask("imports", "json", "loud", "broken", "none_such", limit=30.0) == Answer(failed)
    assert ask("imports", "crash", limit=30.0) == Answer({}, "it was ended by SIGABRT")
    missing = ask("load", str(tmp_path / "none.so"), limit=30.0)
    assert (missing.facts, str(missing.reason).startswith("OSError: ")) == ({}, True)


def test_a_probe_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ask("imports", "hangs", limit=1.0) == Answer({}, "no answer within 1 seconds")


def test_a_file_beside_the_user_does_not_stand_in_for_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json5.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert list(ask("imports", "json5", limit=30.0).facts) == ["json5"]


def is_gone(pid: int) -> bool:
    """Whether a process ends, soon."""
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False
