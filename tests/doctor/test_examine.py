"""All checks together: in order, at the same time, and none takes the others along."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from chrysalis_mlx.doctor import examine as module
from chrysalis_mlx.doctor.check import Check, ok
from chrysalis_mlx.doctor.examine import CHECKS, Examination, examine
from chrysalis_mlx.doctor.processes import Answer
from tests.doctor.test_frameworks import without_frameworks


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Takes the place of the real checks."""
    own: dict[str, object] = {}
    monkeypatch.setattr(module, "CHECKS", own)
    monkeypatch.setattr(module, "_GRACE", 0.2)
    return own


def test_one_that_crashes_and_one_that_hangs(checks: dict[str, object]) -> None:
    forever = threading.Event()

    def crash(_: Examination) -> Check:
        raise ZeroDivisionError("by zero")

    def hang(_: Examination) -> Check:
        forever.wait(30)
        return ok("hangs", "at last")

    checks.update({"hangs": hang, "crashes": crash, "works": lambda _: ok("works", "as it should")})
    hung, crashed, worked = examine(limit=0.3)
    forever.set()
    assert (hung.name, hung.status, hung.found) == ("hangs", "problem", "no answer within 0.3 seconds")
    assert (crashed.name, crashed.status) == ("crashes", "problem")
    assert crashed.found == "the check failed: ZeroDivisionError: by zero"
    assert worked == Check("works", "ok", "as it should")


def test_they_run_at_the_same_time(checks: dict[str, object]) -> None:
    meeting = threading.Barrier(3)

    def meet(name: str) -> object:
        def check(_: Examination) -> Check:
            return ok(name, f"{meeting.wait(20) >= 0}")

        return check

    checks.update({name: meet(name) for name in "abc"})
    assert [(check.name, check.found) for check in examine(limit=30)] == [("a", "True"), ("b", "True"), ("c", "True")]


def test_what_the_checks_are_told(checks: dict[str, object]) -> None:
    checks["told"] = lambda it: ok("told", f"{it.offline} {it.limit}")
    assert next(iter(examine(offline=True, limit=7))).found == "True 7"
    assert next(iter(examine(limit=8))).found == "False 8"


def test_mlx_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(probe: str, *, limit: float) -> Answer:
        asked.append(probe)
        time.sleep(0.05)
        return Answer({}, f"{limit}")

    monkeypatch.setattr(module, "ask", ask)
    examination = Examination(limit=5)
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(examination.mlx())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (asked, answers) == (["mlx"], [Answer({}, "5")] * 3)


def test_every_check_gives_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_frameworks(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert [check.name for check in examine(offline=True, limit=240)] == list(CHECKS)
