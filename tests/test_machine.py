"""What this computer is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chrysalis_mlx.machine import memory_bytes

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def linux(root: Path, group: str, **limits: str) -> Path:
    """proc/ and sys/ of a machine whose control groups have these limits; "" is the topmost."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"4:memory:/elsewhere\n0::/{group}\n")
    for path, text in limits.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root


def test_without_control_groups_it_is_all_of_it(tmp_path: Path) -> None:
    assert memory_bytes(tmp_path) == PHYSICAL > 0
    assert 0 < memory_bytes() <= PHYSICAL


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"memory.max": "1000", "a/memory.max": "max", "a/b/memory.max": "2000"}, 1000),
        ({"a/memory.max": "3000", "a/b/memory.max": "2000", "other/memory.max": "5"}, 2000),
        ({"memory/memory.limit_in_bytes": "4000"}, 4000),
        ({"a/b/memory.max": "max"}, PHYSICAL),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, PHYSICAL),
    ],
)
def test_the_lowest_limit_of_its_control_groups_counts(tmp_path: Path, limits: dict[str, str], expected: int) -> None:
    assert memory_bytes(linux(tmp_path, "a/b", **limits)) == expected
