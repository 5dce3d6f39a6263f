"""Which repositories a genome.yaml or a command line names, under which names and in which order."""

import os
import sys
from pathlib import Path

import pytest

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.sources.find import Source, config_of, find_sources, load_config
from chrysalis_mlx.genome.sources.pins import name_problem
from chrysalis_mlx.genome.sources.schema import TEXT_TYPES, GenomeConfig, SourceEntry
from tests.genome.repositories import git, make_repository, put


def sources_of(tmp_path: Path, text: str) -> list[Source]:
    return find_sources(load_config(put(tmp_path, "genome.yaml", text)), tmp_path)


def names(sources: list[Source]) -> list[str]:
    return [source.name for source in sources]


def test_default_types_are_the_19_of_the_asi_ecosystem() -> None:
    assert len(TEXT_TYPES) == len(set(TEXT_TYPES)) == 19


def test_every_kind_of_location(tmp_path: Path) -> None:
    make_repository(tmp_path / "checkout", {"docs/a.md": "a\n"})
    put(tmp_path, "plain/a.md")
    put(tmp_path, "hub.md", "| [x](https://example.org/me/listed) |\n")
    found = sources_of(
        tmp_path,
        """
        sources:
          - https://example.org/me/web.git#v1
          - ssh://git@example.org/me/secure
          - git@example.org:me/short.git
          - file:///srv/local.git
          - {location: https://example.org/me/long, name: renamed, ref: main, folder: /docs/}
          - {location: https://example.org/me/exact, commit: "1111111111111111111111111111111111111111"}
          - checkout
          - {location: checkout/docs, name: docs}
          - plain
          - readme:hub.md#me
        """,
    )
    assert {source.name: source for source in found} == {
        "web": Source("web", "remote", "https://example.org/me/web.git", "v1"),
        "secure": Source("secure", "remote", "ssh://git@example.org/me/secure"),
        "short": Source("short", "remote", "git@example.org:me/short.git"),
        "local": Source("local", "remote", "file:///srv/local.git"),
        "renamed": Source("renamed", "remote", "https://example.org/me/long", "main", folder="docs"),
        "exact": Source("exact", "remote", "https://example.org/me/exact", commit="1" * 40),
        "checkout": Source("checkout", "checkout", "checkout"),
        "docs": Source("docs", "checkout", str(tmp_path / "checkout"), folder="docs"),
        "plain": Source("plain", "directory", "plain"),
        "listed": Source("listed", "remote", "https://example.org/me/listed"),
    }


def test_curriculum_order(tmp_path: Path) -> None:
    for name in ("hub", "b", "a-backups", "c", "core", "b-backups", "a"):
        put(tmp_path, f"{name}/x.md")
    text = "sources: [core, c, b-backups, hub, a-backups, b, a]\nfirst: [hub, core]\nlast: ['*-backups']\n"
    assert names(sources_of(tmp_path, text)) == ["hub", "core", "a", "b", "c", "a-backups", "b-backups"]


def test_old_names(tmp_path: Path) -> None:
    rows = "".join(f"| [x](https://example.org/me/{name}) |\n" for name in ("asi-visual-engine", "core", "gone"))
    put(tmp_path, "hub.md", rows)
    put(tmp_path, "old-notes/x.md")
    found = sources_of(
        tmp_path,
        """
        sources: [{location: "readme:hub.md#me", exclude: [gone]}, old-notes]
        renamed: {asi-visual-engine: ml-visual-engine, old-notes: notes}
        first: [asi-visual-engine]
        """,
    )
    assert found == [
        Source("ml-visual-engine", "remote", "https://example.org/me/ml-visual-engine"),
        Source("core", "remote", "https://example.org/me/core"),
        Source("notes", "directory", "old-notes"),
    ]


def test_an_entry_of_its_own_outranks_the_list(tmp_path: Path) -> None:
    put(tmp_path, "hub.md", "| [x](https://example.org/me/core) |\n")
    found = sources_of(tmp_path, "sources: ['readme:hub.md#me', 'https://example.org/me/core#v2']\n")
    assert found == [Source("core", "remote", "https://example.org/me/core", "v2")]


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("zoo", "ant", "a=b", "with#mark"):
        put(tmp_path, f"{name}/x.md")
    make_repository(tmp_path / "code", {"x.md": "x\n"})
    monkeypatch.chdir(tmp_path)
    texts = [
        "zoo",
        "zwei=ant",
        "./a=b",
        "with#mark",
        "code#v1",
        "file:///srv/x?a=b",
        "n=https://example.org/y#z",
    ]
    assert find_sources(config_of(texts), tmp_path, as_written=True) == [
        Source("zoo", "directory", str(tmp_path / "zoo")),
        Source("zwei", "directory", str(tmp_path / "ant")),
        Source("a=b", "directory", str(tmp_path / "a=b")),
        Source("with#mark", "directory", str(tmp_path / "with#mark")),
        Source("code", "checkout", str(tmp_path / "code"), "v1"),
        Source("x?a=b", "remote", "file:///srv/x?a=b"),
        Source("n", "remote", "https://example.org/y", "z"),
    ]
    monkeypatch.chdir(tmp_path / "zoo")
    assert names(find_sources(config_of(["."]), tmp_path)) == ["zoo"]


def test_a_folder_of_a_checkout(tmp_path: Path) -> None:
    make_repository(tmp_path / "code", {".gitignore": "data/\n", "docs/a.md": "a\n"})
    put(tmp_path, "code/data/b.md")
    entries = (SourceEntry("code/docs"), SourceEntry("code/data"))
    docs, data = find_sources(GenomeConfig(entries), tmp_path, as_written=True)
    assert docs == Source("docs", "checkout", str(tmp_path / "code"), folder="docs")
    assert data == Source("data", "directory", "code/data")  # ignored: no part of the checkout


