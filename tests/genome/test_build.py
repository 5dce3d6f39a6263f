"""Building a genome from pinned repositories: which bytes, in which order, and what is said of every file."""

import dataclasses
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.build import BuildReport, build_genome, refuse_inside_source, refuse_lock_inside_directory
from chrysalis_mlx.genome.files.rules import LeftOut
from chrysalis_mlx.genome.manifest import FileRecord, manifest_path, read_manifest
from chrysalis_mlx.genome.sources.find import config_of, load_config
from chrysalis_mlx.genome.sources.lock import lock_sources
from chrysalis_mlx.genome.sources.pins import Failure, Lock, Pin
from chrysalis_mlx.genome.text.format import GenomeFile, read_genome
from tests.genome.repositories import PROJECT, git, make_repository, put

MIT = (PROJECT / "LICENSE").read_text(encoding="utf-8")


def lock_of(tmp_path: Path, *texts: str, **rules: object) -> Lock:
    lock = lock_sources(config_of([str(tmp_path / text) for text in texts]), tmp_path, as_written=True).lock
    return dataclasses.replace(lock, files=dataclasses.replace(lock.files, **rules)).at(tmp_path)


def build(tmp_path: Path, lock: Lock, name: str = "out/genome.txt", **options: Any) -> BuildReport:
    return build_genome(lock, tmp_path / "clones", tmp_path / name, **options)


def left_out(tmp_path: Path, name: str = "out/genome.txt") -> dict[str, tuple[str, str]]:
    _, records = read_manifest(manifest_path(tmp_path / name))
    return {item.path: (item.reason, item.detail) for record in records for item in record.left_out}


@pytest.fixture
def sources(tmp_path: Path) -> Lock:
    make_repository(tmp_path / "zoo", {"b.md": "beta\r\n", "a.md": "\ufeffalpha", "bad.md": b"\xff", "LICENSE": MIT})
    put(tmp_path, "ant/blank.txt", " \n")
    put(tmp_path, "ant/copy.md", "<|file_end|>\n")
    return lock_of(tmp_path, "zoo", "ant")


@pytest.mark.parametrize("name", ["g.txt", "g.txt.gz", "g.txt.xz"])
def test_the_same_lock_gives_the_same_bytes(tmp_path: Path, sources: Lock, name: str) -> None:
    report = build(tmp_path, sources, f"one/{name}")
    build(tmp_path, sources, f"two/{name}")
    for made in (name, "g.json"):
        assert (tmp_path / "one" / made).read_bytes() == (tmp_path / "two" / made).read_bytes()
    assert list(read_genome(tmp_path / "one" / name)) == [
        GenomeFile("zoo", "a.md", "\ufeffalpha"),
        GenomeFile("zoo", "b.md", "beta\r\n"),
        GenomeFile("ant", "blank.txt", " \n"),
        GenomeFile("ant", "copy.md", "<|file_end|>\n"),
    ]
    assert report.files == 4
    assert report.notable == [("zoo", "bad.md", "encoding", "not UTF-8: byte 0xff in line 1")]
    assert [(item.repository, item.files, item.bytes, item.left_out) for item in report.repositories] == [
        ("zoo", 2, 8 + 6, {"type": 1, "encoding": 1}),
        ("ant", 2, 2 + 13, {}),
    ]


def test_manifest_accounts_for_every_file(tmp_path: Path, sources: Lock) -> None:
    report = build(tmp_path, sources)
    head, (zoo, ant) = read_manifest(tmp_path / "out" / "genome.json")
    assert head["genome"] == {
        "sha256": report.sha256,
        "bytes": (tmp_path / "out" / "genome.txt").stat().st_size,
        "repositories": 2,
        "files": 4,
        "content_bytes": 29,
    }
    assert (head["lock"], head["failed"], head["rules"]["max_bytes"]) == (sources.sha256, [], 2 << 20)
    commit = git(tmp_path / "zoo", "rev-parse", "HEAD")
    assert (zoo.name, zoo.kind, zoo.commit, zoo.ref, zoo.licence) == (
        "zoo",
        "checkout",
        commit,
        "refs/heads/main",
        "MIT",
    )
    assert zoo.files[1] == FileRecord(
        "b.md",
        hashlib.sha256(b"beta\r\n").hexdigest(),
        6,
        git(tmp_path / "zoo", "rev-parse", "HEAD:b.md"),
    )
    assert zoo.left_out == [
        LeftOut("LICENSE", "type", "no suffix"),
        LeftOut("bad.md", "encoding", "not UTF-8: byte 0xff in line 1"),
    ]
    assert (ant.kind, ant.commit, ant.tree, ant.licence) == ("directory", None, sources.repositories[1].tree, None)
    listed = {file.path for file in zoo.files} | {item.path for item in zoo.left_out}
    assert listed == set(git(tmp_path / "zoo", "ls-files").split())


