"""Cloning exactly what is locked, from real servers, through cuts, kills and damage."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.clone import CloneOutcome, clone
from chrysalis_mlx.genome.git.remote import resolve
from chrysalis_mlx.genome.sources.pins import Lock, Pin
from chrysalis_mlx.progress import Bar
from tests.genome.git.servers import HttpServer, daemon, http, http_server, served
from tests.genome.repositories import git, make_repository, put

__all__ = ["daemon", "http", "served"]

NOISE = random.Random(0).randbytes(1 << 18)  # a pack of it is cut in the middle, not at its head
FILES: dict[str, str | bytes] = {
    "README.md": "# one\r\ntwo\r\n",
    "übung/日本語 — ß.txt": "\ufeffno newline",
    'odd "name"\t.txt': b"\xff\x00\xfe",
    "noise.bin": NOISE,
    ".gitattributes": "* text=auto eol=crlf\n*.txt working-tree-encoding=UTF-16 ident\n",
}


def remote(name: str, url: str, commit: str, ref: str | None = "refs/heads/main") -> Pin:
    return Pin(name, "remote", url, commit, ref=ref)


def make_raw(root: Path, files: dict[str, str | bytes], message: str = "first") -> str:
    """A commit whose blobs are these bytes, whatever its .gitattributes asks for."""
    if not root.exists():
        make_repository(root, {}, "empty")
        put(root, ".git/info/attributes", "* -text -ident !working-tree-encoding\n")
    return make_repository(root, files, message)


def outcomes(found: list[CloneOutcome]) -> list[tuple[str, str]]:
    return [(item.name, item.outcome) for item in found]


def on_disk(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if (path.is_file() or path.is_symlink()) and ".git" not in path.relative_to(root).parts
    }


def assert_whole(root: Path, commit: str, files: dict[str, str | bytes] = FILES) -> None:
    """The files are the blobs, HEAD is detached at the commit, and git finds nothing wrong or unfinished."""
    assert on_disk(root) == {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    assert (root / ".git" / "HEAD").read_text().strip() == commit
    assert git(root, "fsck", "--full", "--strict") == ""
    assert git(root, "status", "--porcelain") == ""
    leftovers = [path for path in (root / ".git").rglob("*") if path.suffix == ".lock" or path.name.startswith("tmp_")]
    assert leftovers == []


def lose(root: Path, oid: str) -> None:
    """Take one object out of a repository's store."""
    for pack in (root / ".git" / "objects" / "pack").glob("*.pack"):
        content = pack.read_bytes()
        for part in pack.parent.glob(f"{pack.stem}.*"):
            part.unlink()
        subprocess.run(["git", "-C", str(root), "unpack-objects", "-q"], input=content, check=True)
    (root / ".git" / "objects" / oid[:2] / oid[2:]).unlink()


def nothing_left(clones: Path) -> bool:
    return {path.name for path in (clones / ".partial").iterdir()} <= {"lock", "failed.json"}


@pytest.fixture
def origin(served: Path) -> list[str]:
    """Two commits of one repository."""
    commits = [make_raw(served / "origin", FILES)]
    return [*commits, make_repository(served / "origin", {"README.md": "# later\n", "new.md": "n\n"}, "second")]


LATER = {**FILES, "README.md": "# later\n", "new.md": "n\n"}


