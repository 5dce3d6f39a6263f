"""Repositories that mean harm: nothing of them is run, and nothing is written outside of their clone."""

import subprocess
from pathlib import Path

import pytest

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.clone import CloneOutcome, clone
from chrysalis_mlx.genome.git.remote import resolve
from chrysalis_mlx.genome.sources.pins import Lock, Pin
from tests.genome.git.servers import HttpServer, daemon, http, served
from tests.genome.repositories import git, make_repository, put

__all__ = ["daemon", "http", "served"]


class Trap:
    """A place with a canary that no clone may wake, and a listing of everything around the clones."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clones, self.canary = folder, folder / "clones", folder / "canary"
        self.script = put(folder, "wake", f"#!/bin/sh\ntouch '{self.canary}'\ncat\n")
        self.script.chmod(0o755)

    def listing(self) -> dict[str, bytes]:
        """Everything but the clones themselves."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes() if path.is_file() else b""
            for path in self.folder.rglob("*")
            if not path.is_relative_to(self.clones / "a") and not path.is_relative_to(self.clones / ".partial")
        }

    def clone(self, url: str, commit: str, ref: str | None = "refs/heads/main", **more: object) -> CloneOutcome:
        self.clones.mkdir(exist_ok=True)
        (self.clones / ".partial").mkdir(exist_ok=True)
        before = self.listing()
        lock = Lock(repositories=(Pin("a", "remote", url, commit, ref=ref),), **more)  # type: ignore[arg-type]
        (outcome,) = clone(lock, self.clones, retries=0)
        assert not self.canary.exists()
        assert self.listing() == before
        assert (self.clones / "a").exists() == (outcome.outcome != "failed")
        return outcome

    def files(self) -> dict[str, bytes]:
        root = self.clones / "a"
        found = [path for path in root.rglob("*") if ".git" not in path.relative_to(root).parts and not path.is_dir()]
        assert not any(path.is_symlink() for path in found)
        return {str(path.relative_to(root)): path.read_bytes() for path in found}


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path)


def write_object(root: Path, kind: str, content: bytes) -> str:
    """An object as it stands here, also one that git would refuse to make."""
    command = ["git", "-C", str(root), "hash-object", "-t", kind, "-w", "--stdin", "--literally"]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout.decode().strip()


def commit_tree(root: Path, entries: list[tuple[str, str, str]]) -> str:
    """A repository whose branch main has these entries (mode, name, object) and no check of them."""
    if not root.exists():
        make_repository(root, {})
    tree = write_object(
        root, "tree", b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(oid) for mode, name, oid in entries)
    )
    about = f"tree {tree}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n"
    commit = write_object(root, "commit", about.encode())
    git(root, "update-ref", "refs/heads/main", commit)
    return commit


NAMES = ["..", ".", ".git", ".GIT", "git~1", ".g\u200cit", "a/../b", "../up.txt", "/etc/x", "a/b"]
LET_THROUGH = ("hasDot", "hasDotdot", "hasDotgit", "fullPathname", "treeNotSorted", "duplicateEntries")


@pytest.mark.parametrize("ignore", [(), LET_THROUGH], ids=["fsck", "lenient"])
@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_out(http: HttpServer, trap: Trap, name: str, kind: str, ignore: tuple[str, ...]) -> None:
    root = http.root / "evil"
    make_repository(root, {})
    blob = write_object(root, "blob", b"evil\n")
    inner = write_object(root, "tree", b"100644 config\0" + bytes.fromhex(blob))
    commit = commit_tree(root, [("100644", name, blob) if kind == "file" else ("40000", name, inner)])
    outcome = trap.clone(http.url("evil"), commit, fsck_ignore=ignore)
    # A slash in one name makes no way out; where the check is off, it is a folder like any other.
    assert outcome.outcome == ("cloned" if ignore and name == "a/b" else "failed")
    if not ignore:
        assert "fsck error" in (outcome.reason or "")