def test_the_work_tree_has_no_say(tmp_path: Path) -> None:
    root = tmp_path / "code"
    make_repository(root, {"a.md": "committed\n", "gone.md": "g\n", "sub/b.md": "b\n"})
    lock = lock_of(tmp_path, "code")
    first = build(tmp_path, lock).sha256
    put(root, "a.md", "changed\n")
    put(root, "new.md")
    git(root, "add", "new.md")
    (root / "gone.md").unlink()
    (root / "sub" / "b.md").unlink()
    (root / "sub").rmdir()
    (root / "sub").symlink_to(tmp_path)
    assert build(tmp_path, lock).sha256 == first
    make_repository(root, {"a.md": "next\n"})
    assert build(tmp_path, lock).sha256 == first  # the pinned commit, not the branch
    assert build(tmp_path, lock_of(tmp_path, "code")).sha256 != first


def test_attributes_and_settings_do_not_change_bytes(tmp_path: Path) -> None:
    files = {"a.md": "one\r\ntwo\n", "b.md": "$Id$\n", ".gitattributes": "*.md text eol=crlf ident\n"}
    make_repository(tmp_path / "code", {name: text for name, text in files.items() if name != ".gitattributes"})
    put(tmp_path, "code/.gitattributes", files[".gitattributes"])
    git(tmp_path / "code", "config", "core.autocrlf", "true")
    git(tmp_path / "code", "add", ".gitattributes")
    git(tmp_path / "code", "commit", "--quiet", "-m", "attributes")
    build(tmp_path, lock_of(tmp_path, "code"))
    assert [file.text for file in read_genome(tmp_path / "out" / "genome.txt")] == ["one\r\ntwo\n", "$Id$\n"]


def test_replacement_objects_do_not_count(tmp_path: Path) -> None:
    root = tmp_path / "code"
    make_repository(root, {"a.md": "true\n"})
    put(tmp_path, "false.md", "false\n")
    false = git(root, "hash-object", "-w", str(tmp_path / "false.md"))
    git(root, "replace", git(root, "rev-parse", "HEAD:a.md"), false)
    build(tmp_path, lock_of(tmp_path, "code"))
    assert [file.text for file in read_genome(tmp_path / "out" / "genome.txt")] == ["true\n"]


def test_each_reason_for_leaving_out(tmp_path: Path) -> None:
    root = tmp_path / "code"
    key = "-----BEGIN RSA " + "PRIVATE KEY-----\n"
    lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n"
    make_repository(
        root,
        {
            "binary.txt": b"a\0b",
            "big.txt": "x" * 101,
            "fits.txt": "x" * 100,
            "latin.txt": b"first\nca\xe9\n",
            "photo.png": b"\x89PNG",
            "Makefile": "all:\n",
            "logs/a.md": "log\n",
            "pointer.json": lfs,
            "key.md": key,
            "bad.ipynb": "{}",
            "two\nlines.md": "x\n",
            "ä/ö.md": "umlaut\n",
            "-dash.md": "dash\n",
        },
    )
    (root / "link.md").symlink_to("/etc/hostname")
    git(root, "add", "link.md")
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},library")
    git(root, "commit", "--quiet", "-m", "second")
    report = build(tmp_path, lock_of(tmp_path, "code", max_bytes=100, exclude=("logs/",)))
    found = left_out(tmp_path)
    assert {path: reason for path, (reason, _) in found.items()} == {
        "binary.txt": "binary",
        "big.txt": "size",
        "latin.txt": "encoding",
        "photo.png": "type",
        "Makefile": "type",
        "logs/a.md": "rule",
        "pointer.json": "lfs",
        "key.md": "secret",
        "bad.ipynb": "notebook",
        '"two\\012lines.md"': "name",
        "link.md": "link",
        "library": "submodule",
    }
    assert found["big.txt"][1] == "101 bytes, more than the limit of 100"
    assert found["latin.txt"][1] == "not UTF-8: byte 0xe9 in line 2"
    assert found["key.md"][1] == "Private Key in line 1"
    assert [file.path for file in read_genome(tmp_path / "out" / "genome.txt")] == ["-dash.md", "fits.txt", "ä/ö.md"]
    assert len(report.notable) == 9

    build(tmp_path, lock_of(tmp_path, "code", secrets="keep", include=("*.md",)))
    assert [file.path for file in read_genome(tmp_path / "out" / "genome.txt")] == [
        "-dash.md",
        "key.md",
        "logs/a.md",
        "ä/ö.md",
    ]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no file names that are not UTF-8")
