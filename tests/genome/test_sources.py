"""Which files of a directory or a git checkout become part of a genome."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.sources import LeftOut, Selection, Source, list_source, parse_sources, read_text


def put(root: Path, path: str, content: str | bytes = "text\n") -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.encode() if isinstance(content, str) else content)
    return target


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "--quiet")
    return root


def reasons(left_out: list[LeftOut]) -> dict[str, str]:
    return {item.path: item.reason for item in left_out}


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "a=b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    assert parse_sources([".", "zwei=../two", "../a=b"]) == [
        Source("one", tmp_path / "one"),
        Source("zwei", tmp_path / "two"),
        Source("a=b", tmp_path / "a=b"),
    ]


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (["one", "one=two"], "two sources are called 'one'"),
        (["missing"], "no such directory"),
        (["one/file.md"], "this is a file"),
        (["https://example.org/x.git"], "git clone https://example.org/x.git"),
        (["/"], "no usable name"),
    ],
)
def test_unusable_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[str], words: str) -> None:
    put(tmp_path, "one/file.md")
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GenomeError) as caught:
        parse_sources(sources)
    assert words in str(caught.value)


def test_plain_directory_is_sorted_by_bytes_and_skips_what_is_not_its_own(tmp_path: Path) -> None:
    for path in ("b.md", "B.MD", "a/z.py", "a-b/c.txt", "ä.md", "photo.png", ".git-notes.md", "node_modules/x/y.js"):
        put(tmp_path, path)
    put(tmp_path, ".hg/store.txt")
    put(tmp_path, "env/pyvenv.cfg")
    put(tmp_path, "env/lib/module.py")
    listing = list_source(Source("r", tmp_path), Selection())
    assert listing.paths == [".git-notes.md", "B.MD", "a-b/c.txt", "a/z.py", "b.md", "ä.md"]
    assert listing.not_selected == 1
    assert reasons(listing.left_out) == dict.fromkeys(["env", "node_modules"], "folder of installed packages")
    assert (listing.tracked, listing.commit, listing.dirty) == (False, None, None)


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "outside/secret.md")
    root = tmp_path / "inside"
    put(root, "own.md")
    (root / "file.md").symlink_to(tmp_path / "outside" / "secret.md")
    (root / "folder").symlink_to(tmp_path / "outside")
    listing = list_source(Source("r", root), Selection())
    assert listing.paths == ["own.md"]
    assert reasons(listing.left_out) == {"file.md": "symbolic link", "folder": "symbolic link"}


def test_checkout_gives_what_git_tracks(checkout: Path) -> None:
    put(checkout, ".gitignore", "ignored.md\n")
    for path in ("dökumente/日本 語.md", "kept.py", "gone.md", "moved/inner.md"):
        put(checkout, path)
    (checkout / "link.md").symlink_to("/etc/hostname")
    git(checkout, "add", ".")
    git(checkout, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},library")
    git(checkout, "commit", "--quiet", "-m", "first")
    put(checkout, "ignored.md")
    put(checkout, "untracked.md")

    listing = list_source(Source("r", checkout), Selection())
    assert listing.paths == ["dökumente/日本 語.md", "gone.md", "kept.py", "moved/inner.md"]
    assert (listing.commit, listing.dirty) == (git(checkout, "rev-parse", "HEAD"), False)
    assert reasons(listing.left_out) == {"link.md": "symbolic link", "library": "submodule"}

    (checkout / "gone.md").unlink()
    elsewhere = checkout.parent / "elsewhere"
    (checkout / "moved").rename(elsewhere)
    (checkout / "moved").symlink_to(elsewhere)
    listing = list_source(Source("r", checkout), Selection())
    assert listing.paths == ["dökumente/日本 語.md", "kept.py"]
    assert listing.dirty is True
    assert reasons(listing.left_out)["gone.md"] == "tracked, but not in the work tree"
    assert reasons(listing.left_out)["moved/inner.md"] == "symbolic link"


def test_folder_of_a_checkout(checkout: Path) -> None:
    put(checkout, ".gitignore", "data/\n")
    put(checkout, "docs/a.md")
    put(checkout, "docs/untracked.md")
    git(checkout, "add", ".gitignore", "docs/a.md")
    git(checkout, "commit", "--quiet", "-m", "first")
    put(checkout, "data/b.md")
    assert list_source(Source("docs", checkout / "docs"), Selection()).paths == ["a.md"]
    ignored = list_source(Source("data", checkout / "data"), Selection())
    assert (ignored.paths, ignored.tracked) == (["b.md"], False)


def test_checkout_without_a_commit(checkout: Path) -> None:
    put(checkout, "a.md")
    assert list_source(Source("r", checkout), Selection()).paths == []
    git(checkout, "add", "a.md")
    listing = list_source(Source("r", checkout), Selection())
    assert (listing.paths, listing.commit, listing.dirty) == (["a.md"], None, None)


def test_the_environment_of_a_git_hook_is_ignored(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(checkout, "a.md")
    git(checkout, "add", "a.md")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert list_source(Source("r", checkout), Selection()).paths == ["a.md"]


def test_bare_repository(checkout: Path) -> None:
    git(checkout, "init", "--quiet", "--bare", str(checkout.parent / "bare.git"))
    with pytest.raises(GenomeError, match="without a work tree"):
        list_source(Source("r", checkout.parent / "bare.git"), Selection())


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), ["README.md", "docs/a.md", "docs/deep/b.txt", "main.py"]),
        (Selection(include=("*.md", "LICENSE")), ["LICENSE", "README.md", "docs/a.md"]),
        (Selection(include=("docs/*",)), ["docs/a.md", "docs/deep/b.txt"]),
        (Selection(exclude=("docs/",)), ["README.md", "main.py"]),
        (Selection(exclude=("[Rr]*", "docs/deep/b.txt")), ["docs/a.md", "main.py"]),
        (Selection(include=("*.md",), exclude=("*.md",)), []),
    ],
)
def test_selection(tmp_path: Path, selection: Selection, expected: list[str]) -> None:
    for path in ("README.md", "LICENSE", "docs/a.md", "docs/deep/b.txt", "main.py"):
        put(tmp_path, path)
    listing = list_source(Source("r", tmp_path), selection)
    assert listing.paths == expected
    assert listing.not_selected == 5 - len(expected)


def test_what_is_no_text_is_left_out_with_its_reason(tmp_path: Path) -> None:
    put(tmp_path, "large.txt", "x" * 101)
    put(tmp_path, "limit.txt", "x" * 100)
    put(tmp_path, "binary.txt", b"a\0b")
    put(tmp_path, "latin.txt", b"first\nca\xe9\n")
    os.mkfifo(tmp_path / "pipe.txt")
    listing = list_source(Source("r", tmp_path), Selection(max_bytes=100))
    read = {path: read_text(listing, path) for path in listing.paths}
    assert read == {"binary.txt": None, "latin.txt": None, "limit.txt": "x" * 100}
    assert reasons(listing.left_out) == {
        "large.txt": "101 bytes, more than the limit of 100",
        "binary.txt": "binary: it holds a NUL byte",
        "latin.txt": "not UTF-8: byte 0xe9 in line 2",
        "pipe.txt": "not a regular file",
    }


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no file names that are not UTF-8")
def test_names_that_a_genome_cannot_hold(tmp_path: Path) -> None:
    put(tmp_path, "two\nlines.md")
    put(tmp_path, os.fsdecode(b"latin\xe9.md"))
    listing = list_source(Source("r", tmp_path), Selection())
    assert listing.paths == []
    assert reasons(listing.left_out) == {
        "two\nlines.md": "its name holds a line break",
        "latin\\xe9.md": "its name is not UTF-8",
    }
