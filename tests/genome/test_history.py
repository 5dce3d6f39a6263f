"""Commits of real repositories: which are taken, what is shown of them, and that nothing of a repository is run."""

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.build import build_genome
from chrysalis_mlx.genome.git.clone import clone
from chrysalis_mlx.genome.history import Account, Commit, History, telling
from chrysalis_mlx.genome.manifest import copy_manifest
from chrysalis_mlx.genome.sources.pins import Lock, Pin
from tests.genome.repositories import git, make_repository, put


def build(tmp_path: Path, *pins: Pin, **rules: object) -> Path:
    """The manifest of a genome of these pins, beside which their clones would lie."""
    lock = Lock(repositories=pins).at(tmp_path)
    lock = dataclasses.replace(lock, files=dataclasses.replace(lock.files, **rules)).at(tmp_path)
    build_genome(lock, tmp_path / "clones", tmp_path / "genome.txt")
    return tmp_path / "genome.json"


def word(number: int) -> str:
    """A number in letters, for messages that are not a machine's."""
    return "".join("abcdefghij"[int(digit)] for digit in f"{number:04d}")


def history_of(tmp_path: Path, commit: str, *, folder: str = "", max_commits: int = 99, **rules: object) -> History:
    """The history of the checkout `r` as it is pinned at a commit."""
    manifest = build(tmp_path, Pin("r", "checkout", "r", commit, folder=folder), **rules)
    return History(manifest, tmp_path, max_commits=max_commits)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_repository(tmp_path / "r", {"a.md": "one\ntwo\n"})
    return tmp_path / "r"


def test_a_commit(tmp_path: Path, root: Path) -> None:
    message = "Say three\r\n\r\nBecause <me@example.org> asked.\n\n\n\nSigned-off-by: M <me@example.org>\nCc: x\n"
    commit = make_repository(root, {"a.md": "one\nthree\n", "b.md": "new"}, message)
    history = history_of(tmp_path, commit)
    (found,) = history
    assert (found.repository, found.sha, found.message) == ("r", commit, "Say three\n\nBecause asked.")
    assert found.diff == (
        "--- a/a.md\n+++ b/a.md\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n"
        "--- /dev/null\n+++ b/b.md\n@@ -0,0 +1 @@\n+new\n\\ No newline at end of file\n"
    )
    assert found.text == "Say three\n\nBecause asked.\none\ntwo\n\none\nthree\n\n\nnew\n"
    assert history.accounts == [Account("r", commits=1)]


def test_the_newest_first_and_no_more_than_asked(tmp_path: Path, root: Path) -> None:
    commits = [make_repository(root, {"a.md": f"{n}\n"}, f"Count up to {word(n)} sheep") for n in range(5)]
    assert [commit.sha for commit in history_of(tmp_path, commits[-1])] == commits[::-1]
    assert [commit.sha for commit in history_of(tmp_path, commits[-1], max_commits=2)] == commits[:-3:-1]
    assert [commit.sha for commit in history_of(tmp_path, commits[1])] == commits[1::-1]  # what came later is not here


def test_first_parents_and_no_merges(tmp_path: Path, root: Path) -> None:
    git(root, "checkout", "--quiet", "-b", "side")
    make_repository(root, {"side.md": "s\n"}, "Work on the side road")
    git(root, "checkout", "--quiet", "main")
    main = make_repository(root, {"a.md": "main\n"}, "Work on the main road")
    git(root, "merge", "--quiet", "--no-ff", "-m", "Bring both roads together", "side")
    last = make_repository(root, {"side.md": "t\n"}, "Pave the side road")
    assert [commit.sha for commit in history_of(tmp_path, last)] == [last, main]


def test_a_shallow_clone(tmp_path: Path, root: Path) -> None:
    old = make_repository(root, {"a.md": "2\n"}, "Count two black sheep")
    new = make_repository(root, {"a.md": "3\n"}, "Count three black sheep")
    git(root, "config", "uploadpack.allowAnySHA1InWant", "true")
    pin = Pin("r", "remote", f"file://{root}", new, ref="refs/heads/main")
    found: dict[str, list[str]] = {}
    for depth in ("1", "2", "0"):
        place = tmp_path / depth
        subprocess.run(
            ["git", "clone", "--quiet", *([f"--depth={depth}"] if depth != "0" else []), pin.location, "clones/r"],
            cwd=put(place, "x").parent,
            check=True,
        )
        history = History(build(place, pin), place, max_commits=9)
        found[depth] = [commit.sha for commit in history]
        if depth == "1":
            assert "history: true" in (history.accounts[0].reason or "")
    assert found == {"1": [], "2": [new], "0": [new, old]}