def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    make_repository(tmp_path / "code", {"a.md": "a\n"})
    (tmp_path / "code" / b"latin\xe9.md".decode("utf-8", "surrogateescape")).write_text("x\n")
    git(tmp_path / "code", "add", ".")
    git(tmp_path / "code", "commit", "--quiet", "-m", "latin")
    build(tmp_path, lock_of(tmp_path, "code"))
    assert left_out(tmp_path) == {'"latin\\351.md"': ("name", "its name is not UTF-8")}


def test_notebooks_and_tables(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n"], "metadata": {}},
        {"cell_type": "code", "source": "print(1)", "outputs": [{"text": "1\n"}], "metadata": {}},
    ]
    notebook = json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells})
    rows = "name,value\r\n" + "".join(f'"row {n}","a\nb"\r\n' for n in range(50))
    make_repository(tmp_path / "code", {"n.ipynb": notebook, "t.csv": rows})
    build(tmp_path, lock_of(tmp_path, "code", table_rows=2))
    texts = {file.path: file.text for file in read_genome(tmp_path / "out" / "genome.txt")}
    assert texts["t.csv"] == 'name,value\r\n"row 0","a\nb"\r\n"row 1","a\nb"\r\n'
    assert "# Title" in texts["n.ipynb"]
    assert "```python\nprint(1)\n```" in texts["n.ipynb"]
    assert "outputs" not in texts["n.ipynb"]


def test_folder_of_a_repository_has_the_licence_of_its_top(tmp_path: Path) -> None:
    make_repository(tmp_path / "code", {"LICENSE": MIT, "docs/a.md": "a\n", "other.md": "o\n"})
    build(tmp_path, lock_of(tmp_path, "code/docs"))
    _, (record,) = read_manifest(tmp_path / "out" / "genome.json")
    assert (record.name, record.folder, record.licence) == ("docs", "docs", "MIT")
    assert [file.path for file in record.files] == ["a.md"]


def test_a_licence_that_is_not_allowed(tmp_path: Path) -> None:
    make_repository(tmp_path / "mit", {"LICENSE": MIT, "a.md": "a\n"})
    make_repository(tmp_path / "none", {"a.md": "a\n", "b.png": b"b"})
    report = build(tmp_path, lock_of(tmp_path, "mit", "none", licences=("MIT", "Apache-*")))
    assert [file.repository for file in read_genome(tmp_path / "out" / "genome.txt")] == ["mit"]
    detail = "none, and files.licences allows MIT, Apache-*"
    assert left_out(tmp_path)["a.md"] == ("licence", detail)
    assert report.repositories[1].left_out == {"licence": 2}


def test_a_plain_directory(tmp_path: Path) -> None:
    for path in ("a.md", "sub/b.md", ".git/config.md", "node_modules/x.js", "env/pyvenv.cfg", "env/lib/x.py"):
        put(tmp_path, f"plain/{path}")
    put(tmp_path, "outside/secret.md")
    (tmp_path / "plain" / "folder").symlink_to(tmp_path / "outside")
    lock = lock_of(tmp_path, "plain")
    build(tmp_path, lock)
    assert [file.path for file in read_genome(tmp_path / "out" / "genome.txt")] == ["a.md", "sub/b.md"]
    assert {path: reason for path, (reason, _) in left_out(tmp_path).items()} == {
        ".git": "rule",
        "env": "rule",
        "node_modules": "rule",
        "folder": "type",
    }
    put(tmp_path, "plain/a.md", "changed\n")
    with pytest.raises(GenomeError, match="the directory was changed after it was locked"):
        build(tmp_path, lock)


