"""Every source at one commit: the lock, what it notes, and what it refuses."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from chrysalis_mlx.cli.genome.lock import lock as lock_command
from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.sources.find import load_config
from chrysalis_mlx.genome.sources.lock import LockReport, lock_sources, raise_failures
from chrysalis_mlx.genome.sources.pins import Failure, Lock, Pin
from tests.genome.repositories import git, make_repository, put

PIN = {"name": "x", "kind": "remote", "location": "u", "commit": "1" * 40}


def lock(tmp_path: Path, text: str, **options: object) -> LockReport:
    return lock_sources(load_config(put(tmp_path, "genome.yaml", text)), tmp_path, **options)  # type: ignore[arg-type]


def test_every_kind_is_pinned(tmp_path: Path) -> None:
    commit = make_repository(tmp_path / "origin", {"a.md": "a\n"})
    git(tmp_path / "origin", "tag", "-a", "v1", "-m", "one")
    here = make_repository(tmp_path / "checkout", {"docs/a.md": "a\n"})
    put(tmp_path, "plain/docs/a.md", "a\n")
    report = lock(
        tmp_path,
        f"""
        sources:
          - {{location: "file://{tmp_path}/origin", name: head}}
          - {{location: "file://{tmp_path}/origin#v1", name: tag, folder: docs}}
          - {{location: "file:///nowhere", name: exact, commit: "{"2" * 40}"}}
          - {{location: checkout/docs}}
          - plain
        """,
    )
    url = f"file://{tmp_path}/origin"
    tree = git(tmp_path / "checkout", "rev-parse", f"{here}^{{tree}}")
    assert report.lock.repositories == (
        Pin("docs", "checkout", str(tmp_path / "checkout"), here, ref="refs/heads/main", folder="docs"),
        Pin("exact", "remote", "file:///nowhere", "2" * 40),
        Pin("head", "remote", url, commit, ref="refs/heads/main"),
        Pin("plain", "directory", "plain", tree=tree),
        Pin("tag", "remote", url, commit, ref="refs/tags/v1", folder="docs"),
    )
    assert (report.failures, report.notes, report.lock.failed) == ({}, {}, ())


def test_the_file_says_what_the_lock_says(tmp_path: Path) -> None:
    make_repository(tmp_path / "ä", {"a.md": "a\n"})
    made = lock(tmp_path, "sources: [ä]\nhistory: true\nfiles: {table_rows: 7}\nfsck_ignore: [badTimezone]\n").lock
    made.write(tmp_path / "genome.lock.json")
    read = Lock.read(tmp_path / "genome.lock.json")
    assert read == made
    assert read.sha256 == made.sha256
    assert read.root(read.repositories[0], tmp_path / "clones") == tmp_path / "ä"
    assert (read.history, read.files.table_rows, read.fsck_ignore) == (True, 7, ("badTimezone",))


def test_what_is_not_committed_is_told(tmp_path: Path) -> None:
    root = tmp_path / "code"
    make_repository(root, {"a.md": "a\n", "b.md": "b\n", "touched.md": "t\n", "docs/c.md": "c\n"})
    assert lock(tmp_path, "sources: [code]").notes == {}
    put(root, "a.md", "changed\n")
    put(root, "touched.md", "t\n")  # a new time stamp, the same bytes
    (root / "b.md").unlink()
    put(root, "new.md")
    report = lock(tmp_path, "sources: [code, {location: code/docs, name: docs}]")
    assert report.notes == {"code": "2 changed and 1 new file(s) are not committed and stay out"}


def test_refs_of_a_checkout(tmp_path: Path) -> None:
    first = make_repository(tmp_path / "code", {"a.md": "1\n"})
    git(tmp_path / "code", "tag", "v1")
    second = make_repository(tmp_path / "code", {"a.md": "2\n"})
    git(tmp_path / "code", "checkout", "--quiet", "--detach")
    text = f"sources: [code, {{location: 'code#v1', name: old}}, {{location: code, name: exact, commit: {first}}}]"
    pins = lock(tmp_path, text).lock.repositories
    assert [(pin.name, pin.commit, pin.ref) for pin in pins] == [
        ("code", second, None),
        ("exact", first, None),
        ("old", first, None),
    ]


def test_failures_are_collected_and_kept(tmp_path: Path) -> None:
    make_repository(tmp_path / "good", {"a.md": "a\n"})
    git(tmp_path, "init", "--quiet", "unborn")
    text = f"sources: [good, unborn, 'good#nope', 'file://{tmp_path}/gone']\n".replace(
        "'good#nope'", "{location: 'good#nope', name: ref}"
    )
    report = lock(tmp_path, text, retries=0)
    assert [pin.name for pin in report.lock.repositories] == ["good"]
    assert sorted(report.failures) == ["gone", "ref", "unborn"]
    assert report.failures["unborn"].what == "the checkout has no commit yet"
    assert report.failures["ref"].what == "the checkout has no commit 'nope'"
    gone = report.lock.failed[0]
    assert gone.name == "gone"
    assert "does not appear to be a git repository" in gone.reason
    assert report.lock.failed[1] == Failure("ref", "good", "the checkout has no commit 'nope'")


def test_offline_keeps_what_was_locked(tmp_path: Path) -> None:
    first = make_repository(tmp_path / "origin", {"a.md": "1\n"})
    text = f"sources: ['file://{tmp_path}/origin']\n"
    before = lock(tmp_path, text).lock
    make_repository(tmp_path / "origin", {"a.md": "2\n"})
    kept = lock(tmp_path, text, previous=before, offline=True).lock
    assert kept.repositories[0].commit == first
    assert lock(tmp_path, text, previous=before).lock.repositories[0].commit != first
    unknown = lock(tmp_path, f"sources: ['file://{tmp_path}/other']\n", previous=before, offline=True)
    assert unknown.failures["other"].what == "it was never locked, and offline no remote is asked"


@pytest.mark.parametrize(
    ("ref", "now", "kept"),
    [
        ("", "", True),
        ("#main", "#main", True),
        ("#main", "#refs/heads/main", True),
        ("#heads/main", "#main", True),
        ("#v1", "#v1", True),
        ("#v1", "#tags/v1", True),
        ("#v1", "#v2", False),
        ("#v1", "", False),
        ("", "#v1", False),
    ],
)
def test_offline_keeps_a_pin_at_its_ref_alone(tmp_path: Path, ref: str, now: str, kept: bool) -> None:
    make_repository(tmp_path / "origin", {"a.md": "1\n"})
    git(tmp_path / "origin", "tag", "v1")
    git(tmp_path / "origin", "tag", "v2")
    before = lock(tmp_path, f"sources: ['file://{tmp_path}/origin{ref}']\n").lock
    report = lock(tmp_path, f"sources: ['file://{tmp_path}/origin{now}']\n", previous=before, offline=True)
    if kept:
        assert report.lock.repositories == before.repositories
    else:
        assert report.failures["origin"].what == "it was never locked at this ref, and offline no remote is asked"


def test_offline_forgets_a_commit_that_is_named_no_more(tmp_path: Path) -> None:
    url = "https://example.org/x"
    before = lock(tmp_path, f"sources: [{{location: {url}, commit: '{'1' * 40}'}}]", offline=True).lock
    assert before.repositories == (Pin("x", "remote", url, "1" * 40),)
    report = lock(tmp_path, f"sources: [{url}]", previous=before, offline=True)
    assert report.failures["x"].what == "it was never locked at this ref, and offline no remote is asked"


def test_what_took_the_place_of_a_file_is_not_read(tmp_path: Path) -> None:
    """Each of these would hang or fill the memory, were it opened or followed."""
    root = tmp_path / "code"
    make_repository(root, {"link.md": "l\n", "pipe.md": "p\n", "folder.md": "f\n", "same.md": "s\n"})
    (root / "old").symlink_to("same.md")
    make_repository(root, {})
    for name in ("link.md", "pipe.md", "folder.md", "old"):
        (root / name).unlink()
    (root / "link.md").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe.md")
    put(root, "folder.md/x.txt")
    (root / "old").symlink_to("same.md")  # a new time stamp, the same target
    assert lock(tmp_path, "sources: [code]").notes == {
        "code": "3 changed and 1 new file(s) are not committed and stay out"
    }


def test_failures_are_raised_with_their_own_advice() -> None:
    raise_failures({}, "sources cannot be locked")
    one, other = GenomeError("it is gone", where="here", fix="look for it"), GenomeError("it is odd")
    with pytest.raises(GenomeError) as caught:
        raise_failures({"a": one}, "sources cannot be locked")
    assert caught.value is one
    with pytest.raises(GenomeError) as caught:
        raise_failures({"a": one, "b": other}, "sources cannot be locked")
    assert caught.value.what == (
        "2 sources cannot be locked:\n  - a: it is gone\n    to do: look for it\n  - b: it is odd"
    )


def test_no_lock_is_written_into_a_directory_that_it_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "plain/genome.yaml", "sources: [{location: ., name: plain}]\n")
    make_repository(tmp_path / "code", {"genome.yaml": "sources: [.]\n"})
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(lock_command, ["--sources", "plain/genome.yaml"])
    assert isinstance(refused.exception, GenomeError)
    assert "inside of the source 'plain'" in str(refused.exception)
    assert not (tmp_path / "plain/genome.lock.json").exists()
    assert CliRunner().invoke(lock_command, ["--sources", "code/genome.yaml"]).exit_code == 0
    assert Lock.read(tmp_path / "code/genome.lock.json").repositories[0].kind == "checkout"


def test_a_directory_is_pinned_by_its_content(tmp_path: Path) -> None:
    put(tmp_path, "plain/a.md", "a\n")
    one = lock(tmp_path, "sources: [plain]").lock.repositories[0].tree
    put(tmp_path, "plain/.git/HEAD", "ref: refs/heads/main\n")
    put(tmp_path, "plain/node_modules/x.js")
    assert lock(tmp_path, "sources: [plain]").lock.repositories[0].tree == one
    put(tmp_path, "plain/a.md", "b\n")
    assert lock(tmp_path, "sources: [plain]").lock.repositories[0].tree != one


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "schema: 2 is not one of 1"),
        ({"base": "/"}, "base: unknown key"),
        ({"repositories": [{"name": "../x", "kind": "remote", "location": "u", "commit": "1" * 40}]}, "is no name"),
        ({"repositories": [{"name": "x", "kind": "remote", "location": "-u", "commit": "1" * 40}]}, "an option of git"),
        ({"repositories": [{"name": "x", "kind": "remote", "location": "u", "commit": "--exec"}]}, "no object's name"),
        ({"repositories": [{"name": "x", "kind": "directory", "location": "u"}]}, "x.tree: None"),
        ({"repositories": [{**PIN, "name": ".git"}]}, "'.git' is no name"),
        ({"repositories": [PIN, {**PIN, "name": "X"}]}, "2 repositories are called 'x'"),
        ({"repositories": [{**PIN, "location": "u\0"}]}, "holds a control character"),
        ({"repositories": [{**PIN, "location": "u\x1b[2J"}]}, "holds a control character"),
        ({"repositories": [{**PIN, "folder": "a\0"}]}, "holds a control character"),
        ({"repositories": [{**PIN, "ref": "refs/heads/a:refs/heads/b"}]}, "is no full name of a ref"),
        ({"repositories": [{**PIN, "folder": "a/../.."}]}, "leads out of the repository"),
        (
            {"repositories": [{"name": "x", "kind": "odd", "location": "u"}]},
            r"repositories\[0\].kind: 'odd' is not one",
        ),
        ({"files": {"tables": 1}}, "files.tables: unknown key; did you mean 'table'?"),
    ],
)
def test_a_lock_that_is_none(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = put(tmp_path, "genome.lock.json", json.dumps(Lock().as_dict() | change))
    with pytest.raises(GenomeError, match=words):
        Lock.read(path)


@pytest.mark.parametrize("content", ["", "[]", "{", "\ufeff{}"])
def test_a_damaged_lock(tmp_path: Path, content: str) -> None:
    with pytest.raises(GenomeError, match="lock"):
        Lock.read(put(tmp_path, "genome.lock.json", content))
    with pytest.raises(GenomeError, match="there is no lock"):
        Lock.read(tmp_path / "none.json")