@pytest.mark.parametrize("ignore", [(), LET_THROUGH], ids=["fsck", "lenient"])
def test_a_file_behind_a_link(http: HttpServer, trap: Trap, ignore: tuple[str, ...]) -> None:
    root = http.root / "evil"
    make_repository(root, {})
    out = trap.folder / "out"
    out.mkdir()
    link, blob = write_object(root, "blob", str(out).encode()), write_object(root, "blob", b"evil\n")
    inner = write_object(root, "tree", b"100644 file\0" + bytes.fromhex(blob))
    commit = commit_tree(root, [("120000", "link", link), ("40000", "link", inner)])
    outcome = trap.clone(http.url("evil"), commit, fsck_ignore=ignore)
    assert list(out.iterdir()) == []
    assert outcome.outcome == "failed" or trap.files().keys() <= {"link", "link/file"}


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../canary", ".git/hooks/post-checkout", "."])
def test_a_link_is_a_small_file(http: HttpServer, trap: Trap, target: str) -> None:
    root = http.root / "evil"
    make_repository(root, {})
    commit = commit_tree(root, [("120000", "link", write_object(root, "blob", target.encode()))])
    assert trap.clone(http.url("evil"), commit).outcome == "cloned"
    assert trap.files() == {"link": target.encode()}
    assert git(trap.clones / "a", "status", "--porcelain") == ""


def test_hooks_and_settings_of_the_source(trap: Trap, served: Path) -> None:
    root = served / "evil"
    commit = make_repository(root, {"a.md": "a\n", ".githooks/post-checkout": trap.script.read_text()})
    for hook in ("post-checkout", "post-merge", "reference-transaction", "pre-auto-gc", "post-index-change"):
        put(root, f".git/hooks/{hook}", trap.script.read_text()).chmod(0o755)
    for name in ("core.fsmonitor", "core.sshCommand", "core.gitProxy", "uploadpack.packObjectsHook", "core.pager"):
        git(root, "config", name, str(trap.script))
    git(root, "config", "core.hooksPath", ".githooks")
    assert trap.clone(f"file://{root}", commit).outcome == "cloned"
    assert not (trap.clones / "a" / ".git" / "hooks").exists()