def test_a_damaged_object_never_passes(tmp_path: Path) -> None:
    root = tmp_path / "code"
    make_repository(root, {"a.md": "alpha\n", "b.md": "beta\n"})
    lock = lock_of(tmp_path, "code")
    oid = git(root, "rev-parse", "HEAD:a.md")
    other = git(root, "rev-parse", "HEAD:b.md")
    place = root / ".git" / "objects" / oid[:2] / oid[2:]
    place.chmod(0o644)
    place.write_bytes((root / ".git" / "objects" / other[:2] / other[2:]).read_bytes())  # whole, and another's
    with pytest.raises(GenomeError, match=f"the object {oid} is"):
        build(tmp_path, lock)
    place.unlink()
    with pytest.raises(GenomeError, match=f"the object {oid} is missing"):
        build(tmp_path, lock)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_a_forged_tree_never_passes(tmp_path: Path) -> None:
    root = tmp_path / "code"
    make_repository(root, {"docs/a.md": "true\n"})
    lock = lock_of(tmp_path, "code")
    make_repository(tmp_path / "forger", {"docs/a.md": "forged\n"})
    tree = git(root, "rev-parse", "HEAD:docs")
    for path in (tmp_path / "forger" / ".git" / "objects").glob("??/*"):
        put(root, f".git/objects/{path.parent.name}/{path.name}", path.read_bytes())
    other = git(tmp_path / "forger", "rev-parse", "HEAD:docs")
    place = root / ".git" / "objects" / tree[:2] / tree[2:]
    place.chmod(0o644)
    place.write_bytes((root / ".git" / "objects" / other[:2] / other[2:]).read_bytes())
    with pytest.raises(GenomeError, match=r"are not those of the commit|cannot be listed"):
        build(tmp_path, lock)


def test_a_tree_that_an_old_tool_wrote_is_sound(tmp_path: Path) -> None:
    root = tmp_path / "code"
    make_repository(root, {"docs/a.md": "old\n"})
    docs = bytes.fromhex(git(root, "rev-parse", "HEAD:docs"))
    raw = put(tmp_path, "tree", b"040000 docs\0" + docs)  # git writes 40000
    tree = git(root, "hash-object", "-t", "tree", "-w", "--literally", str(raw))
    git(root, "reset", "--quiet", "--hard", git(root, "commit-tree", tree, "-m", "old"))
    build(tmp_path, lock_of(tmp_path, "code"))
    assert [file.path for file in read_genome(tmp_path / "out" / "genome.txt")] == ["docs/a.md"]


def test_the_manifest_replaces_no_other_file(tmp_path: Path, sources: Lock) -> None:
    package = put(tmp_path, "out/package.json", "{}")
    with pytest.raises(GenomeError, match=r"would replace package\.json, which is none"):
        build(tmp_path, sources, "out/package")
    assert package.read_text() == "{}"
    assert not (tmp_path / "out" / "package").exists()


def test_an_unreadable_file_is_notable(tmp_path: Path) -> None:
    put(tmp_path, "plain/a.md", "a\n")
    os.mkfifo(tmp_path / "plain" / "pipe.md")
    report = build(tmp_path, lock_of(tmp_path, "plain"))
    assert report.notable == [("plain", "pipe.md", "unreadable", "neither a file nor a folder")]


def test_what_cannot_be_had(tmp_path: Path, sources: Lock) -> None:
    missing = Pin("web", "remote", "https://example.org/web", "1" * 40)
    lock = dataclasses.replace(sources, repositories=(*sources.repositories, missing)).at(tmp_path)
    with pytest.raises(GenomeError, match="the repository is not here") as caught:
        build(tmp_path, lock)
    assert caught.value.fix == "chrysalis-mlx genome clone"
    lock = dataclasses.replace(lock, failed=(Failure("gone", "https://example.org/gone", "not found"),)).at(tmp_path)
    with pytest.raises(GenomeError, match=r"2 repositories cannot be had:\n  - gone: not found\n  - web: the rep"):
        build(tmp_path, lock)
    report = build(tmp_path, lock, keep_going=True)
    assert [failure.name for failure in report.failed] == ["gone", "web"]
    head, _ = read_manifest(tmp_path / "out" / "genome.json")
    assert [failure["name"] for failure in head["failed"]] == ["gone", "web"]
    assert head["lock"] == lock.sha256

    git(tmp_path, "init", "--quiet", ".")  # a folder that is no repository itself, inside of one
    (tmp_path / "clones" / "web").mkdir(parents=True)
    with pytest.raises(GenomeError, match="this is no git repository"):
        build(tmp_path, dataclasses.replace(lock, failed=()).at(tmp_path))


