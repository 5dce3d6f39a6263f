"""Disks that are full or closed, a git that is old or missing, and another encoding."""

from __future__ import annotations

import io
import locale
import os
import sys
from pathlib import Path

import pytest

from chrysalis_mlx.doctor.surroundings import cache, disk, encoding, git, hub_cache, space, terminal
from tests.doctor.test_frameworks import program


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A disk with so many bytes free."""
    block = 4096
    found = os.statvfs_result((block, block, 10**9, size // block, size // block, 10**6, 10**6, 10**6, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: found)


@pytest.mark.parametrize(
    ("size", "status", "words"),
    [
        (123_456_000_000, "ok", "123.5 GB free"),
        (9_000_000_000, "warning", "9.0 GB free: little for models"),
        (500_000_000, "problem", "0.5 GB free: too little"),
    ],
)
def test_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, status: str, words: str) -> None:
    free(monkeypatch, size)
    monkeypatch.chdir(tmp_path)
    found = disk()
    assert (found.status, words in found.found, str(tmp_path) in found.found) == (status, True, True)
    assert (found.fix is None) is (status == "ok")
    assert list(tmp_path.iterdir()) == []


def test_caches_that_are_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    free(monkeypatch, 20 * 10**9)
    monkeypatch.setenv("CHRYSALIS_CACHE", str(tmp_path / "a" / "b"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "c" / "hub"))
    assert cache().found == f"{tmp_path}/a/b: 20.0 GB free"
    assert hub_cache().found == f"{tmp_path}/c/hub: 20.0 GB free"
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    found = space("cache", tmp_path / "file", "the cache", "set X")
    assert (found.status, "the cache cannot be written: Not a directory" in found.found) == ("problem", True)
    assert found.fix == "make it writable, or set X"
    below = space("cache", tmp_path / "file" / "below", "the cache", "set X")
    assert f"cannot be written ({tmp_path / 'file'}): Not a directory" in below.found


def test_git_as_it_is_here() -> None:
    assert git(30.0).status == "ok"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo git version 2.29.1", "2.29.1, "),
        ("echo 'xcode-select: note: no developer tools were found' >&2; exit 1", "no developer tools were found"),
        ("sleep 60", "no answer within 1 seconds"),
        ("echo hello", "does not work"),
    ],
)
def test_a_git_that_is_old_or_does_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    program(tmp_path, "git", text)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    found = git(1.0)
    assert (found.status, words in found.found) == ("warning", True), found


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (git(1.0).status, git(1.0).found.startswith("there is no git: genome lock")) == ("warning", True)


def test_encodings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    monkeypatch.setattr(locale, "getencoding", lambda: "UTF-8")
    assert encoding().status == "ok"
    monkeypatch.setattr(locale, "getencoding", lambda: "ISO-8859-1")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    found = encoding()
    assert (found.status, found.found) == (
        "warning",
        "the locale is ISO-8859-1, standard output is ascii, not UTF-8",
    )


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert terminal().found == "standard output is not one: plain text"
    monkeypatch.setattr(sys, "stdout", Screen())
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    assert terminal().found == "xterm-256color, 120 columns, colours"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal().found == "xterm-256color, 120 columns, no colours (NO_COLOR)"
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "60")
    found = terminal()
    assert (found.status, found.found) == ("warning", "dumb, 60 columns, plain text: narrow for tables")