@pytest.mark.parametrize("whole", [False, True])
def test_clones_of_our_own(tmp_path: Path, root: Path, whole: bool) -> None:
    commit = make_repository(root, {"a.md": "2\n"}, "Count two black sheep")
    pin = Pin("r", "remote", f"file://{root}", commit, ref="refs/heads/main")
    clone(Lock(repositories=(pin,), history=whole), tmp_path / "clones")
    history = History(build(tmp_path, pin), tmp_path, max_commits=9)
    assert [item.sha for item in history] == ([commit] if whole else [])
    assert (history.accounts[0].reason is None) == whole


def test_why_there_is_no_history(tmp_path: Path, root: Path) -> None:
    commit = git(root, "rev-parse", "HEAD")
    shutil.copytree(root, tmp_path / "clones" / "gone")
    put(tmp_path, "plain/a.md")
    make_repository(tmp_path / "empty", {"a.bin": "x"})
    tree = git(tmp_path / "empty", "rev-parse", "HEAD^{tree}")
    pins = (
        Pin("r", "checkout", "r", commit),
        Pin("gone", "remote", "https://example.org/gone", commit),
        Pin("empty", "checkout", "empty", git(tmp_path / "empty", "rev-parse", "HEAD")),
        Pin("plain", "directory", "empty", tree=tree),
    )
    history = History(build(tmp_path, *pins), tmp_path, max_commits=9)
    shutil.rmtree(tmp_path / "clones")
    assert list(history) == []
    assert {account.repository: account.reason for account in history.accounts} == {
        "r": "no commit but the first and merges",
        "gone": "no clone",
        "empty": "none of its files is in the genome",
        "plain": "a plain directory has no commits",
    }


def test_a_genome_that_was_made_elsewhere(tmp_path: Path, root: Path) -> None:
    build(tmp_path, Pin("r", "checkout", "r", git(root, "rev-parse", "HEAD")))
    (tmp_path / "genome.json").unlink()
    copy_manifest(tmp_path / "genome.txt", tmp_path / "run" / "genome.json")
    history = History(tmp_path / "run" / "genome.json", tmp_path, max_commits=9)
    assert list(history) == []
    assert history.accounts == [Account("r", reason="made elsewhere: the manifest does not say from what")]


def test_only_files_that_the_rules_take(tmp_path: Path, root: Path) -> None:
    files: dict[str, str | bytes] = {
        "a.md": "x\n",
        "binary.md": b"a\0b\n",
        "late.md": b"a\n" * 9000 + b"\0",
        "latin.md": b"caf\xe9\n",
        "image.png": "text\n",
        "kept.lock.json": "{}\n",
        "large.md": "x" * 3000 + "\n",
        "notes.ipynb": "{}\n",
        "table.csv": "a,b\n",
        "key.md": "pass" + 'word = "hunter2' + 'hunter2"\n',
    }
    make_repository(root, {name: content for name, content in files.items() if name != "a.md"}, "Have some files here")
    (root / "link.md").symlink_to("a.md")
    commit = make_repository(
        root,
        {name: content + (b"+\n" if isinstance(content, bytes) else "+\n") for name, content in files.items()},
        "Change all files there are",
    )
    (found, *_) = history_of(tmp_path, commit, exclude=("*.lock.json",), max_bytes=2000)
    assert [file.path for file in found.files] == ["a.md"]
    (found, *_) = history_of(tmp_path, commit, secrets="keep", include=("*.png", "key.md"), text=())
    assert [file.path for file in found.files] == ["image.png", "key.md"]
    # A NUL behind the part that git looks at.
    (found, *_) = history_of(tmp_path, commit, include=("a.md", "late.md"))
    assert [file.path for file in found.files] == ["a.md"]
    manifest = build(tmp_path, Pin("r", "checkout", "r", commit), secrets="keep", include=("*.png", "key.md"))
    history = History(
        manifest, tmp_path, max_commits=9, takes=lambda repository, path: (repository, path) == ("r", "key.md")
    )
    assert [[file.path for file in commit.files] for commit in history] == [["key.md"], ["key.md"]]


