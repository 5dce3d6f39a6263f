"""What a remote says: refs, failures that may pass, and URLs that hold secrets."""

import fcntl
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.command import BlobReader, GitError, _ssh_command, environment
from chrysalis_mlx.genome.git.remote import is_remote, may_pass, resolve, retrying, shown
from tests.genome.git.servers import HttpServer, daemon, http, served
from tests.genome.repositories import git, make_repository

__all__ = ["daemon", "http", "served"]


@pytest.fixture
def origin(served: Path) -> dict[str, str]:
    """Two commits; `both` is a tag on the first and a branch on the second."""
    root = served / "origin"
    commits = {"first": make_repository(root, {"a.md": "1\n"})}
    git(root, "tag", "-a", "v1", "-m", "one")
    git(root, "tag", "both")
    commits["second"] = make_repository(root, {"a.md": "2\n"})
    git(root, "branch", "both")
    git(root, "update-ref", "refs/pull/1/head", commits["first"])
    return commits


@pytest.mark.parametrize(
    ("ref", "name", "commit"),
    [
        (None, "refs/heads/main", "second"),
        ("HEAD", "refs/heads/main", "second"),
        ("main", "refs/heads/main", "second"),
        ("v1", "refs/tags/v1", "first"),
        ("tags/v1", "refs/tags/v1", "first"),
        ("both", "refs/tags/both", "first"),
        ("heads/both", "refs/heads/both", "second"),
        ("refs/heads/both", "refs/heads/both", "second"),
        ("refs/pull/1/head", "refs/pull/1/head", "first"),
    ],
)
def test_refs(http: HttpServer, origin: dict[str, str], ref: str | None, name: str, commit: str) -> None:
    for protocol in (0, 2):
        http.protocol = protocol
        assert resolve(http.url("origin"), ref, retries=0) == (name, origin[commit])


def test_a_detached_head_has_no_name(daemon: str, served: Path, origin: dict[str, str]) -> None:
    git(served / "origin", "checkout", "--quiet", "--detach", origin["first"])
    assert resolve(f"{daemon}/origin", None, retries=0) == ("HEAD", origin["first"])


def test_no_such_ref(http: HttpServer, served: Path, origin: dict[str, str]) -> None:
    with pytest.raises(GenomeError, match="no branch or tag 'mian'; did you mean main") as caught:
        resolve(http.url("origin"), "mian", retries=0)
    assert caught.value.fix is not None
    assert "main" in caught.value.fix
    git(served, "init", "--quiet", "empty")
    with pytest.raises(GenomeError, match="the remote is empty"):
        resolve(http.url("empty"), None, retries=0)
    git(served / "origin", "symbolic-ref", "HEAD", "refs/heads/gone")
    with pytest.raises(GenomeError, match=r"the remote's HEAD|the remote has no HEAD") as caught:
        resolve(http.url("origin"), None, retries=0)
    assert "both, main, v1" in str(caught.value)


