"""Proving a genome: one flipped byte is found, wherever it is, and the repositories are compared as well."""

import dataclasses
import json
from pathlib import Path

import pytest

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.build import build_genome
from chrysalis_mlx.genome.manifest import copy_manifest, read_manifest
from chrysalis_mlx.genome.sources.find import load_config
from chrysalis_mlx.genome.sources.lock import lock_sources
from chrysalis_mlx.genome.sources.pins import Lock
from chrysalis_mlx.genome.text.format import GenomeFile, genome_identity, read_genome, write_genome
from chrysalis_mlx.genome.verify import Verification, verify_genome
from tests.genome.repositories import git, make_repository, put

YAML = "sources: [code, plain]\n"


@pytest.fixture
def lock(tmp_path: Path) -> Lock:
    make_repository(tmp_path / "code", {"a.md": "alpha\n", "b.md": "<|file_end|>\r\n", "bad.md": b"\xff"})
    put(tmp_path, "plain/c.md", "gamma\n")
    lock = lock_sources(load_config(put(tmp_path, "genome.yaml", YAML)), tmp_path).lock
    build_genome(lock, tmp_path / "clones", tmp_path / "genome.txt")
    return lock


def verify(tmp_path: Path, **options: object) -> Verification:
    return verify_genome(tmp_path / "genome.txt", **options)  # type: ignore[arg-type]


def test_a_sound_genome(tmp_path: Path, lock: Lock) -> None:
    found = verify(tmp_path, lock=lock)
    assert (found.problems, found.files, found.repositories) == ([], 3, 2)
    assert found.sha256 == genome_identity(tmp_path / "genome.txt").sha256


def test_every_flipped_bit_is_found(tmp_path: Path, lock: Lock) -> None:
    path = tmp_path / "genome.txt"
    sound = path.read_bytes()
    for at in range(len(sound)):
        damaged = bytearray(sound)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        assert verify(tmp_path).problems, f"byte {at}, {sound[at : at + 1]!r}"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b"alpha", b"alpHa", "code/a.md: altered: 6 bytes of sha256"),
        (b"alpha", b"alphas", "code/a.md: altered: 7 bytes of sha256"),
        (b"<|file_start|>a.md\nalpha\n\n<|file_end|>\n", b"", "code/a.md: missing"),
        (b"<|file_start|>a.md", b"<|file_start|>z.md", "code/z.md: not in the manifest, or there twice"),
        (b"<|repo_end|>\n", b"<|repo_end|>\n\n", "every file is as it should be, but something between them"),
        (b"<|repo_end|>\n\n<|repo_start|>p", b"<|repo_start|>p", "malformed genome: expected <|file_start|>PATH"),
        (b"alpha", b"alp\xffa", "the genome is not UTF-8: byte 0xff"),
    ],
)
def test_what_was_changed_is_named(tmp_path: Path, lock: Lock, old: bytes, new: bytes, problem: str) -> None:
    path = tmp_path / "genome.txt"
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    assert verify(tmp_path).problems[0].startswith(problem)


def test_files_that_changed_places(tmp_path: Path, lock: Lock) -> None:
    one, two, three = read_genome(tmp_path / "genome.txt")
    write_genome([two, one, three], tmp_path / "genome.txt")
    assert verify(tmp_path).problems == ["code/b.md: not where the manifest has it"]
    write_genome([one, two, one, three], tmp_path / "genome.txt")
    assert "code/a.md: not in the manifest, or there twice" in verify(tmp_path).problems


def test_against_the_sources(tmp_path: Path, lock: Lock) -> None:
    put(tmp_path, "code/a.md", "changed, not committed\n")
    assert verify(tmp_path, lock=lock).problems == []
    put(tmp_path, "plain/c.md", "changed\n")
    assert verify(tmp_path, lock=lock).problems == ["plain: the directory was changed after it was locked"]
    put(tmp_path, "plain/c.md", "gamma\n")

    # A manifest and a genome that agree with each other, and not with the commit.
    path = tmp_path / "genome.txt"
    manifest = tmp_path / "genome.json"
    before = read_manifest(manifest)[1][0].files[0]
    path.write_bytes(path.read_bytes().replace(b"alpha", b"omega"))
    forged = manifest.read_text().replace(before.sha256, "a6c1e3ac15e5b10f2c4e9d1e1c0a0b5e" * 2)
    manifest.write_text(forged)
    problems = verify(tmp_path, lock=lock).problems
    assert any(problem.startswith("code/a.md: the manifest has FileRecord(path='a.md'") for problem in problems)


def test_a_file_that_the_manifest_does_not_account_for(tmp_path: Path, lock: Lock) -> None:
    manifest = tmp_path / "genome.json"
    value = json.loads(manifest.read_text())
    assert value["repositories"][0]["left_out"].pop()["path"] == "bad.md"
    value["repositories"][0]["licence"] = "MIT"
    manifest.write_text(json.dumps(value))
    assert verify(tmp_path).problems == []
    licence, unnamed = verify(tmp_path, lock=lock).problems
    assert licence == "code: the manifest says the licence is MIT, its source says None"
    assert unnamed.startswith("code/bad.md: the manifest has nothing, its source gives LeftOut(path='bad.md'")


