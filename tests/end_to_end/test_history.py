"""Commits as training rows, from a remote with a history to the corpus, and what holds when the clones change."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.batches.tokens import read_segments
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests.corpus.genomes import SIDES, ngrams, prose, rows_of, said
from tests.end_to_end.inputs import BLUEPRINT, call, finals, report
from tests.genome.repositories import git, make_repository, put

DOCUMENTS = 12
SHARES = "shares 13 words in a row with what is kept back"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with origin/docs, whose every document grew by a commit of its own, and work/ with what grows it."""
    place = tmp_path_factory.mktemp("history")
    begun: dict[str, str | bytes] = {f"{n}.md": prose(n, 40) for n in range(DOCUMENTS)}
    make_repository(place / "origin/docs", begun)
    for n in range(DOCUMENTS):
        grown: dict[str, str | bytes] = {f"{n}.md": prose(n, 40) + "\n" + prose(n + 100, 40)}
        make_repository(place / "origin/docs", grown, f"Tell of {prose(n + 200, 10)}")
    make_repository(place / "origin/docs", {"log.txt": "noise and more\n" * 90}, "Write down the noise of a day")
    make_repository(place / "origin/docs", {"log.txt": "more of it\n" * 90}, "fix")
    drafts = "".join(prose(n + 100, 40) for n in range(DOCUMENTS))  # that are not in the genome, of every document
    make_repository(place / "origin/docs", {"drafts.md": drafts}, "Collect the drafts of every chapter")
    (place / "origin/docs/drafts.md").unlink()
    make_repository(place / "origin/docs", {}, "update")
    for n in range(3):
        put(place, f"work/notes/{n}.md", prose(n + 300, 60))
    sources = f"sources: ['file://{place}/origin/docs', notes]\nhistory: true\n"
    put(place, "work/genome.yaml", sources)
    blueprint = BLUEPRINT.replace(", Q4_K_M", "") + "framing: {mix: {text: 1, history: 1}}\n"
    put(place, "work/blueprint.yaml", blueprint.replace('exclude: ["logs/*"]', "weights: {notes: 2}"))
    return place


def arguments(place: Path, model: Path) -> list[str]:
    work = place / "work"
    options = [f"--sources={work / 'genome.yaml'}", f"--model={model}", f"--blueprint={work / 'blueprint.yaml'}"]
    return ["grow", str(place / "run"), *options]


@pytest.fixture(scope="module")
def grown(place: Path, tiny_model: Path) -> Path:
    """The finished run; nobody writes to it."""
    from chrysalis_mlx.cli import main

    assert main([*arguments(place, tiny_model), "--json"]) == 0
    return place / "run"


@pytest.fixture
def run(grown: Path, place: Path, tmp_path: Path) -> Path:
    """A copy of the run to change."""
    return Path(shutil.copytree(grown, tmp_path / "run"))


@pytest.fixture
def clones(place: Path, grown: Path, tmp_path: Path) -> Any:
    """The folder of the clones, brought back afterwards."""
    shutil.copytree(place / "work/clones", tmp_path / "clones", symlinks=True)
    yield place / "work/clones"
    shutil.rmtree(place / "work/clones", ignore_errors=True)
    shutil.copytree(tmp_path / "clones", place / "work/clones", symlinks=True)


def account(run: Path) -> dict[str, Any]:
    value = json.loads((run / "corpus/expression.json").read_text())
    assert isinstance(value, dict)
    return value


