"""`grow --sources`: from repositories to a GGUF in one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chrysalis_mlx.genome.text.format import genome_identity
from chrysalis_mlx.run import sha256_file
from tests.corpus.genomes import prose
from tests.end_to_end.inputs import BLUEPRINT, call, report
from tests.genome.repositories import make_repository, put


@pytest.fixture
def begun(tmp_path: Path, tiny_model: Path) -> list[str]:
    """The command, on a remote with twelve documents and a plain directory with a log."""
    files: dict[str, str | bytes] = {f"{n}.md": prose(n, 160) for n in range(12)}
    make_repository(tmp_path / "origin" / "docs", files)
    put(tmp_path, "work/logs/a.txt", "noise\n" * 99)
    put(tmp_path, "work/genome.yaml", f"sources: ['file://{tmp_path}/origin/docs', logs]\nlast: [logs]\n")
    put(tmp_path, "work/blueprint.yaml", BLUEPRINT.replace("[F16, Q4_K_M]", "[F16]"))
    work = tmp_path / "work"
    return [
        *("grow", str(tmp_path / "run"), "--sources", str(work / "genome.yaml")),
        *("--model", str(tiny_model), "--blueprint", str(work / "blueprint.yaml")),
    ]


def test_grow_from_sources(begun: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    grown = report(capfd, *begun)
    assert [stage["skipped"] for stage in grown["stages"].values()] == [False] * 4
    work, run = tmp_path / "work", tmp_path / "run"
    assert (work / "clones" / "docs" / "0.md").is_file()
    lock = json.loads((work / "genome.lock.json").read_text())
    manifest = json.loads((run / "genome.json").read_text())
    assert [item["name"] for item in manifest["repositories"]] == ["docs", "logs"]
    assert manifest["repositories"][0]["commit"] == lock["repositories"][0]["commit"]
    record = json.loads((run / "run.json").read_text())["genome"]
    assert record == {
        "path": str(run / "genome.txt"),
        "folder": str(work),
        "sha256": genome_identity(run / "genome.txt").sha256,
        "manifest": sha256_file(run / "genome.json"),
    }
    assert manifest["genome"]["sha256"] == record["sha256"]

    # Again: everything was done before. A new commit at the remote changes nothing until it is locked.
    make_repository(tmp_path / "origin" / "docs", {"new.md": "new\n"})
    again = report(capfd, *begun)
    assert [stage["skipped"] for stage in again["stages"].values()] == [True] * 4
    assert call(capfd, "genome", "lock", "--sources", work / "genome.yaml")[0] == 0
    status, _, err = call(capfd, *begun)
    assert status == 1
    assert "this run was begun with another genome than the one that is locked now" in err
    assert genome_identity(run / "genome.txt").sha256 == record["sha256"]


def test_a_damaged_clone_is_no_food(begun: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    assert call(capfd, "genome", "lock", "--sources", work / "genome.yaml")[0] == 0
    assert call(capfd, "genome", "clone", "--lock", work / "genome.lock.json")[0] == 0
    put(work, "clones/docs/0.md", "altered\n")
    status, _, err = call(capfd, *begun)
    assert status == 1
    assert "the audit found these clones damaged: docs" in err
    assert not (tmp_path / "run").exists()


def test_sources_and_genome_exclude_each_other(
    begun: list[str], inputs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call(capfd, *begun, "--genome", inputs / "genome.txt")
    assert status == 2
    assert "--sources builds the genome; use it without --genome and --data" in err