def forge(tmp_path: Path, **changes: object) -> None:
    """Change the manifest as somebody would who wants it to pass."""
    manifest = tmp_path / "genome.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))


def test_another_lock(tmp_path: Path, lock: Lock) -> None:
    rules = dataclasses.replace(lock, files=dataclasses.replace(lock.files, exclude=("*.rst",))).at(tmp_path)
    assert verify(tmp_path, lock=rules).problems == [
        "files.exclude: the lock says ['*.rst'], the genome was built with []"
    ]
    later = make_repository(tmp_path / "code", {"new.md": "new\n"})
    code, plain = lock.repositories
    moved = dataclasses.replace(lock, repositories=(dataclasses.replace(code, commit=later), plain)).at(tmp_path)
    problems = verify(tmp_path, lock=moved).problems
    assert problems[0].startswith("code: the manifest has Pin(name='code', kind='checkout'")
    assert problems[1].startswith("code/new.md: the manifest has nothing, its source gives FileRecord(path='new.md'")
    turned = dataclasses.replace(lock, repositories=(plain, code)).at(tmp_path)
    assert verify(tmp_path, lock=turned).problems == ["the repositories do not follow each other as in the lock"]


def test_a_genome_that_hides_a_repository_of_the_lock(tmp_path: Path, lock: Lock) -> None:
    part = dataclasses.replace(lock, repositories=lock.repositories[:1]).at(tmp_path)
    build_genome(part, tmp_path / "clones", tmp_path / "genome.txt")
    hidden = ["plain: the lock has it and it is here, and the genome is without it"]
    forge(tmp_path, lock=lock.sha256)
    assert verify(tmp_path, lock=lock).problems == hidden
    forge(tmp_path, lock=lock.sha256, failed=[{"name": "plain", "location": "plain", "reason": "gone"}])
    assert verify(tmp_path, lock=lock).problems == hidden
    (tmp_path / "plain").rename(tmp_path / "away")
    assert verify(tmp_path, lock=lock).problems == []  # it says that it is without, and it cannot be had


def test_a_repository_that_could_not_be_had_has_no_files(tmp_path: Path, lock: Lock) -> None:
    forge(tmp_path, failed=[{"name": "plain", "location": "plain", "reason": "gone"}])
    (tmp_path / "plain").rename(tmp_path / "away")
    assert verify(tmp_path, lock=lock).problems == ["plain: the repository is not here"]


@pytest.mark.parametrize("name", ["bytes", "repositories", "files", "content_bytes"])
def test_false_totals(tmp_path: Path, lock: Lock, name: str) -> None:
    genome = json.loads((tmp_path / "genome.json").read_text())["genome"]
    forge(tmp_path, genome=genome | {name: genome[name] + 1})
    assert verify(tmp_path).problems == [
        f"the manifest counts {genome[name] + 1:,} as genome.{name}, it is {genome[name]:,}"
    ]


def test_a_manifest_that_has_something_twice(tmp_path: Path, lock: Lock) -> None:
    repositories = json.loads((tmp_path / "genome.json").read_text())["repositories"]
    forge(tmp_path, repositories=[repositories[0], *repositories])
    with pytest.raises(GenomeError, match="the manifest has code twice"):
        verify(tmp_path)
    file = repositories[0]["files"][0]
    forge(tmp_path, repositories=[repositories[0] | {"files": [{**file, "sha256": "0" * 64}, file]}])
    with pytest.raises(GenomeError, match=r"the manifest has code/a\.md twice"):
        verify(tmp_path)


def test_a_clone_that_lost_its_commit(tmp_path: Path, lock: Lock) -> None:
    (tmp_path / "code").rename(tmp_path / "old")
    make_repository(tmp_path / "code", {"x.md": "x\n"})
    (problem,) = verify(tmp_path, lock=lock).problems
    assert problem == f"code: the commit {git(tmp_path / 'old', 'rev-parse', 'HEAD')} is not here"


def test_a_genome_made_elsewhere(tmp_path: Path) -> None:
    identity = write_genome([GenomeFile("r", "a", "x"), GenomeFile("s", "b", "ä")], tmp_path / "genome.txt")
    with pytest.raises(GenomeError, match="the genome has no manifest"):
        verify(tmp_path)
    assert copy_manifest(tmp_path / "genome.txt", tmp_path / "genome.json") == identity
    assert verify(tmp_path).problems == []
    with pytest.raises(GenomeError, match="made elsewhere"):
        verify(tmp_path, lock=Lock())
    put(tmp_path, "genome.txt", (tmp_path / "genome.txt").read_text().replace("ä", "ö"))
    assert verify(tmp_path).problems[0].startswith("s/b: altered: 2 bytes")
    with pytest.raises(GenomeError, match="not the one that its manifest tells of"):
        copy_manifest(tmp_path / "genome.txt", tmp_path / "copy.json")


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 1}', '{"schema": 2, "genome": {}}', '{"schema": 2}'])
def test_a_manifest_that_is_none(tmp_path: Path, lock: Lock, content: str) -> None:
    put(tmp_path, "genome.json", content)
    with pytest.raises(GenomeError, match="the manifest"):
        verify(tmp_path)