def test_commits_are_trained_on_and_only_those_that_tell_nothing_of_what_is_kept_back(
    grown: Path, place: Path, tiny_model: Path
) -> None:
    rows = {side: rows_of(grown / f"corpus/{side}.jsonl") for side in SIDES}
    commits = [row for row in rows["train"] if row["framing"] == "history"]
    assert not any(row["framing"] == "history" for side in ("valid", "test") for row in rows[side])
    kept_back = {row["path"] for side in ("valid", "test") for row in rows[side] if row["repository"] == "docs"}
    told = account(grown)["history"]
    assert told["repositories"] == [
        {"repository": "docs", "commits": 14, "left_out": {"message says too little": 2}, "reason": None},
        {"repository": "notes", "commits": 0, "left_out": {}, "reason": "a plain directory has no commits"},
    ]
    assert told["left_out"] == {SHARES: 1, "changes only what is kept back or closed on": len(kept_back) + 1}
    assert len(kept_back) > 0
    assert len({row["path"] for row in commits}) == DOCUMENTS - len(kept_back)

    shas = git(place / "origin/docs", "log", "--format=%H %s").splitlines()
    messages = {f"commit {line[:12]}": line.split(" ", 1)[1] for line in shas}
    for row in commits:
        assert row["prompt"] == f"Write the diff of this commit to docs:\n\n{messages[row['path']]}\n\n"
        assert row["completion"].startswith("--- a/")
        changed = row["completion"].split("\n", 1)[0].removeprefix("--- a/")
        assert changed not in kept_back
    assert ngrams(map(said, commits))
    for side in ("valid", "test"):
        held_out = ngrams(map(said, rows[side]))
        assert held_out
        assert not held_out & ngrams(map(said, rows["train"]))

    framings = account(grown)["report"]["framings"]
    assert framings["history"]["rows"] == len(commits)
    segments = read_segments(grown / "corpus/train.jsonl", Tokenizer.open(tiny_model), 128)
    of_commits = [s for s, row in zip(segments, rows["train"], strict=True) if row["framing"] == "history"]
    assert framings["history"]["supervised"] == sum(int(segment.supervised.sum()) for segment in of_commits)
    assert framings["history"]["supervised"] < framings["history"]["tokens"]
    assert {name for name in finals(grown / "corpus") if "/" in name} == {
        *(f"text/{side}.jsonl" for side in SIDES),
        "completion/train.jsonl",
    }


def test_the_clones_may_go_when_the_corpus_is_made(
    run: Path, clones: Path, tiny_model: Path, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(clones)
    assert report(capfd, "corpus", run)["skipped"] is True
    again = report(capfd, *arguments(place, tiny_model))
    assert [stage["skipped"] for stage in again["stages"].values()] == [True] * 4


def test_other_commits_than_recorded_are_refused_and_the_same_ones_make_the_same_corpus(
    run: Path, clones: Path, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {name: (run / name).read_bytes() for name in finals(run) if name.startswith("corpus/")}
    (run / "corpus/train.jsonl").unlink()

    def refused() -> None:
        status, _, err = call(capfd, "corpus", run)
        assert status == 1
        assert "the clones have other commits than when the run began" in err
        assert "bring them back (`chrysalis-mlx genome clone`), or begin a new run" in err
        assert json.loads((run / "run.json").read_text())["stages"]["corpus"]["status"] == "failed"

    shutil.rmtree(clones)
    refused()
    shallow = ["git", "clone", "--quiet", "--depth", "2", f"file://{place}/origin/docs", str(clones / "docs")]
    subprocess.run(shallow, check=True)
    refused()
    shutil.rmtree(clones)
    assert call(capfd, "genome", "clone", "--lock", place / "work/genome.lock.json")[0] == 0
    assert report(capfd, "corpus", run)["skipped"] is False
    assert {name: (run / name).read_bytes() for name in before} == before
    assert report(capfd, "train", run)["skipped"] is True


def test_max_commits_and_weights_decide_how_many(
    place: Path, grown: Path, tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (place / "work/blueprint.yaml").read_text()
    few = text.replace("history: 1}", "history: 2}, max_commits: 4").replace("{notes: 2}", "{notes: 2, docs: 1}")
    put(tmp_path, "few.yaml", few)
    genome = place / "run/genome.txt"
    options = [f"--genome={genome}", f"--model={tiny_model}", f"--blueprint={tmp_path / 'few.yaml'}"]
    # The genome lies in the run, its clones do not: without --sources nobody knows where they are.
    told = report(capfd, "corpus", tmp_path / "lost", *options)
    assert account(tmp_path / "lost")["history"]["repositories"][0]["reason"] == "no clone"
    assert "history" not in told["report"]["framings"]

    shutil.copy(genome, place / "work/genome.txt")
    shutil.copy(genome.with_suffix(".json"), place / "work/genome.json")
    options[0] = f"--genome={place / 'work/genome.txt'}"
    report(capfd, "corpus", tmp_path / "few", *options)
    told = account(tmp_path / "few")["history"]
    assert told["repositories"][0]["commits"] == 4
    rows = rows_of(tmp_path / "few/corpus/train.jsonl")
    texts = [row["prompt"] + row["completion"] for row in rows if row["framing"] == "history"]
    assert {texts.count(text) for text in texts} == {2}
    assert len({row["path"] for row in rows if row["framing"] == "history"}) == 4 - sum(told["left_out"].values())
