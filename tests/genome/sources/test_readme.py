"""Which repositories a hub's README lists."""

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


def test_from_a_file_relative_to_the_list(tmp_path: Path) -> None:
    put(tmp_path, "hub/README.md", README.replace("img.shields.io/owner", "img.shields.io"))
    assert listed_repositories("readme:hub/README.md#owner", tmp_path) == OWNERS


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("readme:README.md", "does not say whose"),
        ("readme:README.md#", "does not say whose"),
        ("readme:#owner", "does not say whose"),
        ("readme:missing.md#owner", "cannot be read: No such file or directory"),
        ("readme:latin.md#owner", "cannot be read: invalid continuation byte"),
        ("readme:README.md#nobody", "no row of a Markdown table links a repository of 'nobody'"),
        ("readme:http://127.0.0.1:9/README.md#owner", "cannot be read: .*refused"),
    ],
)
def test_what_is_no_list(tmp_path: Path, location: str, words: str) -> None:
    put(tmp_path, "README.md", README)
    put(tmp_path, "latin.md", b"| caf\xe9 |\n")
    with pytest.raises(GenomeError, match=words):
        listed_repositories(location, tmp_path)
