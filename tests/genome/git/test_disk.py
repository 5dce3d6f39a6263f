"""Files on disk as git would store them, and the tree that they make."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.command import TreeEntry, list_tree
from chrysalis_mlx.genome.git.disk import quoted, scan, tree_id
from tests.genome.repositories import git, make_repository, put

OID = {"sha1": "257cc5642cb1a054f08cc83f2d943e56fd3ebe99", "sha256": "1" * 64}
NAMES = ["a", "a.b", "a-b", "a b", "a0", "ab", "B", "ä", 'q"\\', "\n"]


def git_tree(root: Path, entries: list[TreeEntry]) -> str:
    """What git itself makes of these entries."""
    index = root / "an-index"
    index.unlink(missing_ok=True)
    lines = b"".join(b"%s %s\t%s\0" % (entry.mode.encode(), entry.oid.encode(), entry.path) for entry in entries)
    command, environment = ["git", "-C", str(root)], {**os.environ, "GIT_INDEX_FILE": str(index)}
    subprocess.run([*command, "update-index", "-z", "--index-info"], input=lines, env=environment, check=True)
    made = subprocess.run([*command, "write-tree", "--missing-ok"], env=environment, check=True, capture_output=True)
    return made.stdout.decode().strip()


@pytest.fixture(scope="module", params=["sha1", "sha256"])
def repository(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("repository")
    git(root, "init", "--quiet", f"--object-format={request.param}")
    return root, request.param


paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
modes = st.sampled_from(["100644", "100755", "120000", "160000"])


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(paths, modes, max_size=12))
def test_tree_id_is_that_of_git(repository: tuple[Path, str], chosen: dict[str, str]) -> None:
    root, algorithm = repository
    files = {path for path in chosen if not any(other.startswith(f"{path}/") for other in chosen)}
    entries = [TreeEntry(path.encode(), chosen[path], OID[algorithm], 0) for path in files]
    assert tree_id(entries, algorithm) == git_tree(root, entries)


def test_scan_of_a_work_tree_is_its_commit(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = dict.fromkeys(
        ["a", "a.b", "a-b/x", "a0/y/z", "empty", "dö/日本 語.md", 'q"\\\n'], "x\n"
    )
    put(tmp_path, "tool", "#!/bin/sh\n").chmod(0o755)
    put(tmp_path, "elsewhere/secret")
    (tmp_path / "link").symlink_to("a0/y")
    (tmp_path / "dangling").symlink_to("/nowhere")
    commit = make_repository(tmp_path, {**files, "empty": b"", "large": bytes(3_000_000)})
    found = scan(tmp_path)
    assert found.entries == list_tree(tmp_path, commit)
    assert found.skipped == []
    assert tree_id(found.entries) == git(tmp_path, "rev-parse", "HEAD^{tree}")
    assert tree_id(reversed(found.entries)) == tree_id(found.entries)
    kept = scan(tmp_path, without={b"elsewhere", b"a"}).entries
    assert {entry.path for entry in found.entries} - {entry.path for entry in kept} == {b"a", b"elsewhere/secret"}


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no file names that are not UTF-8")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    put(tmp_path, os.fsdecode(b"lat\xe9n/f\xff"), "text\n")
    assert [(entry.path, entry.size) for entry in scan(tmp_path).entries] == [(b"lat\xe9n/f\xff", 5)]


def test_plain_directory_skips_what_is_not_its_own(tmp_path: Path) -> None:
    for path in ("own.md", "sub/own.md", ".gitignore", "node_modules.md", ".git/config", "sub/.hg/store", "x/.svn/y"):
        put(tmp_path, path)
    for path in ("sub/node_modules/a.js", "env/pyvenv.cfg", "env/lib/m.py", "__pycache__/m.pyc", "x/__pycache__"):
        put(tmp_path, path)
    (tmp_path / "sub" / ".venv").symlink_to(tmp_path / "env")
    found = scan(tmp_path, plain=True)
    own = [b".gitignore", b"node_modules.md", b"own.md", b"sub/.venv", b"sub/own.md", b"x/__pycache__"]
    assert [entry.path for entry in found.entries] == own
    packages, control = "folder of installed packages", "belongs to version control"
    assert found.skipped == [
        (b".git", control),
        (b"__pycache__", packages),
        (b"env", packages),
        (b"sub/.hg", control),
        (b"sub/node_modules", packages),
        (b"x/.svn", control),
    ]


def test_links_are_not_followed_and_special_files_not_opened(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(tmp_path, "outside/secret.md")
    put(root, "own.md")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(".")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(root)  # the name of a socket must be short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        found = scan(root)
    assert [(entry.path, entry.mode) for entry in found.entries] == [
        (b"folder", "120000"),
        (b"loop", "120000"),
        (b"own.md", "100644"),
    ]
    assert found.skipped == [(b"pipe", "neither a file nor a folder"), (b"socket", "neither a file nor a folder")]


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may read everything, so root becomes nobody for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_what_cannot_be_read_is_told() -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies in a folder that is closed to others
        root = Path(name)
        root.chmod(0o755)
        put(root, "file").chmod(0)
        put(root, "folder/file")
        (root / "folder").chmod(0)
        with ordinary_user():
            found = scan(root)
        (root / "folder").chmod(0o755)
    assert found.entries == []
    assert found.skipped == [
        (b"file", "cannot be read: Permission denied"),
        (b"folder", "cannot be read: Permission denied"),
    ]


def test_no_folder(tmp_path: Path) -> None:
    for root in (tmp_path / "none", put(tmp_path, "file")):
        with pytest.raises(GenomeError, match="cannot be read"):
            scan(root)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"plain name.md", "plain name.md"),
        ("dö/日本.md".encode(), "dö/日本.md"),
        (b'a"b\\c\nd', '"a\\042b\\134c\\012d"'),
        (b"lat\xe9n", '"lat\\351n"'),
        ("turn\u202eed".encode(), '"turn\\342\\200\\256ed"'),
    ],
)
def test_quoted_path_is_one_line_that_git_reads(tmp_path: Path, path: bytes, text: str) -> None:
    assert quoted(path) == text
    git(tmp_path, "init", "--quiet")
    lines = f"100644 {OID['sha1']}\t{text}\n".encode()
    subprocess.run(["git", "-C", str(tmp_path), "update-index", "--index-info"], input=lines, check=True)
    listed = subprocess.run(["git", "-C", str(tmp_path), "ls-files", "-z"], check=True, capture_output=True)
    assert listed.stdout == path + b"\0"
