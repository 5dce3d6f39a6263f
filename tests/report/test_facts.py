"""What is read from a run directory, in any state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chrysalis_mlx.errors import RunError
from chrysalis_mlx.pipeline.corpus import corpus
from chrysalis_mlx.report.facts import read_facts
from chrysalis_mlx.report.material import LeftOut, Side
from chrysalis_mlx.run import Run, write_json
from chrysalis_mlx.workspace import Origin, Workspace
from tests.corpus.genomes import prose
from tests.report import cases


def test_a_finished_run_tells_everything(grown: Path) -> None:
    facts = read_facts(grown / "run")
    assert facts.problems == ()
    assert (facts.name, facts.state, facts.reason) == ("run", "done", None)
    assert (facts.model, facts.blueprint, facts.description) == ("Tiny-1M-Instruct", "wings", "what a butterfly knows")
    assert [(stage.name, stage.status, stage.outdated) for stage in facts.stages] == [
        (name, "done", False) for name in ("corpus", "train", "eval", "fuse")
    ]
    assert facts.evaluation == cases.evaluation()
    assert facts.training is not None
    assert (facts.training.done, facts.training.planned, facts.training.report["best_step"]) == (60, 60, 40)
    assert facts.exports is not None
    assert [(file.type, file.verdict, file.kl) for file in facts.exports.files] == [
        ("F16", "verified", 1e-6),
        ("Q4_K_M", "failed", 0.05),
    ]
    assert facts.exports.files[1].failures == ("KL 5.00e-02 is above | the budget",)
    assert facts.exports.verified == 1


def test_the_corpus_is_told_as_its_record_has_it(grown: Path) -> None:
    material, run = read_facts(grown / "run").material, Run.open(grown / "run")
    report = run.stage("corpus")["report"]
    assert material is not None
    assert material.sides[0] == Side(
        "train", *(report[figure]["train"] for figure in ("documents", "rows", "tokens", "supervised"))
    )
    assert [side.contaminated for side in material.sides[1:]] == [0.0, 0.0]
    assert {part.name: part.tokens for part in material.parts} == {
        name: found["tokens"] for name, found in report["repositories"].items()
    }
    assert [part.name for part in material.parts] == ["docs", "no_te|s"]  # the larger one first
    assert material.tokens == sum(report["tokens"].values()) == sum(part.tokens for part in material.parts)
    assert material.not_in_genome[0].rule == "type"
    assert material.not_in_genome[0].examples[0].startswith("docs/LICENSE: ")


def test_the_lineage_goes_down_to_the_commits(grown: Path) -> None:
    facts = read_facts(grown / "run")
    assert facts.origin is not None
    manifest = json.loads((grown / "run/genome.json").read_text())
    assert [(place.name, place.state, place.url) for place in facts.origin.repositories] == [
        (entry["name"], entry["commit"], None) for entry in manifest["repositories"]
    ]
    assert all(len(place.state or "") == 40 for place in facts.origin.repositories)
    assert facts.origin.licences == {"MIT": 1, "none stated": 1}
    assert (facts.origin.base, facts.origin.licence) == ("Tiny-1M-Instruct", "tiny-licence")
    assert facts.origin.material == {"genome": Run.open(grown / "run").record["genome"]["sha256"]}
    assert "adapters/adapters.safetensors" in facts.origin.adapter_files
    assert str(grown) not in json.dumps(facts.as_dict())


def test_settings_are_those_that_somebody_chose(grown: Path) -> None:
    own = read_facts(grown / "run").own_settings
    assert own["adapter.kind"] == "dora"
    assert own["training.steps"] == 6
    assert own["split.test"] == 0.2
    assert "adapter.rslora" not in own
    assert not any(name.startswith(("model.", "match.")) or name == "name" for name in own)


def test_what_has_been_left_out_comes_with_examples(run: Run) -> None:
    account = json.loads(run.path("corpus/expression.json").read_text())
    twins = [f"{number}.md" for number in range(9)]
    account["files"] += [
        {"repository": "docs", "path": path, "expressed": False, "rule": "copy of docs/1.md", "scores": {}}
        for path in twins
    ]
    write_json(run.path("corpus/expression.json"), account)
    run.stage("corpus")["report"]["left_out"] = {"copy": 9, "exclude: *.log": 2}
    run.save()
    material = read_facts(run.directory).material
    assert material is not None
    assert material.left_out == (
        LeftOut("copy", 9, "equal to another file", tuple(f"docs/{path}" for path in twins[:6])),
        LeftOut("exclude: *.log", 2, "a pattern of expression.exclude matches", ()),
    )


def test_rows_of_ones_own_are_told_as_rows(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{"text": prose(number, 60)} for number in range(40)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": "   "}]))
    (tmp_path / "own.yaml").write_text("name: own\ntraining: {row_length: 128}\n")
    origin = Origin(data=tmp_path / "own.jsonl", model=str(tiny_model), blueprint=str(tmp_path / "own.yaml"))
    workspace = Workspace.create(tmp_path / "run", origin)
    corpus(workspace)
    facts = read_facts(tmp_path / "run")
    assert facts.problems == ()
    assert (facts.state, facts.stage) == ("begun", "train")
    assert facts.material is not None
    assert (facts.material.unit, facts.material.considered, facts.material.expressed) == ("row", 41, 40)
    (left_out,) = facts.material.left_out
    assert left_out.number == 1
    assert left_out.examples[0].startswith("own.jsonl, row 41")
    assert facts.origin is not None
    assert (list(facts.origin.material), facts.origin.repositories) == (["data"], ())
    assert (facts.training, facts.evaluation, facts.exports) == (None, None, None)


@pytest.mark.parametrize(
    ("stage", "status", "reason", "state"),
    [
        ("train", "running", None, ("running", "train", None)),
        ("train", "paused", None, ("paused", "train", None)),
        ("train", "interrupted", "Ctrl-C; saved at step 3", ("interrupted", "train", "Ctrl-C; saved at step 3")),
        ("eval", "failed", "no memory", ("failed", "eval", "no memory")),
        ("fuse", "failed", "KL", ("failed", "fuse", "KL")),
    ],
)
def test_the_first_stage_that_is_not_done_says_the_state(
    run: Run, stage: str, status: str, reason: str | None, state: tuple[str, str, str | None]
) -> None:
    run.record["stages"][stage] |= {"status": status} | ({"reason": reason} if reason else {})
    run.save()
    facts = read_facts(run.directory)
    assert (facts.state, facts.stage, facts.reason) == state
    assert (facts.evaluation is None) == (stage == "eval")
    assert facts.problems == ()


def test_a_training_whose_process_is_gone_was_interrupted(run: Run) -> None:
    with run.recording("train", {}) as record:
        assert read_facts(run.directory).state == "running"
        record["process"] |= {"pid": 2**22 + 1}  # beyond the largest
        run.save()
        facts = read_facts(run.directory)
        assert (facts.state, facts.reason) == ("interrupted", "its process is gone")
        record["outputs"] = []


def test_a_stage_of_other_texts_is_outdated(run: Run) -> None:
    outputs = run.stage("corpus")["outputs"]
    outputs["corpus/train.jsonl"]["sha256"] = "0" * 64
    run.save()
    assert [stage.outdated for stage in read_facts(run.directory).stages] == [False, True, False, False]


def test_a_run_that_was_just_begun_is_empty(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", {"model": {"source": "/home/me/Tiny-1B", "directory": "/gone"}})
    facts = read_facts(tmp_path / "run")
    assert (facts.state, facts.stage, facts.model) == ("begun", "corpus", "Tiny-1B")
    assert (facts.material, facts.training, facts.evaluation, facts.exports) == (None, None, None, None)
    assert "blueprint.yaml" in " ".join(facts.problems)


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("evaluation.json", '{"base": {"perplexity": 20.0}}', "evaluation.json"),
        ("evaluation.json", "{", "evaluation.json"),
        ("genome.json", "[]", "genome.json"),
        ("export/verification.json", '{"gguf": {"F16": 3}}', "export/verification.json"),
        ("corpus/expression.json", '{"files": [{}]}', "the corpus"),
        ("training/metrics.jsonl", '{"step": 1}\n', "the training"),
    ],
)
def test_what_cannot_be_read_is_told_and_the_rest_is_there(run: Run, file: str, content: str, what: str) -> None:
    run.path(file).write_text(content)
    facts = read_facts(run.directory)
    assert any(problem.startswith(f"{what} cannot be read (") for problem in facts.problems)
    assert facts.state == "done"
    assert facts.training or what == "the training"
    assert facts.evaluation or what == "evaluation.json"


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run directory"):
        read_facts(tmp_path)
