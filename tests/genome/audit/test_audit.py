"""The audit: what it proves of a clone, a checkout and a directory, and that no damage passes it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.audit.levels import audit
from chrysalis_mlx.genome.sources.pins import Lock, Pin
from tests.genome.audit.clones import PLAIN, UNUSUAL, World, audited, failed, feed, flip, make_clone
from tests.genome.audit.damages_store import CASES
from tests.genome.repositories import git, make_repository, put


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A remote of two commits and a clone of the second."""
    root = tmp_path_factory.mktemp("template")
    files: dict[str, str | bytes] = {path: f"text of {path}\n" for path in (*PLAIN, UNUSUAL, "dökumente/日本 語.md")}
    origin = root / "origin"
    put(origin, "tool.sh", "#!/bin/sh\n").chmod(0o755)
    (origin / "link").symlink_to("folder/inner.md")
    make_repository(origin, {**files, "early.md": "early\n", "folder/inner.md": "in\n", ".gitignore": "build/\n"})
    (origin / "early.md").unlink()
    make_repository(origin, {"windows.txt": "a\r\nb\r\n"})
    return make_clone(origin, root / "clones")


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    """A copy of the template to be damaged."""
    origin = Path(shutil.copytree(template.origin, tmp_path / "origin", symlinks=True))
    clone = Path(shutil.copytree(template.clone, tmp_path / "clones" / "r", symlinks=True))
    url = f"file://{origin}"
    git(clone, "config", "remote.origin.url", url)
    return World(origin, clone, Lock(repositories=(replace(template.lock.repositories[0], location=url),)))


@pytest.mark.parametrize("name", CASES)
def test_exactly_these_levels_see(world: World, name: str) -> None:
    damage, evidence, word = CASES[name]
    said = damage(world) or ""
    item = audited(world.lock, world.clone.parent)
    found = failed(item)
    assert (set(found), item.remote) == (set(evidence), word), found
    for level, sentences in evidence.items():
        for sentence in sentences.format(said).split("; "):
            assert sentence in found[level]


@pytest.mark.parametrize(
    "name",
    ["loose_object_cut_short", "loose_object_flipped", "loose_object_of_another_content", "pack_flipped_in_a_blob"],
)
def test_what_is_corrupt_is_not_missing(world: World, name: str) -> None:
    CASES[name][0](world)
    evidence = audited(world.lock, world.clone.parent, offline=True).verdicts[1].evidence
    assert {line.partition(":")[0] for line in evidence} == {"corrupt"}


def listing(root: Path) -> dict[str, tuple[int, int, str]]:
    paths = [path for path in root.rglob("*") if path.is_symlink() or not path.is_dir()]
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in paths
    }


def test_a_sound_clone_passes_and_is_left_alone(world: World) -> None:
    put(world.clone, PLAIN[0], (world.clone / PLAIN[0]).read_bytes())  # git's index would like to be refreshed
    before = listing(world.clone.parent)
    report = audit(world.lock, world.clone.parent)
    assert listing(world.clone.parent) == before
    commit = world.lock.repositories[0].commit
    assert json.loads(json.dumps(report.as_dict())) == {
        "failed": [],
        "repositories": [
            {
                "name": "r",
                "remote": "current",
                "verdicts": [
                    verdict(
                        "L1",
                        "commit",
                        f"HEAD is {commit}",
                        "current: refs/heads/main of the remote is the locked commit",
                    ),
                    verdict("L2", "objects", "every object is there and whole"),
                    verdict("L3", "files", "157 file(s)"),
                    verdict("L4", "tree", f"tree {git(world.origin, 'rev-parse', 'HEAD^{tree}')} of 157 file(s)"),
                ],
            }
        ],
    }


def verdict(level: str, name: str, *evidence: str) -> dict[str, object]:
    return {"level": level, "name": name, "status": "pass", "evidence": list(evidence)}


def test_what_a_remote_that_answers_says(world: World) -> None:
    def said(pin: Pin) -> tuple[str, str]:
        item = audited(Lock(repositories=(pin,)), world.clone.parent)
        assert failed(item) == {}
        return item.remote, item.verdicts[0].evidence[-1]

    (pin,) = world.lock.repositories
    exact = replace(pin, ref=None)
    assert said(exact) == ("current", "current: refs/heads/main of the remote is the locked commit")
    commit = make_repository(world.origin, {"later.md": "later\n"})
    elsewhere = f"refs/heads/main of the remote is at {commit}"
    assert said(pin) == ("behind", f"behind: the ref stands elsewhere: {elsewhere}")
    unpinned = f"behind: no ref was pinned, and the remote's own refs/heads/main is at {commit}"
    assert said(exact) == ("behind", unpinned)
    git(world.origin, "branch", "--move", "main", "trunk")
    assert said(pin) == ("behind", "behind: the remote has no branch or tag 'refs/heads/main'")
    world.origin.rename(world.origin.with_name("gone"))
    word, evidence = said(pin)
    assert (word, evidence.split(": ")[0]) == ("unreachable", "unreachable")


