"""A laptop's sleep and battery: the one is held off while training, the other is watched."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

READ_EVERY = 30.0  # seconds between two looks at the battery while training
WAIT = 60  # seconds between two looks while waiting for it


@dataclass(frozen=True)
class Battery:
    """How full it is, 0 to 100, and whether the machine runs on it."""

    percent: int
    in_use: bool


def parse_pmset(text: str) -> Battery | None:
    """What `pmset -g batt` of macOS says; None where there is no battery."""
    percent = re.search(r"InternalBattery.*?\b(\d{1,3})%", text)
    return Battery(int(percent[1]), "'Battery Power'" in text) if percent else None


def read_power_supply(directory: Path) -> Battery | None:
    """What Linux says under /sys/class/power_supply; of several batteries their mean.

    Batteries of mice and headsets (`scope` is Device) do not count. The machine runs on its batteries when one of them
    discharges.
    """
    levels, in_use = [], False
    for supply in sorted(directory.glob("*")):
        capacity = _read(supply / "capacity")
        if _read(supply / "type") == "Battery" and _read(supply / "scope") != "Device" and capacity.isdecimal():
            levels.append(int(capacity))
            in_use |= _read(supply / "status") == "Discharging"
    return Battery(round(sum(levels) / len(levels)), in_use) if levels else None


def read_battery(root: Path = Path("/")) -> Battery | None:
    """The machine's battery now; None on a desktop.

    Args:
        root: where sys/ is.
    """
    if platform.system() != "Darwin":
        return read_power_supply(root / "sys/class/power_supply")
    try:
        done = subprocess.run(["pmset", "-g", "batt"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_pmset(done.stdout)


class BatteryWatch:
    """Tells when the battery is too low to train on. It costs nothing where there is no battery.

    Args:
        lowest: percent; None: never too low.
        read: gives the battery.
        clock, sleep: in seconds.
    """

    def __init__(
        self,
        lowest: int | None,
        read: Callable[[], Battery | None] = read_battery,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._lowest, self._read, self._clock, self._sleep = lowest, read, clock, sleep
        self.battery = read() if lowest is not None else None
        self._seen = clock()

    def is_low(self) -> bool:
        """Whether the machine runs on a battery below the lowest percent."""
        if self.battery is None or self._lowest is None:
            return False
        if self._clock() - self._seen >= READ_EVERY:
            self.battery, self._seen = self._read() or self.battery, self._clock()
        return self.battery.in_use and self.battery.percent < self._lowest

    def wait(self, until: Callable[[], bool]) -> None:
        """Sleep until the next look is due, or something is asked for."""
        for _ in range(WAIT):
            if until():
                return
            self._sleep(1.0)


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Hold off the idle sleep of macOS while the block runs; elsewhere do nothing."""
    if platform.system() != "Darwin":
        yield
        return
    try:
        # -w: it ends with this process, also when that is killed.
        process = subprocess.Popen(["caffeinate", "-i", "-w", str(os.getpid())])
    except OSError:
        yield
        return
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