def test_only_the_folder_that_is_pinned(tmp_path: Path, root: Path) -> None:
    make_repository(root, {"docs/a.md": "1\n", "docs2/a.md": "1\n"}, "Begin to write documents")
    make_repository(root, {"a.md": "2\n", "docs2/a.md": "2\n"}, "Write what is elsewhere")
    commit = make_repository(root, {"a.md": "3\n", "docs/a.md": "3\n"}, "Write documents and others")
    found = list(history_of(tmp_path, commit, folder="docs"))
    assert [commit.message for commit in found] == ["Write documents and others", "Begin to write documents"]
    assert found[0].diff == "--- a/a.md\n+++ b/a.md\n@@ -1 +1 @@\n-1\n+3\n"


def test_names_modes_and_line_ends_alone_are_no_change(tmp_path: Path, root: Path) -> None:
    text = "".join(f"{n}\n" for n in range(20))
    make_repository(root, {"a.md": text, "b.md": text + "b\n", "c.md": "c\n", "d.md": "d\n"}, "Have some files here")
    git(root, "mv", "a.md", "moved.md")
    git(root, "mv", "b.md", "edited.md")
    git(root, "rm", "--quiet", "c.md")
    (root / "d.md").chmod(0o755)
    commit = make_repository(root, {"edited.md": text + "e\n"}, "Move the tables around")
    (found, _) = history_of(tmp_path, commit)
    assert found.diff == "--- a/b.md\n+++ b/edited.md\n@@ -18,4 +18,4 @@\n 17\n 18\n 19\n-b\n+e\n"
    assert (found.files[0].old_path, found.files[0].path) == ("b.md", "edited.md")
    crlf = make_repository(root, {"moved.md": text.replace("\n", "\r\n")}, "Write for another system")
    assert next(iter(history_of(tmp_path, crlf))).sha == commit
    last = make_repository(root, {"moved.md": text.replace("\n", "\r\n") + "a\rb\r\n"}, "Add to the other system")
    (found, *_) = history_of(tmp_path, last)
    assert found.diff == "--- a/moved.md\n+++ b/moved.md\n@@ -18,3 +18,4 @@\n 17\n 18\n 19\n+a\rb\n"


def test_a_file_that_was_left_out_under_its_old_name(tmp_path: Path, root: Path) -> None:
    text = "".join(f"{n}\n" for n in range(20))
    make_repository(root, {"private.md": text}, "Write what is private")
    git(root, "mv", "private.md", "public.md")
    commit = make_repository(root, {"public.md": text + "and\n"}, "Publish what is private")
    assert list(history_of(tmp_path, commit, exclude=("private*",))) == []
    assert len(list(history_of(tmp_path, commit))) == 2


NAMES = [
    'quo"te.md',
    "tab\there.md",
    "back\\slash.md",
    "with space.md",
    "ümlaut.md",
    "\x1b[31m.md",
    "a/+++ b/x.md",
    "-x.md",
]


@pytest.mark.parametrize("name", NAMES)
def test_strange_names(tmp_path: Path, root: Path, name: str) -> None:
    commit = make_repository(root, {name: "new\n"}, "Name files as I like")
    (found,) = history_of(tmp_path, commit)
    assert [file.path for file in found.files] == [name]
    assert found.diff.endswith("@@ -0,0 +1 @@\n+new\n")


def test_names_that_are_not_taken(tmp_path: Path, root: Path) -> None:
    make_repository(root, {"line\nbreak.md": "x\n"}, "Break lines in names")
    (root / os.fsdecode(b"\xff.md")).write_text("x\n")
    commit = make_repository(root, {"a.md": "x\n"}, "Take only good names")
    history = history_of(tmp_path, commit)
    assert [[file.path for file in commit.files] for commit in history] == [["a.md"]]
    assert history.accounts[0].left_out == {"no diff that is taken": 1}


