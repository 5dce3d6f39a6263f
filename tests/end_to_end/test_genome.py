"""From a hub's README to a proved genome, over real git servers: lock, clone, kill -9 in the middle, resume, build."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chrysalis_mlx.genome.git.disk import scan
from chrysalis_mlx.genome.text.format import GenomeFile, read_genome
from tests.end_to_end.inputs import call, report
from tests.genome.git.servers import HttpServer, daemon, http, served
from tests.genome.repositories import make_repository, put

__all__ = ["daemon", "http", "served"]

FILES: dict[str, dict[str, str | bytes]] = {
    "hub": {"README.md": "# Hub\r\n", "ä/ö 1.md": "umlaut"},
    "core": {"a.py": "print(1)\n", "big.txt": "".join(f"line {n} of many\n" for n in range(40_000))},
    "ml-visual-engine": {"b.md": "\ufeffbeta\n", "photo.png": b"\x89PNG"},
}


@pytest.fixture
def place(tmp_path: Path, served: Path, http: HttpServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the genome.yaml of a hub; the owner's repositories are behind the server."""
    for name, files in FILES.items():
        make_repository(served / "owner" / name, files)
    rows = [f"| [{name}]({http.url('owner')}/{name}) | what it is |" for name in ("core", "asi-visual-engine", "hub")]
    put(tmp_path, "here/hub.md", "\n".join(["| Repository | |", "|---|---|", *rows, "", "and text"]))
    put(
        tmp_path,
        "here/genome.yaml",
        "sources: ['readme:hub.md#owner']\nfirst: [hub]\nlast: [asi-visual-engine]\n"
        "renamed: {asi-visual-engine: ml-visual-engine}\n",
    )
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def contents(folder: Path) -> list[tuple[bytes, str, str]]:
    """Every file beneath the clones but git's own, with mode and blob id."""
    entries = scan(folder).entries
    return [
        (item.path, item.mode, item.oid)
        for item in entries
        if b"/.git/" not in item.path and b".partial" not in item.path
    ]


def test_a_hub_over_http_killed_and_resumed(
    place: Path, http: HttpServer, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    locked = report(capfd, "genome", "lock")["lock"]
    assert [pin["name"] for pin in locked["repositories"]] == ["hub", "core", "ml-visual-engine"]
    assert locked["repositories"][2]["location"] == http.url("owner") + "/ml-visual-engine"

    http.hold = True  # every transfer stands still in its middle
    command = [sys.executable, "-m", "chrysalis_mlx", "genome", "clone", "--jobs", "1"]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=place)
    assert http.holding.wait(30)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not (place / "clones" / "hub").exists()
    http.released.set()
    http.hold = False

    outcomes = report(capfd, "genome", "clone")["repositories"]
    assert {item["outcome"] for item in outcomes} == {"cloned"}
    undisturbed = tmp_path / "undisturbed"
    assert call(capfd, "genome", "clone", "--clones", undisturbed)[0] == 0
    assert contents(place / "clones") == contents(undisturbed) != []
    assert report(capfd, "genome", "audit")["failed"] == []

    one = report(capfd, "genome", "build", "-o", "one.txt")
    two = report(capfd, "genome", "build", "-o", "two.txt", "--clones", undisturbed)
    assert one["sha256"] == two["sha256"]
    assert [file for file in read_genome(place / "one.txt") if file.path != "big.txt"] == [
        GenomeFile("hub", "README.md", "# Hub\r\n"),
        GenomeFile("hub", "ä/ö 1.md", "umlaut"),
        GenomeFile("core", "a.py", "print(1)\n"),
        GenomeFile("ml-visual-engine", "b.md", "\ufeffbeta\n"),
    ]
    assert call(capfd, "genome", "verify", "one.txt", "--lock", "genome.lock.json")[0] == 0


def test_behind_and_unreachable_are_words_and_no_failures(
    place: Path, http: HttpServer, served: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for command in ("lock", "clone"):
        assert call(capfd, "genome", command)[0] == 0
    make_repository(served / "owner" / "core", {"new.md": "new\n"})
    (served / "owner" / "hub").rename(served / "owner" / "gone")
    audited = report(capfd, "genome", "audit")
    assert {item["name"]: item["remote"] for item in audited["repositories"]} == {
        "hub": "unreachable",
        "core": "behind",
        "ml-visual-engine": "current",
    }
    assert audited["failed"] == []
    before = len(http.requests)
    assert call(capfd, "genome", "clone", "--offline")[0] == 0
    assert call(capfd, "genome", "audit", "--offline")[0] == 0
    assert len(http.requests) == before


def test_over_the_git_protocol(
    daemon: str, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make_repository(served / "core", FILES["core"])
    monkeypatch.chdir(tmp_path)
    built = report(capfd, "genome", "build", f"{daemon}/core", "-o", "out/g.txt")
    assert (built["files"], built["repositories"][0]["repository"]) == (2, "core")