def test_a_template_with_hooks(trap: Trap, http: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = make_repository(http.root / "good", {"a.md": "a\n"})
    bad = commit_tree(http.root / "bad", [("40000", "..", git(http.root / "good", "rev-parse", "HEAD^{tree}"))])
    git(http.root / "bad", "fetch", "--quiet", str(http.root / "good"), "main")
    put(trap.folder, "template/hooks/post-checkout", trap.script.read_text()).chmod(0o755)
    settings = put(
        trap.folder,
        "gitconfig",
        f"[init]\n\ttemplateDir = {trap.folder}/template\n[core]\n\thooksPath = {trap.folder}/template/hooks\n"
        f"\tfsmonitor = {trap.script}\n\tattributesFile = {trap.folder}/attributes\n\tautocrlf = true\n"
        f'[filter "wake"]\n\tsmudge = {trap.script}\n\trequired = true\n[fetch]\n\tfsckObjects = false\n'
        '[submodule]\n\trecurse = true\n[protocol "ext"]\n\tallow = always\n',
    )
    put(trap.folder, "attributes", "* filter=wake text eol=crlf\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(trap.folder / "template"))
    assert trap.clone(http.url("good"), commit).outcome == "cloned"
    assert trap.files() == {"a.md": b"a\n"}
    (trap.clones / "a").rename(trap.folder / "kept")
    assert "fsck error" in (trap.clone(http.url("bad"), bad).reason or "")
    assert "transport 'ext' not allowed" in (trap.clone(f"ext::{trap.script}", commit).reason or "")


def test_a_source_that_lacks_objects_fetches_nothing_itself(trap: Trap, served: Path) -> None:
    """A partial clone as a source: upload-pack must not run what the source's own remote names."""
    root = served / "evil"
    commit = make_repository(root, {"a.md": "a\n"})
    blob = git(root, "rev-parse", "HEAD:a.md")
    (root / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    git(root, "config", "extensions.partialClone", "wake")
    git(root, "config", "remote.wake.promisor", "true")
    git(root, "config", "remote.wake.url", f"file://{root}")
    git(root, "config", "remote.wake.uploadpack", str(trap.script))
    assert trap.clone(f"file://{root}", commit).outcome == "failed"


@pytest.mark.parametrize("url", ["ext::{script}", "-u{script}", "../up", "file:///etc"])
def test_submodules_stay_out(http: HttpServer, trap: Trap, url: str) -> None:
    root = http.root / "evil"
    make_repository(root, {})
    told = f'[submodule "x"]\n\tpath = x\n\turl = {url.format(script=trap.script)}\n\tupdate = !{trap.script}\n'
    blob = write_object(root, "blob", told.encode())
    commit = commit_tree(root, [("100644", ".gitmodules", blob), ("160000", "x", "1" * 40)])
    outcome = trap.clone(http.url("evil"), commit)
    if outcome.outcome == "cloned":
        assert trap.files() == {".gitmodules": told.encode()}
        assert list((trap.clones / "a" / "x").iterdir()) == []
        assert not (trap.clones / "a" / ".git" / "modules").exists()
    else:
        assert "gitmodules" in (outcome.reason or "")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.mark.parametrize("name", ["lfs", "wake"])
def test_filters_and_conversions(http: HttpServer, trap: Trap, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Also when the user has such a filter set up: a blob's bytes are what lies on disk."""
    settings = f'[filter "{name}"]\n\tsmudge = {trap.script}\n\tclean = {trap.script}\n\tprocess = {trap.script}\n'
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(put(trap.folder, "gitconfig", settings + "\trequired = true\n")))
    root = http.root / "evil"
    make_repository(root, {})
    files = {
        ".gitattributes": f"[attr]evil filter={name}\n*.bin evil\n* text=auto eol=crlf ident filter={name}\n".encode(),
        "big.bin": POINTER,
        "crlf.txt": b"a\r\nb\n",
        "id.txt": b"$Id$\n",
        "sub/.gitattributes": f"* filter={name} text working-tree-encoding=UTF-16\n".encode(),
        "sub/x.txt": b"x\n",
    }
    blobs = {path: write_object(root, "blob", content) for path, content in files.items()}
    entries = [("100644", path, oid) for path, oid in blobs.items() if "/" not in path]
    inner = b"".join(
        b"100644 %s\0" % path[4:].encode() + bytes.fromhex(oid) for path, oid in blobs.items() if "/" in path
    )
    commit = commit_tree(root, [*entries, ("40000", "sub", write_object(root, "tree", inner))])
    assert trap.clone(http.url("evil"), commit).outcome == "cloned"
    assert trap.files() == files


def test_names_that_look_like_options(http: HttpServer, trap: Trap) -> None:
    files: dict[str, str | bytes] = {"-rf": "1", "--upload-pack=touch canary": "2", "-c/core.fsmonitor=x": "3"}
    commit = make_repository(http.root / "-evil", files)
    git(http.root / "-evil", "update-ref", "refs/heads/--upload-pack=wake", commit)
    ref, found = resolve(http.url("-evil"), "--upload-pack=wake", retries=0)
    assert (ref, found) == ("refs/heads/--upload-pack=wake", commit)
    http.protocol = 0
    old, _ = commit, make_repository(http.root / "-evil", {"new": "n"})
    assert trap.clone(http.url("-evil"), old, ref).outcome == "cloned"
    assert trap.files() == {str(path): str(text).encode() for path, text in files.items()}
    lock = Lock(repositories=(Pin("-rf", "remote", http.url("-evil"), commit),))
    assert clone(lock, trap.clones) == [CloneOutcome("-rf", "cloned")]


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("--upload-pack=wake", "no name of a ref"),
        ("refs/heads/main:refs/heads/evil", "no name of a ref"),
        ("+refs/heads/*", "no name of a ref"),
        ("^refs/heads/main", "no name of a ref"),
        ("refs/heads/ma\nin", "no name of a ref"),
    ],
)
def test_a_lock_with_an_evil_ref(http: HttpServer, trap: Trap, ref: str, words: str) -> None:
    make_repository(http.root / "good", {"a.md": "a\n"})
    assert words in (trap.clone(http.url("good"), "1" * 40, ref).reason or "")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ext::{script}", "transport 'ext' not allowed"),
        ("ext::sh -c {script}% >&2", "transport 'ext' not allowed"),
        ("fd::7", "transport 'fd' not allowed"),
        ("--upload-pack={script}", "blocked"),
        ("-u{script}", "blocked"),
        ("ssh://-oProxyCommand={script}/x", "blocked"),
        ("-oProxyCommand={script}:x", "blocked"),
        ("ftp://127.0.0.1:1/x", "transport 'ftp' not allowed"),
        ("wake::x", "transport 'wake' not allowed"),
    ],
)
def test_evil_urls(trap: Trap, monkeypatch: pytest.MonkeyPatch, url: str, words: str) -> None:
    monkeypatch.chdir(trap.folder)
    url = url.format(script=trap.script)
    outcome = trap.clone(url, "1" * 40)
    assert outcome.outcome == "failed"
    assert words in (outcome.reason or "")
    with pytest.raises(GenomeError, match=words):
        resolve(url, None, retries=0)
    assert not trap.canary.exists()