def test_text_that_looks_like_a_patch(tmp_path: Path, root: Path) -> None:
    evil = "=\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-- a\n++ b\n\x0c\u2028\x85end\n"
    commit = make_repository(root, {"a.md": evil, "b.md": "b\n"}, f"Look like a patch\n\n{evil[:-9]}")
    (found,) = history_of(tmp_path, commit)
    assert found.message == f"Look like a patch\n\n{evil[:-9]}".strip()
    assert [file.path for file in found.files] == ["a.md", "b.md"]
    assert found.files[0].lines("+") == evil
    assert found.files[0].lines("-") == "one\ntwo\n"


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("", None),
        ("wip", None),
        ("Update README.md", None),
        ("Merge branch 'main' into work", None),
        ("Add files via upload", None),
        ("fix: minor changes, some more fixes", None),
        ("1.2.3 (#12)", None),
        ("Signed-off-by: Someone Else <a@b.org>", None),
        ("color \x1b[31mthe terminal red", None),
        ("wip: login page", "wip: login page"),
        ("Исправлена ошибка входа", "Исправлена ошибка входа"),
        ("修正登录", "修正登录"),
        ("Tell a@b.org the truth\n\nReviewed-by: C\nNo trailer\n", "Tell the truth\n\nNo trailer"),
        ("Raise left-pad@1.3.0 once more", "Raise left-pad@1.3.0 once more"),
        ("Mend the roof\n\n(cherry picked from commit 0123abc)", "Mend the roof"),
    ],
)
def test_messages_that_tell_something(message: str, kept: str | None) -> None:
    assert telling(message) == kept


def test_what_is_left_out_is_counted(tmp_path: Path, root: Path) -> None:
    make_repository(root, {"a.md": "2\n"}, "update")
    make_repository(root, {"a.md": "3\n"}, "pass" + 'word = "hunter2' + 'hunter2" is the new one')
    make_repository(root, {"a.md": "line of text\n" * 6000}, "Write lines of text")
    make_repository(root, {"a.md": "4\n"}, "Take them out again")
    make_repository(root, {f"{n}.md": "line of text\n" * 1500 for n in range(4)}, "Write lines into files")
    git(root, "-c", "i18n.commitEncoding=bogus", "commit", "--quiet", "--allow-empty", "-m", "Nothing was changed here")
    raw = git(root, "cat-file", "commit", "HEAD").encode().replace(b"Nothing", b"N\xf6thing")
    commit = subprocess.run(
        ["git", "-C", str(root), "hash-object", "-t", "commit", "-w", "--stdin", "--literally"],
        input=raw.replace(b"encoding bogus\n", b""),
        check=True,
        capture_output=True,
    ).stdout.decode()
    history = history_of(tmp_path, commit.strip())
    assert list(history) == []
    assert history.accounts[0].left_out == {
        "message says too little": 2,
        "secret in the message": 1,
        "diff too large": 1,
        "no diff that is taken": 2,
    }


def test_what_a_machine_says_again_and_again(tmp_path: Path, root: Path) -> None:
    commits = [make_repository(root, {"a.md": f"{n}\n"}, f"Log of the {n}th night") for n in range(5)]
    history = history_of(tmp_path, commits[-1])
    assert [commit.message for commit in history] == ["Log of the 4th night"]
    assert history.accounts == [Account("r", commits=1, left_out={"message repeats a newer one": 4})]


def test_other_encodings_of_messages(tmp_path: Path, root: Path) -> None:
    put(root, "a.md", "3\n")
    subprocess.run(
        ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@example.org", "-c",
         "i18n.commitEncoding=latin1", "commit", "--quiet", "-a", "-F", "-"],
        input="Größe der Schafe".encode("latin1"), check=True,
    )  # fmt: skip
    assert [commit.message for commit in history_of(tmp_path, git(root, "rev-parse", "HEAD"))] == ["Größe der Schafe"]


def snapshot(history: History) -> str:
    return repr(list(history)) + history.fingerprint()