def test_dangling_objects_are_told_and_no_failure(world: World) -> None:
    feed(world.clone, b"of nobody", "hash-object", "-w", "--stdin")
    oid = hashlib.sha1(b"blob 9\0of nobody").hexdigest()
    assert audited(world.lock, world.clone.parent).verdicts[1].evidence == (f"dangling: blob {oid}",)


def test_levels_without_a_repository_are_not_applicable(world: World) -> None:
    item = audited(world.lock, world.clone.parent / "nowhere", offline=True)
    assert [verdict.status for verdict in item.verdicts] == ["fail", *["not applicable"] * 3]
    assert item.remote == "not asked"


def test_many_repositories_keep_their_order_and_only_some_are_asked_for(world: World) -> None:
    pin = world.lock.repositories[0]
    for name in ("b", "a"):
        shutil.copytree(world.clone, world.clone.parent / name, symlinks=True)
    flip(world.clone.parent / "b" / PLAIN[0], 0)
    lock = Lock(repositories=(pin, replace(pin, name="b"), replace(pin, name="a")))
    report = audit(lock, world.clone.parent, offline=True, jobs=2)
    assert [item.name for item in report.repositories] == ["r", "b", "a"]
    assert report.failed == ["b"]
    assert audit(lock, world.clone.parent, offline=True, only=["a", "r"]).failed == []
    with pytest.raises(GenomeError, match="no repository 'c'"):
        audit(lock, world.clone.parent, only=["a", "c"])


def test_sha256_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "-b", "main", "--object-format=sha256", "origin")
    assert len(make_repository(tmp_path / "origin", {"a.md": "a\n", "folder/b.md": "b\n"})) == 64
    world = make_clone(tmp_path / "origin", tmp_path / "clones")
    assert failed(audited(world.lock, world.clone.parent)) == {}
    flip(world.file("folder/b.md"), 0)
    found = failed(audited(world.lock, world.clone.parent))
    assert found["L3"] == "altered: folder/b.md"
    assert set(found) == {"L3", "L4"}


def test_submodule_is_not_applicable(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    make_repository(origin, {"a.md": "a\n"})
    git(origin, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},lib/other")
    git(origin, "commit", "--quiet", "-m", "submodule")
    world = make_clone(origin, tmp_path / "clones")
    item = audited(world.lock, world.clone.parent)
    assert failed(item) == {}
    assert item.verdicts[2].evidence == ("not applicable: lib/other is a submodule, another repository",)
    put(world.clone, "lib/other/smuggled.md")
    assert set(failed(audited(world.lock, world.clone.parent))) == {"L3", "L4"}


def test_trees_that_git_would_write_otherwise_pass_only_when_they_are_let_through(tmp_path: Path) -> None:
    make_repository(tmp_path / "origin", {"a.md": "a\n"})
    world = make_clone(tmp_path / "origin", tmp_path / "clones")
    blob = bytes.fromhex(git(world.clone, "rev-parse", "HEAD:a.md"))
    feed(world.clone, b"0100644 a.md\0" + blob, "hash-object", "-t", "tree", "-w", "--literally", "--stdin")
    tree = hashlib.sha1(b"tree 33\0" + b"0100644 a.md\0" + blob).hexdigest()
    commit = git(world.clone, "commit-tree", "-m", "old", tree)
    git(world.clone, "update-ref", "--no-deref", "HEAD", commit)
    lock = Lock(repositories=(replace(world.lock.repositories[0], commit=commit),))
    found = failed(audited(lock, world.clone.parent, offline=True))
    assert set(found) == {"L2", "L4"}
    assert found["L2"].startswith(f"message: error in tree {tree}: zeroPaddedFilemode")
    allowed = replace(lock, fsck_ignore=("zeroPaddedFilemode",))
    assert failed(audited(allowed, world.clone.parent, offline=True)) == {}
    flip(world.file("a.md"), 0)
    assert set(failed(audited(allowed, world.clone.parent, offline=True))) == {"L3", "L4"}