def test_a_damaged_repository_inside_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    commit = make_repository(tmp_path, {"a.md": "outer\n"})
    make_repository(tmp_path / "clones" / "web", {"a.md": "inner\n"})
    (tmp_path / "clones" / "web" / ".git" / "HEAD").unlink()
    lock = Lock(repositories=(Pin("web", "remote", "https://example.org/web", commit),)).at(tmp_path)
    with pytest.raises(GenomeError, match=f"the commit {commit} is not here"):
        build(tmp_path, lock, "../genome.txt")


def test_output_inside_of_a_source(tmp_path: Path, sources: Lock) -> None:
    make_repository(tmp_path / "code", {".gitignore": "built/\n", "a.md": "a\n"})
    lock = lock_of(tmp_path, "code", "ant")
    for name in ("ant/g.txt", "ant/deep/g.txt.xz", "code/g.txt", "code/docs/g.txt"):
        with pytest.raises(GenomeError, match="read into itself"):
            build(tmp_path, lock, name)
        assert not (tmp_path / name).exists()
    with pytest.raises(GenomeError, match="read into itself"):
        refuse_inside_source(lock, tmp_path / "clones", tmp_path / "ant" / "clones")
    with pytest.raises(GenomeError, match="read into itself"):
        refuse_lock_inside_directory(lock, tmp_path / "ant" / "genome.lock.json")
    refuse_lock_inside_directory(lock, tmp_path / "code" / "genome.lock.json")  # of a checkout the commit counts
    web = make_repository(tmp_path / "clones" / "web", {"a.md": "a\n"})
    remote = Lock(repositories=(Pin("web", "remote", "https://example.org/web", web),)).at(tmp_path)
    with pytest.raises(GenomeError, match="read into itself"):
        build(tmp_path, remote, "clones/web/g.txt")
    put(tmp_path, "code/.gitignore", "built/\n*.txt\n")
    with pytest.raises(GenomeError, match="read into itself"):
        build(tmp_path, lock, "code/g.txt")  # git ignores it, and not its manifest
    assert build(tmp_path, lock, "code/built/g.txt").files == 3  # what git ignores is no part of the checkout
    git(tmp_path / "code", "add", "--force", "built/g.txt")
    with pytest.raises(GenomeError, match="read into itself"):
        build(tmp_path, lock, "code/built/g.txt")


def test_nothing_to_write_keeps_what_was_there(tmp_path: Path) -> None:
    put(tmp_path, "empty/photo.png")
    old = put(tmp_path, "out/genome.txt", "old")
    with pytest.raises(GenomeError, match="no file"):
        build(tmp_path, lock_of(tmp_path, "empty"))
    assert old.read_text() == "old"
    assert not manifest_path(old).exists()


def test_curriculum_order_is_the_genomes_order(tmp_path: Path) -> None:
    for name in ("b", "a", "z"):
        make_repository(tmp_path / name, {"x.md": f"{name}\n"})
    config = load_config(put(tmp_path, "genome.yaml", "sources: [a, b, z]\nfirst: [z]\nlast: [a]\n"))
    build(tmp_path, lock_sources(config, tmp_path).lock)
    assert [file.repository for file in read_genome(tmp_path / "out" / "genome.txt")] == ["z", "b", "a"]


@pytest.mark.parametrize(
    ("genome", "manifest"),
    [("g.txt", "g.json"), ("g.txt.xz", "g.json"), ("g.gz", "g.json"), ("g", "g.json"), ("g.md", "g.md.json")],
)
def test_where_the_manifest_lies(genome: str, manifest: str) -> None:
    assert manifest_path(Path("x") / genome) == Path("x") / manifest
