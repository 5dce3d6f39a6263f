"""Which repositories a hub's README lists."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.sources.readme import listed_repositories, repositories_in
from tests.genome.repositories import put

README = """\
# A hub of [owner](https://github.com/owner/in-prose)

| Repository | What |
|---|---|
| [one](https://github.com/owner/one) | first |
| [two](https://GitHub.com/Owner/two.git) and [one](https://github.com/owner/one#readme) | twice |
| <https://github.com/owner/three/tree/main/docs> | deep |
  | [four](https://gitlab.com/owner/four?tab=x) | another host |
| [stranger](https://github.com/other/five) ![badge](https://img.shields.io/owner/badge) | not ours |
| [the owner](https://github.com/owner) and [nothing](https://github.com/owner/) | no repository |
- [list](https://github.com/owner/in-a-list)
"""
OWNERS = [
    "https://github.com/owner/one",
    "https://GitHub.com/Owner/two",
    "https://github.com/owner/three",
    "https://gitlab.com/owner/four",
]


def test_repositories_of_the_owner_in_tables_each_once() -> None:
    # The badge's path begins with the owner's name, so it counts; a list can leave it out by name.
    assert repositories_in(README, "owner") == [*OWNERS, "https://img.shields.io/owner/badge"]


def test_a_long_row_is_read_in_no_time() -> None:
    assert repositories_in("| " + "a" * 1_000_000 + "://h/me/x |", "me") == [f"{'a' * 20}://h/me/x"]


def test_from_a_file_relative_to_the_list(tmp_path: Path) -> None:
    put(tmp_path, "hub/README.md", README.replace("img.shields.io/owner", "img.shields.io"))
    assert listed_repositories("readme:hub/README.md#owner", tmp_path) == OWNERS


def test_tables_without_outer_pipes() -> None:
    text = """\
Before | [no](https://h/me/before)

What | Where
---|:---:
A | [a](https://h/me/a)
[b](https://h/me/b) |
*c* | https://h/me/c

A | [no](https://h/me/after)

What | Where
--- | ---
d | https://h/me/d
- a list | [no](https://h/me/list)
e | https://h/me/no-row

A heading
---
[no](https://h/me/heading)
"""
    assert repositories_in(text, "me") == [f"https://h/me/{name}" for name in "abcd"]


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The URL of a server that gives this answer, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/README.md"
        thread.join()


def test_a_document_from_the_web_lists_the_web_alone(tmp_path: Path) -> None:
    assert repositories_in("| file://h/me/d https://h/me/d |", "me", web_only=True) == ["https://h/me/d"]
    rows = "| file:///me/a ssh://git@h/me/b git://h/me/c HTTPS://h/me/d |\n"
    put(tmp_path, "README.md", rows)
    assert len(listed_repositories("readme:README.md#me", tmp_path)) == 4
    with answering(b"HTTP/1.0 200 OK\r\n\r\n" + rows.encode()) as url:
        assert listed_repositories(f"readme:{url}#me", tmp_path) == ["HTTPS://h/me/d"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.0 404 Gone\r\n\r\n", "cannot be read: Gone"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n| https://h/me/a |", "IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n| htt", "IncompleteRead"),
        (b"nonsense\r\n\r\n", "cannot be read: nonsense"),
        (b"", "cannot be read: .*closed connection"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * ((16 << 20) + 1), "it is larger than 16 MiB"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, answer: bytes, words: str) -> None:
    with answering(answer) as url, pytest.raises(GenomeError, match=words) as caught:
        listed_repositories(f"readme:{url}?token=hush#me", tmp_path)
    assert caught.value.where == f"{url}?..."
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("readme:README.md", "does not say whose"),
        ("readme:README.md#", "does not say whose"),
        ("readme:#owner", "does not say whose"),
        ("readme:missing.md#owner", "cannot be read: No such file or directory"),
        ("readme:latin.md#owner", "cannot be read: invalid continuation byte"),
        ("readme:nul\0.md#owner", "cannot be read: .*null"),
        ("readme:~nosuchuser/README.md#owner", "cannot be read: No such file or directory"),
        ("readme:README.md#nobody", "no row of a Markdown table links a repository of 'nobody'"),
        ("readme:http://127.0.0.1:9/README.md#owner", "cannot be read: .*refused"),
    ],
)
def test_what_is_no_list(tmp_path: Path, location: str, words: str) -> None:
    put(tmp_path, "README.md", README)
    put(tmp_path, "latin.md", b"| caf\xe9 |\n")
    with pytest.raises(GenomeError, match=words):
        listed_repositories(location, tmp_path)