@pytest.mark.parametrize("transport", ["http 0", "http 2", "git", "file"])
def test_lock_then_clone(http: HttpServer, daemon: str, served: Path, tmp_path: Path, transport: str) -> None:
    http.protocol = int(transport[-1]) if transport.startswith("http") else 2
    url = {"git": f"{daemon}/", "file": f"file://{served}/"}.get(transport, http.url(""))
    pins = []
    for name in ("one", "zwei ö", "drei"):
        root = served / name
        make_raw(root, {**FILES, "name.md": name})
        (root / "run.sh").write_text("echo\n")
        (root / "run.sh").chmod(0o755)
        commit = make_repository(root, {}, "script")
        git(root, "tag", "-a", "v1", "-m", "one")
        make_repository(root, {"after.md": "after the tag\n"}, "after")
        place = url + name.replace(" ", "%20" if url.startswith("http") else " ")
        ref, found = resolve(place, "v1", retries=0)
        assert (ref, found) == ("refs/tags/v1", commit)
        pins.append(remote(name, place, found, ref))
    clones = tmp_path / "clones"
    found = clone(Lock(repositories=tuple(pins)), clones, retries=0)
    assert outcomes(found) == [("one", "cloned"), ("zwei ö", "cloned"), ("drei", "cloned")]
    for pin in pins:
        root = clones / pin.name
        assert_whole(root, pin.commit or "", {**FILES, "name.md": pin.name, "run.sh": "echo\n"})
        assert os.access(root / "run.sh", os.X_OK)
        assert not os.access(root / "README.md", os.X_OK)
        assert git(root, "config", "remote.origin.url") == pin.location
        assert git(root, "rev-list", "--count", "HEAD") == "1"
        assert not (root / ".git" / "hooks").exists()
    assert nothing_left(clones)
    again = clone(Lock(repositories=tuple(pins)), clones)
    assert outcomes(again) == [(pin.name, "present") for pin in pins]


@pytest.mark.parametrize("protocol", [0, 2])
def test_an_old_commit_from_a_server_that_gives_only_tips(
    http: HttpServer, origin: list[str], tmp_path: Path, protocol: int
) -> None:
    http.protocol = protocol
    for ref in ("refs/heads/main", "refs/heads/gone", None):
        clones = tmp_path / str(ref).replace("/", "-")
        lock = Lock(repositories=(remote("a", http.url("origin"), origin[0], ref),))
        assert clone(lock, clones, retries=0) == [CloneOutcome("a", "cloned")]
        assert_whole(clones / "a", origin[0])


def test_a_commit_that_is_not_there(http: HttpServer, daemon: str, origin: list[str], tmp_path: Path) -> None:
    missing = "1" * 40
    tree = git(http.root / "origin", "rev-parse", "HEAD^{tree}")
    pins = [remote(f"at {number}", url, missing) for number, url in enumerate((http.url("origin"), f"{daemon}/origin"))]
    found = clone(Lock(repositories=(*pins, remote("tree", http.url("origin"), tree))), tmp_path / "clones", retries=0)
    for outcome, pin in zip(found, pins, strict=False):
        assert outcome.outcome == "failed"
        assert f"the remote {pin.location} does not have the commit {missing}" in (outcome.reason or "")
    assert "is a tree and no commit" in (found[2].reason or "")
    assert nothing_left(tmp_path / "clones")


def test_history(http: HttpServer, origin: list[str], tmp_path: Path) -> None:
    pin, clones = remote("a", http.url("origin"), origin[1]), tmp_path / "clones"
    count = lambda: git(clones / "a", "rev-list", "--count", "HEAD")  # noqa: E731
    assert outcomes(clone(Lock(repositories=(pin,)), clones)) == [("a", "cloned")]
    assert count() == "1"
    assert outcomes(clone(Lock(repositories=(pin,), history=True), clones)) == [("a", "updated")]
    assert count() == "3"
    assert outcomes(clone(Lock(repositories=(pin,)), clones)) == [("a", "present")]
    assert_whole(clones / "a", origin[1], LATER)


def test_what_fails_does_not_keep_the_others(http: HttpServer, origin: list[str], tmp_path: Path) -> None:
    names = ("first", "gone", "last")
    pins = tuple(remote(name, http.url("gone" if name == "gone" else "origin"), origin[0]) for name in names)
    clones = tmp_path / "clones"
    put(clones, "last/mine.txt", "made by somebody else")
    moves: list[tuple[int, object]] = []

    class Watched:
        def update(self, advance: int = 1, **fields: object) -> None:
            moves.append((advance, fields["last"]))

    @contextmanager
    def watched(description: str, total: int, *, completed: int = 0, unit: str = "") -> Iterator[Bar]:
        assert (description, total, completed, unit) == ("cloning", 3, 0, "repository")
        yield Watched()

    found = clone(Lock(repositories=pins), clones, retries=0, progress=watched)
    assert outcomes(found) == [("first", "cloned"), ("gone", "failed"), ("last", "failed")]
    assert "not found" in (found[1].reason or "")
    assert "no clone of ours (move it away" in (found[2].reason or "")
    assert sorted(moves) == [(1, "first"), (1, "gone"), (1, "last")]
    assert on_disk(clones / "last") == {"mine.txt": b"made by somebody else"}
    assert outcomes(clone(Lock(repositories=pins), clones, only=["first"])) == [("first", "present")]
    with pytest.raises(GenomeError, match="no remote called nobody"):
        clone(Lock(repositories=pins), clones, only=["nobody"])