def test_the_environment_of_a_git_hook_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_repository(tmp_path / "code", {"a.md": "a\n"})
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert sources_of(tmp_path, "sources: [code]") == [Source("code", "checkout", "code")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sources: [nowhere]", "there is no such directory"),
        ("sources: [genome.yaml]", "a source is a directory, and this is a file"),
        ("sources: [bare.git]", "a repository without a work tree"),
        ("sources: [{location: plain, ref: main}]", "a plain directory has no commits"),
        ("sources: [plain, {location: other, name: plain}]", "two sources are called 'plain'"),
        ("sources: [plain, {location: other, name: PLAIN}]", "one folder on some computers"),
        ("sources: [{location: plain, name: a/b}]", "is no name for a repository"),
        ("sources: [{location: plain, name: '..'}]", "is no name for a repository"),
        ("sources: [{location: plain, name: .GIT}]", "is no name for a repository"),
        ("sources: ['file:///srv/.git']", "is no name for a repository"),
        ("sources: [~nosuchuser/x]", "there is no such directory"),
        (f"sources: [{'x' * 5000}]", "there is no such directory"),
        ('sources: ["a\\u0001b"]', "holds a control character"),
        ("sources: ['https://example.org/x?secret=1']", "a URL with a query"),
        ("sources: ['readme:token.md#me']", "or a token"),
        ("sources: ['readme:git.md#me']", "'.git' is no name for a repository"),
        ("sources: ['https://example.org/x#-u']", "starts with '-'"),
        ("sources: ['--upload-pack=touch x']", "starts with '-'"),
        ("sources: ['https://me:secret@example.org/x']", "this URL holds a password"),
        ("sources: ['https://secret@example.org/x']", "or a token"),
        ("sources: ['ssh://me:secret@example.org/x']", "this URL holds a password"),
        ("sources: [plain]\nfirst: [plane]", "first: 'plane' matches none"),
        ("sources: [plain]\nfirst: [plain]\nlast: [plain]", "last: 'plain' matches none"),
        ("sources: []", "an empty list makes no genome"),
        ("sources: [{location: plain, ref: a, commit: b}]", r"sources\[0\]: ref and commit contradict"),
        ("sources: [{location: plain, commit: v1}]", r"sources\[0\].commit: 'v1' is not all 40 or 64"),
        ("sources: [{location: 'readme:x#y', name: z}]", r"sources\[0\]: name, commit and folder mean one"),
        ("sources: [{location: plain, exclude: [z]}]", r"sources\[0\].exclude: names repositories of a readme"),
        ("sources: [{location: plain, folder: a/../..}]", r"leads out of the repository"),
        ("sources: [plain]\nfiles: {text: [], notebook: [], table: []}", "there is nothing to take"),
        ("sources: [plain]\nfiles: {text: [md]}", "files.text: 'md' is no suffix"),
        ("sources: [plain]\nfrist: [plain]", "frist: unknown key; did you mean 'first'?"),
        ("sources: [plain", "is not valid YAML"),
        ("version: 2\nsources: [plain]", "version: 2 is not one of 1"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    put(tmp_path, "plain/a.md")
    put(tmp_path, "other/a.md")
    put(tmp_path, "token.md", "| [x](https://secret@example.org/me/x) |\n")
    put(tmp_path, "git.md", "| [x](https://example.org/me/.git.git) |\n")
    git(tmp_path, "init", "--quiet", "--bare", "bare.git")
    with pytest.raises(GenomeError, match=words) as caught:
        sources_of(tmp_path, text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", " ", "..", ".git", ".Git", ".git ", "git~1", ".g\u200cit", ".partial", "a\x1bb", "a/b"]
)
def test_no_names(name: str) -> None:
    assert name_problem(name) == f"{name!r} is no name for a repository: it must be one that a folder can have"


@pytest.mark.parametrize("name", [".github", "a b", "größe", "git~2", "x.git"])
def test_names(name: str) -> None:
    assert name_problem(name) is None


def test_a_bad_name_in_a_list_says_which_row(tmp_path: Path) -> None:
    put(tmp_path, "me/x.md")
    put(tmp_path, "hub.md", "| [x](file://host/me/.partial) |\n")
    with pytest.raises(GenomeError) as caught:
        sources_of(tmp_path, "sources: ['readme:hub.md#me']")
    assert caught.value.where == "file://host/me/.partial"
    assert sources_of(tmp_path, "sources: [{location: 'readme:hub.md#me', exclude: [.partial]}, me]") == [
        Source("me", "directory", "me")
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="a Mac has UTF-8 names alone")
def test_a_directory_whose_name_is_not_utf8(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    put(odd, "a.md")
    make_repository(odd / "code", {"docs/a.md": "a\n"})
    for texts, base in (([str(odd)], tmp_path), ([str(odd / "code" / "docs")], tmp_path)):
        with pytest.raises(GenomeError, match="is not UTF-8") as caught:
            find_sources(config_of(texts), base)
        str(caught.value).encode("utf-8")  # it can be printed
    # Only what the lock names counts.
    assert find_sources(GenomeConfig((SourceEntry("code"),)), odd) == [Source("code", "checkout", "code")]


def test_no_list(tmp_path: Path) -> None:
    with pytest.raises(GenomeError, match="cannot be read"):
        load_config(tmp_path / "genome.yaml")