@pytest.mark.parametrize("target", ["file://{folder}/private", "ext::{script}", "ftp://127.0.0.1:1/x"])
def test_redirects(http: HttpServer, trap: Trap, target: str) -> None:
    commit = make_repository(trap.folder / "private", {"secret.md": "s\n"})
    http.redirect = target.format(folder=trap.folder, script=trap.script)
    assert trap.clone(http.url("evil"), commit).outcome == "failed"
    assert http.requests


def test_alternates_of_the_source(trap: Trap, http: HttpServer) -> None:
    private = trap.folder / "private"
    secret = make_repository(private, {"secret.md": "s\n"})
    commit = make_repository(http.root / "evil", {"a.md": "a\n"})
    put(http.root / "evil", ".git/objects/info/alternates", f"{private}/.git/objects\n")
    assert trap.clone(http.url("evil"), commit).outcome == "cloned"
    root = trap.clones / "a"
    assert not (root / ".git" / "objects" / "info" / "alternates").exists()
    assert subprocess.run(["git", "-C", str(root), "cat-file", "-e", secret], capture_output=True).returncode == 1


def test_no_prompt(http: HttpServer, trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_ASKPASS", "SSH_ASKPASS"):
        monkeypatch.setenv(name, str(trap.script))
    http.refuse = [401] * 9
    outcome = trap.clone(http.url("private"), "1" * 40)
    assert outcome.outcome == "failed"
    assert "Authentication failed" in (outcome.reason or "")
    http.refuse = [401] * 9
    with pytest.raises(GenomeError, match="Authentication failed"):
        resolve(http.url("private"), None, retries=5)
    assert 5 <= len(http.refuse) <= 8  # asked once, not once for each retry


def test_words_that_a_terminal_would_obey(http: HttpServer, trap: Trap) -> None:
    http.complaint = b"\x1b]0;owned\x07 go away"
    assert trap.clone(http.url("evil"), "1" * 40).reason == "fatal: remote error: ?]0;owned? go away"
    with pytest.raises(GenomeError, match=r"remote error: \?]0;owned\? go away"):
        resolve(http.url("evil"), None, retries=0)