def test_trouble_that_passes(
    http: HttpServer, origin: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chrysalis_mlx.genome.git.remote.random.uniform", lambda low, high: 0.01)
    http.refuse, http.cut = [503, 503], 1
    lock = Lock(repositories=(remote("a", http.url("origin"), origin[0]),))
    assert clone(lock, tmp_path / "clones", retries=3) == [CloneOutcome("a", "cloned")]
    assert http.transfers == 2
    assert_whole(tmp_path / "clones" / "a", origin[0])
    http.refuse = [503] * 9
    found = clone(lock, tmp_path / "other", retries=1)
    assert "503" in (found[0].reason or "")
    assert len(http.refuse) == 7


def test_update_and_back(http: HttpServer, origin: list[str], tmp_path: Path) -> None:
    clones, url = tmp_path / "clones", http.url("origin")
    locks = [Lock(repositories=(remote("a", url, commit),)) for commit in origin]
    clone(locks[0], clones)
    put(clones / "a", "stray.txt")
    put(clones / "a", ".git/index.lock", "")
    assert outcomes(clone(locks[1], clones)) == [("a", "updated")]
    assert_whole(clones / "a", origin[1], LATER)
    transfers = http.transfers
    assert outcomes(clone(locks[0], clones)) == [("a", "updated")]
    assert_whole(clones / "a", origin[0])
    assert http.transfers == transfers  # what had been here was not fetched again


def test_a_failed_update_keeps_what_is_there(http: HttpServer, origin: list[str], tmp_path: Path) -> None:
    clones, url = tmp_path / "clones", http.url("origin")
    clone(Lock(repositories=(remote("a", url, origin[0]),)), clones)
    http.refuse = [500] * 9
    assert outcomes(clone(Lock(repositories=(remote("a", url, origin[1]),)), clones, retries=0)) == [("a", "failed")]
    assert_whole(clones / "a", origin[0])
    http.refuse = []
    assert outcomes(clone(Lock(repositories=(remote("a", url, origin[0]),)), clones)) == [("a", "present")]


def test_another_url_replaces_a_clone_of_ours(
    http: HttpServer, served: Path, origin: list[str], tmp_path: Path
) -> None:
    clones = tmp_path / "clones"
    other = make_repository(served / "other", {"o.md": "o\n"})
    clone(Lock(repositories=(remote("a", http.url("origin"), origin[0]),)), clones)
    assert outcomes(clone(Lock(repositories=(remote("a", http.url("other"), other),)), clones)) == [("a", "updated")]
    assert_whole(clones / "a", other, {"o.md": "o\n"})
    shutil.rmtree(clones / "a")
    (clones / "a").symlink_to(served / "other")
    found = clone(Lock(repositories=(remote("a", http.url("origin"), origin[0]),)), clones)
    assert outcomes(found) == [("a", "failed")]
    assert (served / "other" / "o.md").read_text() == "o\n"


def test_offline(http: HttpServer, origin: list[str], tmp_path: Path) -> None:
    clones, url = tmp_path / "clones", http.url("origin")
    here, away = remote("here", url, origin[0]), remote("away", url, origin[0])
    reason = f"the commit {origin[0]} is not here, and --offline"
    assert clone(Lock(repositories=(here,)), clones, offline=True) == [CloneOutcome("here", "failed", reason)]
    assert not clones.exists()
    clone(Lock(repositories=(here,)), clones)
    http.requests.clear()
    found = clone(Lock(repositories=(here, away)), clones, offline=True)
    assert found == [CloneOutcome("here", "present"), CloneOutcome("away", "failed", reason)]
    assert http.requests == []


@pytest.mark.parametrize("damage", ["commit", "tree", "HEAD", "marker", "moved", "config"])
def test_a_damaged_clone_is_brought_again(http: HttpServer, origin: list[str], tmp_path: Path, damage: str) -> None:
    # The clones lie in a checkout of the very same commit, which git would find in place of a damaged one.
    clones, commit = tmp_path / "around" / "clones", origin[0]
    git(tmp_path, "clone", "--quiet", str(http.root / "origin"), "around")
    git(tmp_path / "around", "checkout", "--quiet", "--detach", commit)
    lock = Lock(repositories=(remote("a", http.url("origin"), commit),))
    clone(lock, clones)
    root = clones / "a"
    if damage in ("commit", "tree"):
        lose(root, git(root, "rev-parse", f"HEAD^{{{damage}}}"))
    elif damage == "HEAD":
        (root / ".git" / "HEAD").unlink()
    elif damage == "marker":
        put(root, ".git/chrysalis.json", "{")
    elif damage == "config":
        put(root, ".git/config", "[core\n")
    else:
        git(root, "commit", "--quiet", "--allow-empty", "-m", "moved")
    assert outcomes(clone(lock, clones)) == [("a", "updated")]
    assert_whole(root, commit)


def test_a_seed_without_its_blobs_is_not_relied_on(http: HttpServer, origin: list[str], tmp_path: Path) -> None:
    clones, url = tmp_path / "clones", http.url("origin")
    clone(Lock(repositories=(remote("a", url, origin[0]),)), clones)
    lose(clones / "a", git(clones / "a", "rev-parse", "HEAD:noise.bin"))
    assert outcomes(clone(Lock(repositories=(remote("a", url, origin[1]),)), clones)) == [("a", "updated")]
    assert_whole(clones / "a", origin[1], LATER)


def test_no_secret_is_kept(http: HttpServer, origin: list[str], tmp_path: Path) -> None:
    url = http.url("origin").replace("//", "//me:hushhush@")
    lock = Lock(repositories=(remote("a", url, origin[0]), remote("b", url + "x", origin[0])))
    found = clone(lock, tmp_path / "clones", retries=0)
    assert outcomes(found) == [("a", "cloned"), ("b", "failed")]
    assert "hushhush" not in str(found)
    for path in (tmp_path / "clones").rglob("*"):
        assert not path.is_file() or b"hushhush" not in path.read_bytes()
    assert json.loads((tmp_path / "clones/a/.git/chrysalis.json").read_text()) == {
        "url": http.url("origin"),
        "commit": origin[0],
        "history": False,
    }


def test_fsck_ids(http: HttpServer, tmp_path: Path) -> None:
    root = http.root / "odd"
    root.mkdir()
    git(root, "init", "--quiet", "-b", "main")
    tree = git(root, "mktree", "--missing", "-z")
    about = f"tree {tree}\nauthor A <a@b> 1 +051800\ncommitter A <a@b> 1 +0000\n\nodd\n"
    put(root, "commit", about)
    commit = git(root, "hash-object", "-t", "commit", "-w", "--literally", str(root / "commit"))
    git(root, "update-ref", "refs/heads/main", commit)
    pin = remote("a", http.url("odd"), commit)
    found = clone(Lock(repositories=(pin,)), tmp_path / "clones", retries=0)
    assert "badTimezone" in (found[0].reason or "")
    ignoring = Lock(repositories=(pin,), fsck_ignore=("badTimezone",))
    assert outcomes(clone(ignoring, tmp_path / "clones", retries=0)) == [("a", "cloned")]
    with pytest.raises(GenomeError, match="is no fsck message id"):
        clone(Lock(fsck_ignore=("x=y -c",)), tmp_path / "clones")


def test_two_processes_exclude_each_other(http: HttpServer, origin: list[str], tmp_path: Path) -> None:
    lock, clones = Lock(repositories=(remote("a", http.url("origin"), origin[0]),)), tmp_path / "clones"
    http.hold = True
    with process(lock, clones) as first:
        assert http.holding.wait(10)
        with pytest.raises(GenomeError, match="another process is cloning into this folder"):
            clone(lock, clones)
        http.released.set()
        assert first.wait(10) == 0
    assert_whole(clones / "a", origin[0])


# --- kills ---

PROGRAM = """
import os, signal, sys
from pathlib import Path
from chrysalis_mlx.genome.git import children, clone
from chrysalis_mlx.genome.sources.pins import Lock
steps = 0
def counted(function):
    def step(*arguments, **options):
        global steps
        if steps == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
        return function(*arguments, **options)
    return step
children.Children.git = counted(children.Children.git)
clone.os.rename = counted(os.rename)
clone.write_json = counted(clone.write_json)
clone.shutil.rmtree = counted(clone.shutil.rmtree)
try:
    found = clone.clone(Lock.read(Path(sys.argv[1])), Path(sys.argv[2]), retries=0)
except KeyboardInterrupt:
    sys.exit(130)
sys.exit(any(item.outcome == "failed" for item in found))
"""


@contextmanager
def process(lock: Lock, clones: Path, steps: int = -1) -> Iterator[subprocess.Popen[bytes]]:
    """A real process that clones, and kills itself before its step number `steps`."""
    file = clones.parent / "genome.lock.json"
    lock.write(file)
    command = [sys.executable, "-c", PROGRAM, str(file), str(clones), str(steps)]
    running = subprocess.Popen(command, start_new_session=True)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def test_killed_in_the_middle_of_the_transfer(http: HttpServer, origin: list[str], tmp_path: Path) -> None:
    clones, url = tmp_path / "clones", http.url("origin")
    lock = Lock(repositories=tuple(remote(name, url, origin[0]) for name in ("a", "b", "c")))
    clone(lock, tmp_path / "undisturbed")
    clone(lock, clones, only=["a"])
    http.hold = True
    with process(lock, clones) as running:
        assert http.holding.wait(10)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    http.hold = False
    assert not (clones / "b").exists()
    found = clone(lock, clones)  # while git's orphans of the killed run are still there
    assert outcomes(found) == [("a", "present"), ("b", "cloned"), ("c", "cloned")]
    http.released.set()
    for name in ("a", "b", "c"):
        assert on_disk(clones / name) == on_disk(tmp_path / "undisturbed" / name)
        assert_whole(clones / name, origin[0])


def test_killed_before_any_step(served: Path, origin: list[str], tmp_path: Path) -> None:
    """An update is killed before each of its steps; the old or the new clone stands or is brought, always whole."""
    url, before = f"file://{served}/origin", tmp_path / "before"
    clone(Lock(repositories=(remote("a", url, origin[0]),)), before)
    lock = Lock(repositories=(remote("a", url, origin[1]),))
    seen: set[str] = set()
    for step in range(40):
        clones = tmp_path / f"at {step}" / "clones"
        shutil.copytree(before, clones)
        with process(lock, clones, step) as running:
            status = running.wait(20)
        expected = "cloned"  # killed between the two renames, with the new clone waiting in .partial
        if (clones / "a").exists():
            later = "new.md" in on_disk(clones / "a")
            assert_whole(clones / "a", origin[later], LATER if later else FILES)
            expected = "present" if later else "updated"
        assert outcomes(clone(lock, clones, retries=0)) == [("a", expected)]
        seen.add(expected)
        assert_whole(clones / "a", origin[1], LATER)
        assert nothing_left(clones)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert 12 < step < 39
    assert seen == {"updated", "cloned", "present"}


def test_what_was_whole_is_taken_over(http: HttpServer, origin: list[str], tmp_path: Path) -> None:
    clones = tmp_path / "clones"
    lock = Lock(repositories=(remote("a", http.url("origin"), origin[0]),))
    clone(lock, clones)
    (clones / ".partial" / "x").mkdir()
    (clones / "a").rename(clones / ".partial" / "x" / "a")
    assert outcomes(clone(lock, clones)) == [("a", "cloned")]
    assert http.transfers == 1
    assert_whole(clones / "a", origin[0])


def test_ctrl_c_ends_everything_at_once(http: HttpServer, origin: list[str], tmp_path: Path) -> None:
    http.hold = True
    lock = Lock(repositories=(remote("a", http.url("origin"), origin[0]),))
    with process(lock, tmp_path / "clones") as running:
        assert http.holding.wait(10)
        os.kill(running.pid, signal.SIGINT)
        assert running.wait(5) == 130
    assert http.abandoned.wait(5)  # git and its helpers are gone: nobody holds the connection
    assert nothing_left(tmp_path / "clones")


def test_the_offline_test_counts_connections(served: Path) -> None:
    with http_server(served) as server:
        subprocess.run(["git", "ls-remote", server.url("nothing")], capture_output=True)
        assert len(server.requests) == 1
