"""The package as a library: what a Python program sees of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import chrysalis_mlx as cm
from chrysalis_mlx.errors import RunError, UsageError
from chrysalis_mlx.run import sha256_file

STAGES = ["corpus", "train", "eval", "fuse", "eval"]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, inputs: Path, tiny_model: Path) -> cm.Run:
    seen: list[tuple[str, str, bool]] = []
    run = cm.grow(
        tmp_path_factory.mktemp("library") / "run",
        genome=inputs / "genome.txt",
        model=str(tiny_model),
        blueprint=str(inputs / "blueprint.yaml"),
        on_stage=lambda run, stage: seen.append((stage.name, stage.status, stage.skipped)),
    )
    assert seen == [(name, "done", False) for name in STAGES]
    return run


def test_the_results_are_what_the_record_says(grown: cm.Run) -> None:
    stages = json.loads((grown.directory / "run.json").read_text())["stages"]
    corpus, training, export = grown.corpus, grown.training, grown.export
    assert corpus is not None
    assert training is not None
    assert export is not None
    assert corpus.left_out == {"copy": 1, "exclude: logs/*": 1}
    assert corpus.repositories["docs"].expressed == corpus.expressed == 12
    assert corpus.tokens == stages["corpus"]["report"]["tokens"]
    assert (training.steps, training.paused, training.backend) == (6, False, "mlx")
    assert training.valid_loss == stages["train"]["report"]["valid_loss"]
    assert [file.type for file in export.files] == ["F16", "Q4_K_M"]
    for file in export.files:
        assert (file.verified, file.failures) == (True, ())
        assert file.kl == stages["fuse"]["report"]["gguf"][file.type]["kl"]
        assert file.bytes == stages["fuse"]["outputs"][f"export/{file.file}"]["bytes"]


def test_the_evaluation_is_typed(grown: cm.Run) -> None:
    evaluation = grown.evaluation
    assert isinstance(evaluation, cm.Evaluation)
    assert list(evaluation.files) == ["F16", "Q4_K_M"]
    base, tuned = evaluation.base.test.overall, evaluation.tuned.test.overall
    assert base.targets == tuned.targets > 100
    assert evaluation.changes["test"].ratio == pytest.approx(tuned.perplexity / base.perplexity)
    assert evaluation.changes["test"].ratio < 0.7


def test_lineage_and_blueprint(grown: cm.Run, inputs: Path) -> None:
    assert grown.blueprint.name == "e2e"
    assert grown.lineage.material["genome"] == sha256_file(inputs / "genome.txt")


def test_an_opened_run_tells_the_same_and_skips_what_is_done(grown: cm.Run) -> None:
    again = cm.open_run(grown.directory)
    assert (again.corpus, again.training, again.export) == (grown.corpus, grown.training, grown.export)
    assert again.evaluation == grown.evaluation
    assert [(stage.name, stage.skipped) for stage in again.grow()] == [(name, True) for name in STAGES[:4]]


def test_an_evaluation_that_is_gone_or_damaged_is_an_error_with_a_way_out(grown: cm.Run, tmp_path: Path) -> None:
    run = cm.open_run(shutil.copytree(grown.directory, tmp_path / "run"))
    file = run.directory / "evaluation.json"
    whole = file.read_text()
    older = json.dumps({"base": {"perplexity": 3.0}})
    for content, told in ((None, "missing"), (whole[:-99], "damaged"), (older, "another version"), ("[]", "damaged")):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        with pytest.raises(cm.RunError, match=told) as caught:
            _ = run.evaluation
        assert caught.value.fix == f"measure again: chrysalis-mlx eval {run.directory}"
    assert not run.evaluate().skipped
    assert run.evaluation == grown.evaluation


def test_what_another_process_recorded_is_seen_and_kept(grown: cm.Run, tmp_path: Path) -> None:
    run = cm.open_run(shutil.copytree(grown.directory, tmp_path / "run"))
    assert run.evaluate().skipped
    other = cm.open_run(run.directory)
    other.fuse(["Q8_0"])
    again = run.evaluate()
    assert run.evaluation is not None
    assert (again.skipped, list(run.evaluation.files)) == (False, ["Q8_0"])
    assert other.export is not None
    assert run.record.stage("fuse")["inputs"]["types"] == "Q8_0"


def test_stage_by_stage(tmp_path: Path, inputs: Path, tiny_model: Path) -> None:
    """What is not done is None; a training that runs out of minutes says so, and goes on."""
    blueprint = str(inputs / "blueprint.yaml")
    run = cm.begin(tmp_path / "run", genome=inputs / "genome.txt", model=str(tiny_model), blueprint=blueprint)
    assert (run.corpus, run.training, run.evaluation, run.export) == (None, None, None, None)
    assert run.make_corpus().status == "done"
    assert run.corpus is not None
    paused = run.train(max_minutes=1e-9)
    assert paused.status == "paused"
    assert run.training is not None
    assert run.training.paused
    assert run.training.steps < 6
    done = run.train()
    assert (done.status, done.skipped, run.training.steps) == ("done", False, 6)
    assert run.evaluation is None
    assert run.export is None


def test_mistakes_are_errors_of_the_package(tmp_path: Path, inputs: Path, tiny_model: Path) -> None:
    with pytest.raises(RunError, match="not a run directory"):
        cm.open_run(tmp_path)
    with pytest.raises(UsageError, match="a genome or from data"):
        cm.begin(tmp_path / "run", model=str(tiny_model), blueprint="tiny")
    with pytest.raises(UsageError, match="sources build the genome"):
        cm.begin(tmp_path / "run", sources=inputs / "genome.yaml", genome=inputs / "genome.txt")
    assert issubclass(RunError, cm.ChrysalisError)
    assert not (tmp_path / "run").exists()
