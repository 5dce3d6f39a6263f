"""The genome commands, one after the other, as a person calls them."""

import json
import os
from pathlib import Path

import pytest

from chrysalis_mlx.genome.text.format import genome_identity, read_genome
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests.end_to_end.inputs import call, report
from tests.genome.repositories import git, make_repository, put

YAML = """\
sources:
  - file://{origins}/code
  - file://{origins}/docs#v1
  - notes
first: [notes]
files: {{exclude: [secret.md]}}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    origins = tmp_path / "origins"
    make_repository(origins / "code", {"a.py": "print(1)\n", "data.csv": "x,y\n" + "1,2\n" * 99, "p.png": b"\x89"})
    make_repository(origins / "docs", {"ä.md": "eins\r\n", "copy.md": "print(1)\n", "secret.md": "s\n"})
    git(origins / "docs", "tag", "v1")
    make_repository(origins / "docs", {"late.md": "after v1\n"})
    put(tmp_path, "here/notes/n.txt", "note\n")
    put(tmp_path, "here/genome.yaml", YAML.format(origins=origins))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_lock_clone_audit_build_verify(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    locked = report(capfd, "genome", "lock")
    assert [pin["name"] for pin in locked["lock"]["repositories"]] == ["notes", "code", "docs"]
    outcomes = report(capfd, "genome", "clone")["repositories"]
    assert [(item["name"], item["outcome"]) for item in outcomes] == [("code", "cloned"), ("docs", "cloned")]
    audited = report(capfd, "genome", "audit")
    assert audited["failed"] == []
    assert [item["remote"] for item in audited["repositories"]] == ["not asked", "current", "current"]
    built = report(capfd, "genome", "build")
    assert (built["path"], built["manifest"], built["files"]) == ("genome.txt", "genome.json", 5)
    assert [(file.repository, file.path) for file in read_genome(place / "genome.txt")] == [
        ("notes", "n.txt"),
        ("code", "a.py"),
        ("code", "data.csv"),
        ("docs", "copy.md"),
        ("docs", "ä.md"),
    ]
    proved = report(capfd, "genome", "verify", "genome.txt", "--lock", "genome.lock.json")
    assert (proved["problems"], proved["files"], proved["repositories"]) == ([], 5, 3)
    shown = report(capfd, "genome", "show", "genome.txt")
    assert (shown["files"], shown["duplicates"], shown["tokens"]) == (5, 1, None)
    assert shown["sha256"] == built["sha256"] == genome_identity(place / "genome.txt").sha256


def test_the_same_for_people(place: Path, capfd: pytest.CaptureFixture[str], tiny_model: Path) -> None:
    for command, words in (
        (["lock"], ["notes", "directory", "tags/v1", "genome.lock.json: 3 repositories"]),
        (["clone"], ["cloned", "clones: 2 of 2 remotes are here"]),
        (["clone", "--offline"], ["present"]),
        (["audit"], ["L1 commit", "current", "pass", "3 of 3 repositories are sound"]),
        (
            ["build", "-o", "old.txt.xz"],
            ["left out: type 1, rule 1; file by file in old.json\n", "old.txt.xz: 5 files", "sha256 "],
        ),
        (["verify", "old.txt.xz"], ["5 files agree with old.json"]),
        (["verify", "old.txt.xz", "--lock", "genome.lock.json", "--clones", "clones"], ["and with 3 repositories"]),
        (["show", "old.txt.xz", "--model", str(tiny_model)], ["largest files", "tokens", "code/data.csv"]),
        (["build", "--exclude", "*.csv", "--exclude", "secret.md"], ["genome.txt: 4 files"]),
        (["diff", "old.txt.xz", "genome.txt"], ["- code/data.csv", "0 files came, 1 went, 0 changed"]),
        (["diff", "old.txt.xz", "old.txt.xz"], ["the same text, byte for byte"]),
    ):
        status, out, err = call(capfd, "genome", *command)
        assert status == 0, (command, err)
        for word in words:
            assert word in out, (command, out)


def test_clones_alone_say_nothing_of_where_a_checkout_is(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capfd, "genome", "verify", "genome.txt", "--clones", "clones")
    assert (status, out) == (2, "")
    assert "--clones needs --lock: relative locations count from the lock's folder" in err


def test_tokens_are_those_of_the_model(place: Path, capfd: pytest.CaptureFixture[str], tiny_model: Path) -> None:
    assert call(capfd, "genome", "build", "notes", "-o", "g.txt")[0] == 0
    shown = report(capfd, "genome", "show", "g.txt", "--model", tiny_model)
    assert shown["tokens"] == len(Tokenizer.open(tiny_model).encode("note\n"))


def test_a_damaged_clone_and_a_damaged_genome(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in ("lock", "clone", "build"):
        assert call(capfd, "genome", command)[0] == 0
    put(place, "clones/code/a.py", "print(2)\n")
    status, out, _ = call(capfd, "genome", "audit", "--offline")
    assert status == 1
    assert "code, L3 files:\n  altered: a.py" in out
    assert "2 of 3 repositories are sound" in out
    status, out, _ = call(capfd, "genome", "audit", "--json")
    assert (status, json.loads(out)["failed"]) == (1, ["code"])

    before = genome_identity(place / "genome.txt")
    assert call(capfd, "genome", "build")[0] == 0
    assert genome_identity(place / "genome.txt") == before  # the commit counts, not the damaged file
    content = bytearray((place / "genome.txt").read_bytes())
    content[content.index(b"eins")] ^= 4
    (place / "genome.txt").write_bytes(content)
    status, out, _ = call(capfd, "genome", "verify", "genome.txt")
    assert status == 1
    assert out.startswith("docs/ä.md: altered: 6 bytes")


def test_one_failed_repository(place: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call(capfd, "genome", "lock")[0] == 0
    os.rename(tmp_path / "origins" / "docs", tmp_path / "origins" / "gone")
    status, out, _ = call(capfd, "genome", "clone", "--retries", "0")
    assert status == 1
    assert "does not appear to be a git repository" in out
    assert "clones: 1 of 2 remotes are here" in out
    assert call(capfd, "genome", "clone", "--retries", "0", "--keep-going")[0] == 0
    status, _, err = call(capfd, "genome", "build")
    assert status == 1
    assert "the repository is not here" in err
    status, _, err = call(capfd, "genome", "build", "--keep-going")
    assert status == 0
    assert "note: without docs: fatal: " in err
    manifest = json.loads((place / "genome.json").read_text())
    (failure,) = manifest["failed"]
    assert failure["name"] == "docs"
    assert "does not appear to be a git repository" in failure["reason"]

    status, _, err = call(capfd, "genome", "lock")
    assert status == 1
    assert "git ls-remote failed: fatal: " in err
    assert "does not appear to be a git repository" in err
    status, out, _ = call(capfd, "genome", "lock", "--keep-going")
    assert status == 0
    assert "docs cannot be had:" in out


def test_a_lock_that_is_out_of_date(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(capfd, "genome", "lock")[0] == 0
    put(place, "genome.yaml", (place / "genome.yaml").read_text() + "# a comment changes nothing\n")
    assert call(capfd, "genome", "build", "--keep-going")[0] == 0
    put(place, "genome.yaml", (place / "genome.yaml").read_text() + "last: [docs]\n")
    status, _, err = call(capfd, "genome", "build", "--keep-going")
    assert status == 1
    assert "genome.yaml was changed after it was locked" in err


def test_lock_tells_what_moved(place: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = report(capfd, "genome", "lock")["lock"]["repositories"][1]["commit"]
    after = make_repository(tmp_path / "origins" / "code", {"b.py": "print(2)\n"})
    put(place, "genome.yaml", (place / "genome.yaml").read_text().replace("  - notes\nfirst: [notes]\n", ""))
    status, out, err = call(capfd, "genome", "lock")
    assert status == 0
    assert f"{before[:12]} -> {after[:12]}" in out
    assert "no longer locked: notes" in err


def test_sources_on_the_command_line(place: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    url = f"file://{tmp_path}/origins/code"
    built = report(
        capfd, "genome", "build", "notes", f"web={url}", "-o", "out/g.txt", "--include", "*.py", "--include=*.txt"
    )
    assert [item["repository"] for item in built["repositories"]] == ["notes", "web"]
    assert [file.path for file in read_genome(place / "out" / "g.txt")] == ["n.txt", "a.py"]
    assert (place / "out" / "clones" / "web" / "a.py").is_file()
    status, _, err = call(capfd, "genome", "build", "notes")
    assert (status, "the genome needs a name" in err) == (2, True)
    status, _, err = call(capfd, "genome", "lock", "notes", "--sources", "genome.yaml")
    assert (status, "use one of them" in err) == (2, True)
    status, _, err = call(capfd, "genome", "build", "notes", "-o", "notes/g.txt")
    assert (status, "read into itself" in err) == (1, True)


def test_secrets_are_left_out_unless_they_are_allowed(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put(place, "notes/key.md", "-----BEGIN RSA " + "PRIVATE KEY-----\n")
    status, out, _ = call(capfd, "genome", "build", "notes", "-o", "g.txt")
    assert status == 0
    assert "Private Key in line 1" in out
    assert "left out: secret 1; file by file in g.json\nno secret? put `# pragma: allowlist secret` on its line" in out
    assert [file.path for file in read_genome(place / "g.txt")] == ["n.txt"]
    status, out, _ = call(capfd, "genome", "build", "notes", "-o", "g.txt", "--allow-secrets")
    assert (status, "left out:" in out, "no secret?" in out) == (0, False, False)
    assert [file.path for file in read_genome(place / "g.txt")] == ["key.md", "n.txt"]


def test_no_genome_yaml(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = call(capfd, "genome", "lock")
    assert (status, "genome.yaml" in err) == (1, True)
    status, _, err = call(capfd, "genome", "clone")
    assert (status, "there is no lock" in err) == (1, True)


def test_a_file_that_is_no_genome(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put(place, "broken.txt", "no genome\n")
    status, out, err = call(capfd, "genome", "show", "broken.txt", "--json")
    assert (status, json.loads(out)["error"]["kind"]) == (1, "GenomeError")
    assert err.startswith("error: malformed genome: expected <|repo_start|>NAME")
    assert "broken.txt, line 1" in err
