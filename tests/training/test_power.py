"""What the machine says of its battery, and how a training waits for it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from chrysalis_mlx.training.power import Battery, BatteryWatch, awake, parse_pmset, read_battery, read_power_supply

DISCHARGING = """\
Now drawing from 'Battery Power'
 -InternalBattery-0 (id=4653155)\t17%; discharging; 1:43 remaining present: true
"""
CHARGING = """\
Now drawing from 'AC Power'
 -InternalBattery-0 (id=21233763)\t86%; charging; 0:38 remaining present: true
"""
FULL = """\
Now drawing from 'AC Power'
 -InternalBattery-0 (id=4063331)\t100%; charged; 0:00 remaining present: true
"""
HELD = """\
Now drawing from 'AC Power'
 -InternalBattery-0 (id=22806627)\t80%; AC attached; not charging present: true
"""
NO_ESTIMATE = """\
Now drawing from 'Battery Power'
 -InternalBattery-0 (id=22806627)\t9%; discharging; (no estimate) present: true
"""
DESKTOP = "Now drawing from 'AC Power'\n"
UPS = """\
Now drawing from 'AC Power'
 -Back-UPS ES 700G FW:871.O4 .I USB FW:O4 (id=2883584)\t100%; charged; 0:00 remaining present: true
"""


@pytest.mark.parametrize(
    ("text", "battery"),
    [
        (DISCHARGING, Battery(17, True)),
        (CHARGING, Battery(86, False)),
        (FULL, Battery(100, False)),
        (HELD, Battery(80, False)),
        (NO_ESTIMATE, Battery(9, True)),
        (DESKTOP, None),
        (UPS, None),
        ("", None),
    ],
)
def test_what_pmset_says(text: str, battery: Battery | None) -> None:
    assert parse_pmset(text) == battery


def supply(directory: Path, name: str, **values: str) -> None:
    (directory / name).mkdir(parents=True, exist_ok=True)
    for file, value in values.items():
        (directory / name / file).write_text(value + "\n")


def test_what_linux_says(tmp_path: Path) -> None:
    supply(tmp_path, "AC", type="Mains", online="0")
    supply(tmp_path, "hidpp_battery_0", type="Battery", scope="Device", capacity="5", status="Discharging")
    assert read_power_supply(tmp_path) is None
    supply(tmp_path, "BAT0", type="Battery", capacity="40", status="Not charging")
    assert read_power_supply(tmp_path) == Battery(40, False)
    supply(tmp_path, "BAT1", type="Battery", capacity="11", status="Discharging")
    assert read_power_supply(tmp_path) == Battery(26, True)
    assert read_power_supply(tmp_path / "missing") is None


@pytest.mark.skipif(platform.system() == "Darwin", reason="pmset is asked there")
def test_the_battery_of_a_machine_is_found_under_its_root(tmp_path: Path) -> None:
    assert read_battery(tmp_path) is None
    supply(tmp_path / "sys/class/power_supply", "BAT0", type="Battery", capacity="40", status="Charging")
    assert read_battery(tmp_path) == Battery(40, False)


def test_a_machine_without_a_battery_is_asked_once_and_one_that_nobody_watches_never() -> None:
    asked: list[int] = []

    def read() -> Battery | None:
        asked.append(1)
        return None

    watch = BatteryWatch(20, read, clock=iter(range(0, 10_000, 60)).__next__)
    assert [watch.is_low() for _ in range(5)] == [False] * 5
    assert len(asked) == 1
    assert BatteryWatch(None, read).is_low() is False
    assert len(asked) == 1


def test_low_is_below_the_lowest_percent_and_on_battery_looked_at_every_thirty_seconds() -> None:
    batteries = iter([Battery(20, True), Battery(19, True), Battery(19, False), None])
    now = [0.0]
    watch = BatteryWatch(20, batteries.__next__, clock=lambda: now[0])

    def at(time: float) -> bool:
        now[0] = time
        return watch.is_low()

    # 20 is not below 20; at 29 nobody looks; plugged in at 60; when nothing is read the last one counts.
    assert [at(0), at(29), at(30), at(59), at(60), at(90)] == [False, False, True, True, False, False]


def test_waiting_is_a_minute_or_until_something_is_asked() -> None:
    slept: list[float] = []
    watch = BatteryWatch(20, lambda: Battery(5, True), sleep=slept.append)
    watch.wait(lambda: False)
    assert slept == [1.0] * 60
    watch.wait(lambda: len(slept) == 63)
    assert len(slept) == 63


def test_sleep_is_held_off_on_macos_while_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "caffeinate"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked.part\nmv {tmp_path}/asked.part {tmp_path}/asked\n'
        f"mkfifo {tmp_path}/never 2>/dev/null\nexec cat {tmp_path}/never\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with awake():
        while not (tmp_path / "asked").exists():
            pass
    assert (tmp_path / "asked").read_text() == f"-i -w {os.getpid()}\n"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with awake():
        pass  # without the program the training goes on
    assert not (tmp_path / "empty").exists()
