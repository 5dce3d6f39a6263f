"""Bad input gets a clear error and loses nothing: what is wrong, where, what to do; never a traceback."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.inputs import BLUEPRINT, call, finals, origin, report

Fail = Callable[..., str]


@pytest.fixture
def fail(capfd: pytest.CaptureFixture[str]) -> Fail:
    """Calls the command line, which must fail with `status`; gives its error text."""

    def run(*arguments: object, status: int = 1) -> str:
        found, out, err = call(capfd, *arguments)
        assert (found, out) == (status, "")
        assert "Traceback" not in err
        if status == 1:
            assert re.search("^error: ", err, re.MULTILINE)  # after the progress of what went well
            assert "  where: " in err
            assert "  to do: " in err
        return err

    return run


@pytest.fixture
def own(inputs: Path, tmp_path: Path) -> Path:
    """Inputs of one's own, to spoil."""
    return Path(shutil.copytree(inputs, tmp_path / "own"))


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model of one's own, to spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def begun(inputs: Path, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    """A run whose corpus is made."""
    report(capfd, "corpus", tmp_path / "begun", *origin(inputs, tiny_model))
    return tmp_path / "begun"


def configure(directory: Path, **changes: Any) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("command", ["grow", "corpus"])
def test_a_malformed_genome_is_told_with_its_line_and_leaves_no_run(
    own: Path, tiny_model: Path, tmp_path: Path, fail: Fail, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    whole = (own / "genome.txt").read_text()
    lines = whole.splitlines()
    at = lines.index("<|file_start|>5.md")
    (own / "genome.txt").write_text("\n".join([*lines[: at - 1], *lines[at:]]) + "\n")
    error = fail(command, tmp_path / "run", *origin(own, tiny_model))
    assert "malformed genome: expected <|file_end|>" in error
    assert f"{own / 'genome.txt'}, line {at}" in error
    assert not (tmp_path / "run").exists()
    (own / "genome.txt").write_text(whole)
    assert report(capfd, "corpus", tmp_path / "run", *origin(own, tiny_model))["status"] == "done"


@pytest.mark.parametrize("text", ["", "\n\n", "<|repo_start|>r\n<|repo_end|>\n\n"])
def test_an_empty_genome(own: Path, tiny_model: Path, tmp_path: Path, fail: Fail, text: str) -> None:
    (own / "genome.txt").write_text(text)
    error = fail("grow", tmp_path / "run", *origin(own, tiny_model))
    assert "the genome is empty: it holds no file" in error
    assert "chrysalis-mlx genome build" in error
    assert not (tmp_path / "run").exists()


def test_a_genome_that_is_not_there_is_a_usage_error(own: Path, tiny_model: Path, tmp_path: Path, fail: Fail) -> None:
    (own / "genome.txt").unlink()
    assert "genome.txt' does not exist" in fail("grow", tmp_path / "run", *origin(own, tiny_model), status=2)


def test_a_blueprint_tells_all_its_problems_at_once(
    own: Path, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = own / "blueprint.yaml"
    file.write_text("trainig: {}\nadapter: {rank: four}\ntraining: {steps: 0}\n")
    expected = (
        "trainig: unknown key; did you mean 'training'?",
        "adapter.rank: 'four' is not a whole number",
        "training.steps: 0 is out of range; it must be at least 1",
    )
    for arguments in (["grow", tmp_path / "run", *origin(own, tiny_model)], ["blueprint", "check", file]):
        status, out, err = call(capfd, *arguments)
        assert (status, out) == (1, "")
        assert err.startswith(f"error: the blueprint has 3 problems\n  where: {file}\n")
        assert all(f"  - {problem}" in err for problem in expected)
    status, out, _ = call(capfd, "blueprint", "check", file, "--json")
    assert status == 1
    assert json.loads(out)["problems"] == list(expected)
    assert not (tmp_path / "run").exists()


def test_a_blueprint_of_no_such_name(inputs: Path, tiny_model: Path, tmp_path: Path) -> None:
    from chrysalis_mlx.errors import BlueprintError
    from chrysalis_mlx.workspace import Origin, Workspace

    with pytest.raises(BlueprintError, match=r"no blueprint 'tinny'(.|\n)*did you mean 'tiny'\?"):
        Workspace.create(
            tmp_path / "run", Origin(genome=inputs / "genome.txt", model=str(tiny_model), blueprint="tinny")
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("model.safetensors", "no model.safetensors and no model.safetensors.index.json"),
        ("tokenizer.json", "the model directory has no tokenizer"),
        ("config.json", "the model directory has no config.json"),
    ],
)
def test_an_incomplete_model_directory(
    inputs: Path, model: Path, tmp_path: Path, fail: Fail, missing: str, words: str
) -> None:
    (model / missing).unlink()
    error = fail("grow", tmp_path / "run", *origin(inputs, model))
    assert words in error
    assert str(model) in error
    assert not (tmp_path / "run").exists()


def test_an_unsupported_architecture_is_named_with_the_list(
    inputs: Path, model: Path, tmp_path: Path, fail: Fail
) -> None:
    configure(model, architectures=["BloomForCausalLM"], model_type="bloom")
    error = fail("grow", tmp_path / "run", *origin(inputs, model))
    assert "BloomForCausalLM" in error
    assert "supported are LlamaForCausalLM" in error
    assert "Qwen3ForCausalLM" in error
    assert not (tmp_path / "run").exists()


def test_a_row_longer_than_the_context(inputs: Path, model: Path, tmp_path: Path, fail: Fail) -> None:
    configure(model, max_position_embeddings=100)
    error = fail("grow", tmp_path / "run", *origin(inputs, model))
    assert "training.row_length is 128, the model's context has 100" in error
    assert "set training.row_length to at most 100" in error
    assert not (tmp_path / "run").exists()


def test_an_adapter_that_does_not_fit_and_a_type_that_is_none(
    own: Path, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (own / "blueprint.yaml").write_text(BLUEPRINT.replace("rank: 4", "rank: 4, layers: 3, modules: [q_porj]"))
    status, _, err = call(capfd, "grow", tmp_path / "run", *origin(own, tiny_model))
    assert status == 1
    assert "adapter.layers: 3 of a model that has 2" in err
    assert "'q_porj' matches no linear layer; did you mean 'q_proj'?" in err
    (own / "blueprint.yaml").write_text(BLUEPRINT.replace("[F16, Q4_K_M]", "[F17]"))
    status, _, err = call(capfd, "grow", tmp_path / "run", *origin(own, tiny_model))
    assert status == 1
    assert "no GGUF type is called 'F17'" in err
    assert not (tmp_path / "run").exists()


def test_a_corpus_with_nothing_left_is_recorded_as_failed(
    own: Path, tiny_model: Path, tmp_path: Path, fail: Fail, capfd: pytest.CaptureFixture[str]
) -> None:
    (own / "blueprint.yaml").write_text(BLUEPRINT.replace('exclude: ["logs/*"]', 'include: ["*.rs"]'))
    error = fail("grow", tmp_path / "run", *origin(own, tiny_model))
    assert "none of the genome's 14 files is expressed" in error
    assert "loosen the blueprint's expression" in error
    stage = json.loads((tmp_path / "run/run.json").read_text())["stages"]["corpus"]
    assert stage["status"] == "failed"
    assert "none of the genome's 14 files" in stage["reason"]
    assert finals(tmp_path / "run") == {"run.json", "genome.json", "blueprint.yaml"}
    assert "the stage 'corpus' has not finished (status: failed)" in fail("train", tmp_path / "run")


def test_a_run_of_another_blueprint_genome_or_model(
    begun: Path, own: Path, tiny_model: Path, model: Path, fail: Fail, inputs: Path
) -> None:
    before = {name: (begun / name).read_bytes() for name in finals(begun)}
    (own / "blueprint.yaml").write_text(BLUEPRINT.replace("steps: 6", "steps: 7"))
    error = fail("grow", begun, "--blueprint", own / "blueprint.yaml")
    assert "this run was begun with another blueprint ('e2e')" in error
    text = (own / "genome.txt").read_text()
    (own / "genome.txt").write_text(text.replace("chrysalis", "cocoon"))
    assert "this run was begun with another genome" in fail("grow", begun, "--genome", own / "genome.txt")
    error = fail("grow", begun, "--model", model)
    assert f"this run was begun with the model {tiny_model}, not {model}" in error
    assert "use a new run directory" in error
    assert {name: (begun / name).read_bytes() for name in finals(begun)} == before


def test_the_same_genome_packed_otherwise_is_the_same(
    begun: Path, inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import gzip

    (tmp_path / "copy.gz").write_bytes(gzip.compress((inputs / "genome.txt").read_bytes()))
    assert report(capfd, "corpus", begun, "--genome", tmp_path / "copy.gz")["skipped"] is True


def test_an_edited_blueprint_in_a_run(begun: Path, fail: Fail) -> None:
    file = begun / "blueprint.yaml"
    file.write_text(file.read_text().replace("steps: 6", "steps: 9"))
    error = fail("train", begun)
    assert "blueprint.yaml was changed after the run began" in error
    assert str(file) in error
    assert "begin a new run" in error


def test_a_comment_in_it_is_no_change(begun: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = begun / "blueprint.yaml"
    file.write_text("# mine\n" + file.read_text())
    assert report(capfd, "corpus", begun)["skipped"] is True


def test_a_model_or_genome_changed_after_the_run_began(
    own: Path, model: Path, tmp_path: Path, fail: Fail, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    report(capfd, "corpus", run, *origin(own, model))
    (run / "corpus/test.jsonl").unlink()
    (own / "genome.txt").write_text((own / "genome.txt").read_text().replace("chrysalis", "cocoon"))
    assert "the genome was changed after the run began" in fail("corpus", run)
    configure(model, rms_norm_eps=1e-3)
    error = fail("corpus", run)
    assert "the base model is not the one that the run began with" in error
    assert str(model) in error


@pytest.mark.parametrize(
    ("command", "stage"), [("train", "corpus"), ("eval", "corpus"), ("fuse", "corpus"), ("generate", "fuse")]
)
def test_a_stage_called_too_early_names_the_one_to_call(
    begun: Path, fail: Fail, command: str, stage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((begun / "run.json").read_text())
    record["stages"] = {}
    (begun / "run.json").write_text(json.dumps(record))
    arguments = ["generate", begun, "--prompt", "x"] if command == "generate" else [command, begun]
    error = fail(*arguments)
    assert f"the stage '{stage}' has not finished (status: never ran)" in error
    assert f"to do: run: chrysalis-mlx {stage} {begun}" in error


@pytest.mark.parametrize("command", ["eval", "fuse"])
def test_a_stage_before_training(begun: Path, fail: Fail, command: str) -> None:
    assert "the stage 'train' has not finished" in fail(command, begun)
    assert {name for name in finals(begun) if not name.startswith("corpus/")} == {
        "run.json",
        "genome.json",
        "blueprint.yaml",
    }


@pytest.mark.parametrize("damage", ["missing", "longer"])
def test_a_corpus_file_that_was_removed_or_changed(begun: Path, fail: Fail, damage: str) -> None:
    file = begun / "corpus/train.jsonl"
    if damage == "missing":
        file.unlink()
    else:
        file.write_text(file.read_text() + '{"text": "mine"}\n')
    error = fail("train", begun)
    assert "what the stage 'corpus' made is missing or was changed: corpus/train.jsonl" in error
    assert f"chrysalis-mlx corpus {begun}" in error


def test_a_directory_that_holds_something_else_is_left_alone(
    inputs: Path, tiny_model: Path, tmp_path: Path, fail: Fail
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for name in ("mine", "file"):
        error = fail("grow", tmp_path / name, *origin(inputs, tiny_model))
        assert "the directory is not empty and holds no run" in error
        assert str(tmp_path / name) in error
    assert finals(tmp_path) == {"mine/thesis.txt", "file"}


@pytest.mark.parametrize("command", ["train", "eval", "fuse"])
def test_a_directory_that_is_no_run(tmp_path: Path, fail: Fail, command: str) -> None:
    error = fail(command, tmp_path)
    assert "this is not a run directory" in error
    assert "chrysalis-mlx grow RUN --genome G --model M --blueprint B" in error


def test_a_new_run_needs_genome_or_data_and_a_model(inputs: Path, tiny_model: Path, tmp_path: Path, fail: Fail) -> None:
    error = fail("grow", tmp_path / "run", status=2)
    assert "a new run needs a model or a blueprint that names one" in error
    assert "add --model M, --blueprint B, or both" in error
    genome, model, blueprint = origin(inputs, tiny_model)
    error = fail("grow", tmp_path / "run", genome, blueprint, status=2)
    assert "no model is named" in error
    assert "add --model" in error
    for options in ((model, blueprint), (model, blueprint, genome, f"--data={inputs}")):
        error = fail("grow", tmp_path / "run", *options, status=2)
        assert "a new run is made from a genome or from data of your own, one of them" in error
        assert "add --genome G or --data PATH" in error
    assert not (tmp_path / "run").exists()


def test_checkpoints_of_which_none_is_whole_are_told_and_the_advice_works(
    begun: Path, fail: Fail, capfd: pytest.CaptureFixture[str]
) -> None:
    report(capfd, "train", begun)
    (begun / "adapters/adapters.safetensors").unlink()
    checkpoints = sorted((begun / "training/checkpoints").glob("*/adapters.safetensors"))
    for checkpoint in checkpoints:
        checkpoint.write_bytes(checkpoint.read_bytes()[:-1] + b"\x7f")
    error = fail("train", begun)
    assert "no checkpoint is whole; missing or damaged: step-000006/adapters.safetensors" in error
    assert error.count("/adapters.safetensors") == len(checkpoints) == 3
    assert f"remove {begun / 'training'} and train again from the start" in error
    shutil.rmtree(begun / "training")
    assert report(capfd, "train", begun)["report"]["resumed_at"] == 0


def test_a_run_below_a_file_is_an_error_without_a_traceback(
    capfd: pytest.CaptureFixture[str], inputs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    status, out, err = call(capfd, "corpus", tmp_path / "file" / "run", *origin(inputs, tiny_model))
    assert (status, out) == (1, "")
    assert "error: " in err
    assert str(tmp_path / "file") in err
    assert "Traceback" not in err


def test_a_run_may_begin_in_the_directory_one_stands_in(
    capfd: pytest.CaptureFixture[str], inputs: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(capfd, "corpus", ".", *origin(inputs, tiny_model))[0] == 0
    assert (tmp_path / "run.json").is_file()