def test_nothing_is_run_and_no_setting_counts(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = "def f():\n" + "".join(f"    {n}\n" for n in range(30))
    make_repository(root, {"f.py": function, "moved.md": function}, "Write one long function")
    git(root, "mv", "moved.md", "there.md")
    commit = make_repository(
        root,
        {"f.py": function.replace(" 9\n", " nine\n\n"), "ä.md": "x\n", "there.md": function + "x\n"},
        "Spell the number nine",
    )
    plain = snapshot(history_of(tmp_path, commit))
    assert "nine" in plain
    canary = tmp_path / "canary"
    script = put(tmp_path, "wake", f"#!/bin/sh\ntouch '{canary}'\ncat \"$1\"\n")
    script.chmod(0o755)
    attributes = "* diff=evil filter=evil text eol=crlf working-tree-encoding=UTF-16\n*.md binary\n"
    settings = (
        f'[diff "evil"]\n\ttextconv = {script}\n\tcommand = {script}\n\txfuncname = "."\n\tbinary = true\n'
        f"[diff]\n\texternal = {script}\n\tnoprefix = true\n\tmnemonicPrefix = true\n\trenames = false\n\tcontext = 9\n"
        "\tinterHunkContext = 9\n\talgorithm = patience\n\tsuppressBlankEmpty = true\n\torderFile = /dev/null\n"
        "\trelative = true\n\tsrcPrefix = x/\n"
        "\twsErrorHighlight = all\n\tignoreSubmodules = none\n\tindentHeuristic = false\n"
        f'[filter "evil"]\n\tclean = {script}\n\tsmudge = {script}\n\tprocess = {script}\n\trequired = true\n'
        "[color]\n\tui = always\n\tdiff = always\n[log]\n\tshowSignature = true\n\tfollow = true\n\tmailmap = true\n"
        f"\tdecorate = full\n\tshowRoot = false\n"
        f"[gpg]\n\tprogram = {script}\n[format]\n\tpretty = oneline\n\tnotes = *\n"
        f"[core]\n\tpager = {script}\n\tfsmonitor = {script}\n\thooksPath = {tmp_path}\n"
        f"\tattributesFile = {tmp_path}/attributes\n\tabbrev = 4\n\tbigFileThreshold = 1\n"
        "[i18n]\n\tlogOutputEncoding = UTF-16\n[notes]\n\tdisplayRef = *\n"
    )
    put(tmp_path, "attributes", attributes)
    put(root, ".gitattributes", attributes)
    put(root, ".git/info/attributes", attributes)
    put(tmp_path, "home/.config/git/attributes", attributes)
    git(root, "notes", "add", "-m", "A note on this commit", commit)
    git(root, "replace", commit, f"{commit}~1")
    put(root, ".git/info/grafts", f"{commit}\n")
    for hook in ("post-index-change", "reference-transaction", "post-checkout"):
        put(root, f".git/hooks/{hook}", script.read_text()).chmod(0o755)
    with (root / ".git" / "config").open("a") as config:
        config.write(settings)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(put(tmp_path, "home/.gitconfig", settings)))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(tmp_path / "home" / ".gitconfig"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(script))
    monkeypatch.setenv("GIT_DIFF_OPTS", "--unified=0")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'diff.context=0'")
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    listing = sorted(tmp_path.rglob("*"))
    history = History(tmp_path / "genome.json", tmp_path, max_commits=99)
    assert snapshot(history) == plain
    assert not canary.exists()
    assert sorted(tmp_path.rglob("*")) == listing


def test_an_index_and_a_work_tree_do_not_count(tmp_path: Path, root: Path) -> None:
    commit = make_repository(root, {"a.md": "2\n"}, "Count two black sheep")
    plain = snapshot(history_of(tmp_path, commit))
    put(root, "b.md", "dirty\n")
    git(root, "add", "b.md")
    (root / "a.md").unlink()
    git(root, "worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"), commit)
    git(root, "gc", "--quiet")
    assert snapshot(history_of(tmp_path, commit)) == plain
    shutil.move(root, tmp_path / "main")
    git(tmp_path / "main", "worktree", "repair", str(tmp_path / "linked"))
    (tmp_path / "linked").rename(tmp_path / "r")
    git(tmp_path / "main", "worktree", "repair", str(tmp_path / "r"))
    assert snapshot(history_of(tmp_path, commit)) == plain


