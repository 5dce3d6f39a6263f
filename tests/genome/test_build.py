"""Building a genome, its manifest, its summary, and the two commands."""

import hashlib
import json
from pathlib import Path

import pytest

from chrysalis_mlx.cli import main
from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.build import build_genome, manifest_path
from chrysalis_mlx.genome.sources import LeftOut, Selection, Source
from chrysalis_mlx.genome.summary import summarize
from chrysalis_mlx.genome.text import GenomeFile, read_genome
from tests.genome.test_sources import checkout, git, put  # noqa: F401  (checkout is a fixture)


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    put(tmp_path, "zoo/b.md", "beta\r\n")
    put(tmp_path, "zoo/a.md", "\ufeffalpha")
    put(tmp_path, "zoo/bad.md", b"\xff")
    put(tmp_path, "ant/blank.txt", " \n")
    put(tmp_path, "ant/copy.md", "beta\r\n")
    return [Source("zoo", tmp_path / "zoo"), Source("ant", tmp_path / "ant")]


@pytest.mark.parametrize("name", ["g.txt", "g.txt.gz", "g.txt.xz"])
def test_build_is_reproducible_and_complete(tmp_path: Path, sources: list[Source], name: str) -> None:
    report = build_genome(sources, tmp_path / "one" / name)
    build_genome(sources, tmp_path / "two" / name)
    for made in (name, f"{name}.json"):
        assert (tmp_path / "one" / made).read_bytes() == (tmp_path / "two" / made).read_bytes()
    assert list(read_genome(tmp_path / "one" / name)) == [
        GenomeFile("zoo", "a.md", "\ufeffalpha"),
        GenomeFile("zoo", "b.md", "beta\r\n"),
        GenomeFile("ant", "blank.txt", " \n"),
        GenomeFile("ant", "copy.md", "beta\r\n"),
    ]
    assert (report.repositories, report.files) == (2, 4)
    assert report.left_out == [LeftOut("zoo", "bad.md", "not UTF-8: byte 0xff in line 1")]


def test_manifest(tmp_path: Path, sources: list[Source], checkout: Path) -> None:  # noqa: F811
    put(checkout, "x.md", "tracked\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "-m", "first")
    put(checkout, "x.md", "changed\n")
    report = build_genome([*sources, Source("git", checkout)], tmp_path / "g.txt")
    manifest = json.loads(manifest_path(tmp_path / "g.txt").read_text())
    assert manifest["path"] == "g.txt"
    assert manifest["sha256"] == hashlib.sha256((tmp_path / "g.txt").read_bytes()).hexdigest() == report.sha256
    assert manifest["bytes"] == (tmp_path / "g.txt").stat().st_size
    assert manifest["by_repository"][2] == {
        "repository": "git",
        "files": 1,
        "bytes": 8,
        "commit": git(checkout, "rev-parse", "HEAD"),
        "dirty": True,
        "not_selected": 0,
    }
    assert manifest["content"][4] == {
        "repository": "git",
        "path": "x.md",
        "bytes": 8,
        "sha256": hashlib.sha256(b"changed\n").hexdigest(),
    }


def test_output_that_would_be_read_into_itself(tmp_path: Path, sources: list[Source], checkout: Path) -> None:  # noqa: F811
    zoo = sources[0].root
    for name in ("g.txt", "g.txt.xz"):  # of the packed one the manifest would be read
        with pytest.raises(GenomeError, match="read into itself"):
            build_genome(sources, zoo / name)
    assert sorted(path.name for path in zoo.iterdir()) == ["a.md", "b.md", "bad.md"]
    assert build_genome(sources, zoo / "g.txt", Selection(exclude=("g.txt*",))).files == 4

    put(checkout, "x.md")
    git(checkout, "add", ".")
    first = build_genome([Source("git", checkout)], checkout / "g.txt")
    assert build_genome([Source("git", checkout)], checkout / "g.txt") == first
    git(checkout, "add", ".")
    with pytest.raises(GenomeError, match=r"read into itself: g\.txt"):
        build_genome([Source("git", checkout)], checkout / "g.txt")


def test_nothing_to_write_keeps_what_was_there(tmp_path: Path) -> None:
    put(tmp_path, "empty/photo.png")
    put(tmp_path, "bad/latin.md", b"\xff")
    old = put(tmp_path, "g.txt", "old")
    for name in ("empty", "bad"):
        with pytest.raises(GenomeError, match="no file"):
            build_genome([Source(name, tmp_path / name)], old)
    assert old.read_text() == "old"
    assert not manifest_path(old).exists()


def test_summary(tmp_path: Path, sources: list[Source]) -> None:
    built = build_genome(sources, tmp_path / "g.txt.gz")
    summary = summarize(tmp_path / "g.txt.gz").as_dict()
    assert summary == {
        "path": tmp_path / "g.txt.gz",
        "sha256": built.sha256,
        "repositories": 2,
        "files": 4,
        "bytes": built.bytes,
        "content_bytes": 8 + 6 + 2 + 6,
        "duplicates": 1,
        "blank": 1,
        "longest": {"repository": "zoo", "path": "a.md", "characters": 6, "bytes": 8},
        "by_repository": [
            {"repository": "zoo", "files": 2, "bytes": 14},
            {"repository": "ant", "files": 2, "bytes": 8},
        ],
    }


def test_commands(
    tmp_path: Path, sources: list[Source], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["genome", "build", "zoo", "zwei=ant", "-o", "g.txt", "--exclude", "copy.md", "--json"]) == 0
    built = json.loads(capfd.readouterr().out)
    assert main(["genome", "show", "g.txt", "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert (shown["repositories"], shown["files"], shown["bytes"]) == (2, 3, (tmp_path / "g.txt").stat().st_size)
    assert built["sha256"] == shown["sha256"]
    assert [item["repository"] for item in built["by_repository"]] == ["zoo", "zwei"]
    assert built["left_out"] == [{"repository": "zoo", "path": "bad.md", "reason": "not UTF-8: byte 0xff in line 1"}]

    assert main(["genome", "build", "zoo", "-o", "g.txt"]) == 0
    printed = capfd.readouterr().out
    assert "not UTF-8: byte 0xff in line 1" in printed
    assert "g.txt: 2 files" in printed
    assert main(["genome", "show", "g.txt"]) == 0
    assert "2, of them 0 exact duplicates and 0 blank" in capfd.readouterr().out

    put(tmp_path, "broken.txt", "no genome\n")
    assert main(["genome", "show", "broken.txt", "--json"]) == 1
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: malformed genome: expected <|repo_start|>NAME")
    assert "broken.txt, line 1" in captured.err
