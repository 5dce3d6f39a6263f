"""The audit of what is a person's own: a checkout as it is used, and a plain directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chrysalis_mlx.genome.audit.levels import audit
from chrysalis_mlx.genome.git.disk import scan, tree_id
from chrysalis_mlx.genome.sources.pins import Lock, Pin
from tests.genome.audit.clones import audited, failed, flip
from tests.genome.repositories import git, make_repository, put


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


def lock_of(checkout: Path, **pin: str) -> Lock:
    commit = git(checkout, "rev-parse", "HEAD")
    return Lock(repositories=(Pin("own", "checkout", str(checkout), commit=commit, **pin),))


def test_checkout_with_converted_line_ends_passes(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "a.md": "one\ntwo\n",
        'odd "n\n".md': "x\ny\n",
        "$.md": "$Id$\nz\n",
        "raw.bin": b"\0\n",
    }
    make_repository(
        tmp_path / "origin", {**files, ".gitattributes": "$.md ident\nwide.txt working-tree-encoding=UTF-16LE\n"}
    )
    put(tmp_path, "origin/wide.txt", "wide\n".encode("utf-16-le"))
    make_repository(tmp_path / "origin", {})
    checkout = tmp_path / "checkout"
    git(tmp_path, "clone", "--quiet", "-c", "core.autocrlf=true", str(tmp_path / "origin"), str(checkout))
    assert (checkout / "a.md").read_bytes() == b"one\r\ntwo\r\n"
    assert (checkout / "$.md").read_bytes().startswith(b"$Id: ")
    item = audited(lock_of(checkout))
    assert failed(item) == {}
    assert item.remote == "not asked"
    flip(checkout / "a.md", 0)
    assert failed(audited(lock_of(checkout)))["L3"] == "altered: a.md"


@pytest.mark.parametrize("name", ["evil", "unset", "unspecified", "set"])
@pytest.mark.parametrize("kind", ["clean", "process"])
def test_no_filter_of_a_checkout_is_run(tmp_path: Path, name: str, kind: str) -> None:
    checkout, witness = tmp_path / "checkout", tmp_path / "witness"
    make_repository(checkout, {"a.md": "one\n", "b.md": "two\n"})
    put(checkout, ".gitattributes", f"* filter={name}\n")
    git(checkout, "config", f"filter.{name}.{kind}", f"touch '{witness}'; cat")
    git(checkout, "config", f"filter.{name}.required", "true")
    flip(checkout / "a.md", 0)
    found = failed(audited(lock_of(checkout)))
    assert set(found) == {"L3", "L4"}
    assert "altered: a.md" in found["L3"]
    assert not witness.exists()
    if name == "evil":
        assert "altered: a.md (its filter 'evil' is not run)" in found["L3"]


def test_what_a_checkout_ignores_does_not_count_and_the_rest_does(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    put(checkout, ".gitignore", "build/\n*.log\nkept/*\n")
    put(checkout, "kept/tracked.md")
    make_repository(checkout, {"a.md": "one\n", "src/b.md": "two\n"})
    git(checkout, "add", "--force", "kept/tracked.md")
    make_repository(checkout, {})
    for path in ("build/deep/out.o", "src/run.log", "kept/ignored.md"):
        put(checkout, path)
    os.mkfifo(checkout / "pipe")
    assert failed(audited(lock_of(checkout))) == {}
    put(checkout, "src/new.md")
    flip(checkout / "kept/tracked.md", 0)
    found = failed(audited(lock_of(checkout)))
    assert found["L3"] == "altered: kept/tracked.md; untracked: src/new.md"
    assert found["L4"].endswith("altered: kept/tracked.md; not in the commit: src/new.md")
    assert set(found) == {"L3", "L4"}


def test_submodule_that_is_checked_out_is_another_repository(tmp_path: Path) -> None:
    library, checkout = tmp_path / "library", tmp_path / "checkout"
    make_repository(library, {"x.md": "x\n"})
    make_repository(checkout, {"a.md": "one\n"})
    git(checkout, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "lib")
    make_repository(checkout, {})
    put(checkout, "lib/changed.md")
    item = audited(lock_of(checkout))
    assert failed(item) == {}
    assert "not applicable: lib is a submodule, another repository" in item.verdicts[2].evidence


def test_modes_count_in_a_checkout_where_its_settings_say_so(tmp_path: Path) -> None:
    make_repository(tmp_path, {"a.md": "one\n"})
    (tmp_path / "a.md").chmod(0o755)
    mode = "mode changed: a.md is 100755 and should be 100644"
    assert failed(audited(lock_of(tmp_path)))["L3"] == mode
    git(tmp_path, "config", "core.fileMode", "false")
    assert failed(audited(lock_of(tmp_path))) == {}


def test_what_a_sparse_checkout_leaves_out_is_not_applicable(tmp_path: Path) -> None:
    commit = make_repository(
        tmp_path, {"a.md": "one\n", "in/b.md": "two\n", "out/c.md": "three\n", "out/d.md": "four\n"}
    )
    git(tmp_path, "sparse-checkout", "set", "--no-cone", "in/", "/a.md")
    assert not (tmp_path / "out").exists()
    item = audited(lock_of(tmp_path))
    assert failed(item) == {}
    left_out = tuple(f"not applicable: out/{name}.md is left out by a sparse checkout" for name in "cd")
    assert item.verdicts[2].evidence == left_out
    tree = git(tmp_path, "rev-parse", f"{commit}^{{tree}}")
    assert item.verdicts[3].evidence == (f"tree {tree} of 2 file(s) and 2 that a sparse checkout leaves out",)
    put(tmp_path, "out/c.md", "another\n")
    (tmp_path / "in/b.md").unlink()
    found = failed(audited(lock_of(tmp_path)))
    assert set(found) == {"L3", "L4"}
    assert found["L3"] == f"deleted: in/b.md; altered: out/c.md; {left_out[1]}"
    assert found["L4"].endswith("deleted: in/b.md; altered: out/c.md")


def test_checkout_that_moved_on(tmp_path: Path) -> None:
    make_repository(tmp_path, {"a.md": "one\n"})
    lock = lock_of(tmp_path, folder="elsewhere")
    commit = make_repository(tmp_path, {"a.md": "two\n"})
    found = failed(audited(lock))
    assert found["L1"].startswith(f"HEAD is {commit} and should be ")
    assert found["L4"].endswith("altered: a.md")
    assert set(found) == {"L1", "L4"}


def test_plain_directory(tmp_path: Path) -> None:
    put(tmp_path, "notes/a.md")
    put(tmp_path, "notes/node_modules/x.js")
    tree = tree_id(scan(tmp_path / "notes", plain=True).entries)
    pin = Pin("notes", "directory", ".", tree=tree, folder="notes")
    lock = Lock(repositories=(pin,)).at(tmp_path)
    (item,) = audit(lock, tmp_path / "clones").repositories
    assert [verdict.status for verdict in item.verdicts] == [*["not applicable"] * 3, "pass"]
    assert (item.remote, item.verdicts[3].evidence) == ("not asked", (f"tree {tree} of 1 file(s)",))
    put(tmp_path, "notes/node_modules/y.js")
    assert failed(audited(lock)) == {}
    put(tmp_path, "notes/b.md")
    assert f"the locked tree is {tree}, that on disk is " in failed(audited(lock))["L4"]
    for path in sorted((tmp_path / "notes").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "notes").rmdir()
    assert "the folder cannot be read" in failed(audited(lock))["L4"]