def test_sha256_names(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    git(tmp_path / "r", "init", "--quiet", "-b", "main", "--object-format=sha256")
    make_repository(tmp_path / "r", {"a.md": "1\n"})
    commit = make_repository(tmp_path / "r", {"a.md": "2\n"}, "Count two black sheep")
    assert [item.sha for item in history_of(tmp_path, commit)] == [commit]
    assert len(commit) == 64


@pytest.mark.parametrize("kind", ["blob", "commit"])
def test_a_store_that_lacks_objects(tmp_path: Path, root: Path, kind: str) -> None:
    old = make_repository(root, {"a.md": "2\n"}, "Count two black sheep")
    commit = make_repository(root, {"a.md": "3\n"}, "Count three black sheep")
    history = history_of(tmp_path, commit)
    gone = git(root, "rev-parse", f"{old}:a.md") if kind == "blob" else old
    (root / ".git" / "objects" / gone[:2] / gone[2:]).unlink()
    with pytest.raises(GenomeError, match="missing or damaged"):
        list(history)


def test_the_fingerprint_tells_which_commits_are_here(tmp_path: Path, root: Path) -> None:
    commits = [make_repository(root, {"a.md": f"{n}\n"}, f"Count up to {word(n)} sheep") for n in range(3)]
    whole = history_of(tmp_path, commits[-1]).fingerprint()
    put(root, "b.md")  # nothing else in the folder counts
    assert history_of(tmp_path, commits[-1]).fingerprint() == whole
    put(root, ".git/shallow", f"{commits[1]}\n")
    history = history_of(tmp_path, commits[-1])
    assert history.fingerprint() != whole
    assert [commit.sha for commit in history] == commits[2:]
    shutil.rmtree(root)
    assert history.fingerprint() != whole


def test_many_commits_are_streamed(tmp_path: Path, root: Path) -> None:
    blobs = "".join(f"blob\nmark :{n}\ndata 8\n{n:07d}\n\n" for n in range(1, 5001))
    commits = "".join(
        f"commit refs/heads/main\nmark :{9000 + n}\ncommitter t <t@example.org> {n} +0000\ndata 21\n"
        f"Count the sheep {word(n)}\n"
        + (f"from :{8999 + n}\n" if n > 1 else "from refs/heads/main^0\n")
        + f"M 100644 :{n} a.md\n\n"
        for n in range(1, 5001)
    )
    subprocess.run(["git", "-C", str(root), "fast-import", "--quiet"], input=(blobs + commits).encode(), check=True)
    head = git(root, "rev-parse", "main")
    history = history_of(tmp_path, head, max_commits=10_000)
    tracemalloc.start()
    found = iter(history)
    newest = [commit.message[-4:] for commit in itertools.islice(found, 50)]
    assert newest == [word(n) for n in range(5000, 4950, -1)]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    assert sum(1 for _ in found) == 4950
    grown = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert history.accounts[0].commits == 5000
    assert grown < 2_000_000  # all of them are 10 MB


def test_git_ends_when_the_reader_does(tmp_path: Path, root: Path) -> None:
    commits = [make_repository(root, {"a.md": f"{n}\n"}, f"Count up to {word(n)} sheep") for n in range(3)]
    found = iter(history_of(tmp_path, commits[-1]))
    assert isinstance(next(found), Commit)
    found.close()  # type: ignore[attr-defined]
    history = history_of(tmp_path, commits[-1], max_commits=1)
    assert len(list(history)) == 1
    assert history.accounts == [Account("r", commits=1)]


@pytest.mark.parametrize(
    "forged", [{"commit": "--output={canary}"}, {"commit": "HEAD"}, {"name": "../r"}, {"folder": "../.."}]
)
def test_a_manifest_that_means_harm(tmp_path: Path, root: Path, forged: dict[str, str]) -> None:
    commit = make_repository(root, {"a.md": "2\n"}, "Count two black sheep")
    history = history_of(tmp_path, commit)
    assert len(list(history)) == 1
    canary = tmp_path / "canary"
    manifest = json.loads((tmp_path / "genome.json").read_text())
    manifest["repositories"][0] |= {key: value.format(canary=canary) for key, value in forged.items()}
    (tmp_path / "genome.json").write_text(json.dumps(manifest))
    history = History(tmp_path / "genome.json", tmp_path, max_commits=9)
    assert list(history) == []
    assert not canary.exists()
    history.fingerprint()
    assert not canary.exists()


def test_rules_that_cannot_be_read(tmp_path: Path, root: Path) -> None:
    build(tmp_path, Pin("r", "checkout", "r", git(root, "rev-parse", "HEAD")))
    text = (tmp_path / "genome.json").read_text().replace('"max_bytes": 2097152', '"max_bytes": "many"')
    (tmp_path / "genome.json").write_text(text)
    with pytest.raises(GenomeError, match="max_bytes: 'many'"):
        History(tmp_path / "genome.json", tmp_path, max_commits=9)