def test_a_server_that_comes_back(http: HttpServer, origin: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chrysalis_mlx.genome.git.remote.random.uniform", lambda low, high: 0.01)
    http.refuse = [503, 429]
    assert resolve(http.url("origin"), "main", retries=2)[1] == origin["second"]
    http.refuse = [503, 503, 503]
    with pytest.raises(GitError, match="503"):
        resolve(http.url("origin"), "main", retries=1)
    assert http.refuse == [503]


def test_secrets_are_not_repeated(http: HttpServer) -> None:
    url = http.url("nothing").replace("//", "//me:hush-hush@")
    with pytest.raises(GitError, match="not found") as caught:
        resolve(url, None, retries=0)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("scheme", ["git", "http"])
def test_a_silent_server_is_given_up(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chrysalis_mlx.genome.git.remote._SILENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(GitError, match=r"timed out after 0\.3 seconds") as caught:
            resolve(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/x", None, retries=0)
        assert may_pass(caught.value.words)


@pytest.fixture
def ssh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Without any ssh of the user."""
    for name in ("GIT_SSH", "GIT_SSH_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    _ssh_command.cache_clear()
    yield monkeypatch
    _ssh_command.cache_clear()


@pytest.mark.parametrize(
    ("variables", "command", "is_ssh"),
    [
        ({}, "ssh", True),
        ({"GIT_SSH_COMMAND": "  "}, "ssh", True),
        ({"GIT_SSH_COMMAND": "ssh -i key"}, "ssh -i key", True),
        ({"GIT_SSH_COMMAND": "'/my tools/ssh' -4", "GIT_SSH": "x"}, "'/my tools/ssh' -4", True),
        ({"GIT_SSH": "/my tools/ssh"}, "'/my tools/ssh'", True),
        ({"GIT_SSH": "plink"}, "plink", False),
        ({"GIT_SSH_COMMAND": "ssh 'x"}, "ssh 'x", False),
    ],
)
def test_ssh_waits_for_nobody(ssh: pytest.MonkeyPatch, variables: dict[str, str], command: str, is_ssh: bool) -> None:
    for name, value in variables.items():
        ssh.setenv(name, value)
    options = " -oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=15 -oServerAliveCountMax=4"
    assert environment(network=True)["GIT_SSH_COMMAND"] == command + (options if is_ssh else "")


def test_git_is_not_made_to_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_TRACE", "GIT_TRACE_CURL", "GIT_TRACE2_EVENT", "GIT_CURL_VERBOSE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "me")
    kept = environment(network=True)
    assert not [name for name in kept if name.startswith(("GIT_TRACE", "GIT_CURL"))]
    assert (kept["GIT_AUTHOR_NAME"], kept["GIT_HTTP_LOW_SPEED_LIMIT"], kept["GIT_HTTP_LOW_SPEED_TIME"]) == (
        "me",
        "1",
        "60",
    )


def test_blobs_are_read_where_pipes_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_repository(tmp_path / "code", {"a.md": "a\n"})
    oid = git(tmp_path / "code", "rev-parse", "HEAD:a.md")
    # As an ordinary user beyond fs.pipe-user-pages-soft: the kernel says no.
    monkeypatch.setattr(fcntl, "F_SETPIPE_SZ", -1, raising=False)
    with BlobReader(tmp_path / "code") as reader:
        assert list(reader.read([oid])) == [b"a\n"]


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("https://user:token@host/a.git", "https://host/a.git"),
        ("https://token@host/a.git", "https://host/a.git"),
        ("HTTP://u:p@ss@host/a", "HTTP://host/a"),
        ("ssh://git:secret@host:22/a", "ssh://git@host:22/a"),
        ("ssh://git@host/a", "ssh://git@host/a"),
        ("git@host:me/a.git", "git@host:me/a.git"),
        ("https://host/a?token=x&y=z#part", "https://host/a?...#part"),
        ("HTTP://u:p@host/a?b=c 'https://h/?d'", "HTTP://host/a?... 'https://h/?...'"),
        ("https://host/a?...", "https://host/a?..."),
        ("ssh://host/a?b", "ssh://host/a?b"),
        ("https://host/a@b", "https://host/a@b"),
        ("remote: \x1b]0;owned\x07\n\tx", "remote: ?]0;owned?\n\tx"),
        ("fatal: 'https://u:p@h/a/': ask me@example.org", "fatal: 'https://h/a/': ask me@example.org"),
    ],
)
def test_shown(text: str, harmless: str) -> None:
    assert shown(text) == harmless


@pytest.mark.parametrize(
    ("location", "remote"),
    [
        ("https://host/a.git", True),
        ("HTTP://host/a.git", True),
        ("ssh://git@host:22/a", True),
        ("git://host/a", True),
        ("file:///srv/a", True),
        ("git@github.com:me/a.git", True),
        ("github.com:me/a.git", True),
        ("host:a", True),
        ("C:/a", False),
        ("./host:a", False),
        ("dir/host:a", False),
        ("-oProxyCommand=x:a", False),
        ("ext::sh -c x", False),
        ("fd::7", False),
        ("ftp://host/a", False),
        ("readme", False),
        ("", False),
    ],
)
def test_is_remote(location: str, remote: bool) -> None:
    assert is_remote(location) is remote


def test_a_path_that_exists_is_not_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_remote("host:a")
    (tmp_path / "host:a").mkdir()
    assert not is_remote("host:a")


@pytest.mark.parametrize(
    ("words", "passing"),
    [
        ("fatal: unable to access 'https://h/': Could not resolve host: h", True),
        ("error: RPC failed; curl 18 transfer closed with outstanding read data remaining\nfatal: early EOF", True),
        ("fatal: unable to access 'http://h/': The requested URL returned error: 503", True),
        ("fatal: unable to access 'http://h/': The requested URL returned error: 429", True),
        ("fatal: unable to access 'http://h/': The requested URL returned error: 403", False),
        ("ssh: connect to host h port 22: Connection refused\nfatal: Could not read from remote repository.", True),
        ("git@h: Permission denied (publickey).\nConnection closed by 1.2.3.4\nfatal: Could not read from", False),
        ("fatal: Authentication failed for 'https://h/'", False),
        ("fatal: repository 'https://h/' not found", False),
        ("error: object 1: hasDotgit: contains '.git'\nfatal: fsck error in packed object\nfatal: hung up", False),
        ("fatal: transport 'ext' not allowed", False),
        ("fatal: something new", False),
    ],
)
def test_what_may_pass(words: str, passing: bool) -> None:
    assert may_pass(words) is passing


def test_retrying_waits_longer_each_time() -> None:
    slept: list[float] = []
    words = iter(["early EOF"] * 4)

    def act() -> str:
        if (said := next(words, None)) is not None:
            raise GitError("fetch", said, 128, where="", fix="")
        return "done"

    assert retrying(act, 4, sleep=slept.append) == "done"
    assert [low <= seconds <= 1.5 * low for low, seconds in zip((1, 2, 4, 8), slept, strict=True)] == [True] * 4


def test_retrying_gives_up() -> None:
    asked: list[str] = []

    def act(words: str) -> None:
        asked.append(words)
        raise GitError("fetch", words, 128, where="", fix="")

    for words, times in (("early EOF", 3), ("repository not found", 1)):
        asked.clear()
        with pytest.raises(GitError):
            retrying(lambda said=words: act(said), 2, sleep=lambda _: None)  # type: ignore[misc]
        assert len(asked) == times


def test_git_of_this_machine_speaks_as_expected(daemon: str) -> None:
    """The words that decide are git's: a new git may change them, and then this fails first."""
    done = subprocess.run(["git", "ls-remote", f"{daemon}/nothing"], capture_output=True, text=True)
    assert not may_pass(done.stderr)
    done = subprocess.run(["git", "ls-remote", "git://127.0.0.1:1/nothing"], capture_output=True, text=True)
    assert may_pass(done.stderr)
