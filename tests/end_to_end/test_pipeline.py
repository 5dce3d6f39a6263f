"""The whole path on a tiny model: one command from a genome to a GGUF that answers in llama.cpp."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from chrysalis_mlx.adapters.files import load_adapter
from chrysalis_mlx.adapters.foreign import open_adapter
from chrysalis_mlx.backends import load
from chrysalis_mlx.batches.packing import assemble
from chrysalis_mlx.batches.tokens import read_segments
from chrysalis_mlx.evaluation.results import read_evaluation
from chrysalis_mlx.run import sha256_file
from chrysalis_mlx.training.metrics import read_metrics
from chrysalis_mlx.workspace import Workspace
from tests.end_to_end.inputs import call, finals, origin, report

PROMISED = {
    *("blueprint.yaml", "run.json", "genome.json", "evaluation.json"),
    *(f"corpus/{name}" for name in ("train.jsonl", "valid.jsonl", "test.jsonl", "expression.json")),
    *("adapters/adapters.safetensors", "adapters/adapter_config.json"),
    *("adapters/peft/adapter_model.safetensors", "adapters/peft/adapter_config.json"),
    *("fused/config.json", "fused/model.safetensors", "fused/tokenizer.json", "fused/tokenizer_config.json"),
    *("export/model-F16.gguf", "export/model-Q4_K_M.gguf", "export/Modelfile", "export/verification.json"),
    *("export/adapter.gguf", "export/imatrix.gguf", "export/README.md"),
    "training/metrics.jsonl",
}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, inputs: Path, tiny_model: Path) -> tuple[Path, str]:
    """A finished run, grown by the program in a process of its own, and what it printed."""
    run = tmp_path_factory.mktemp("grown") / "run"
    command = [sys.executable, "-m", "chrysalis_mlx", "grow", str(run), *origin(inputs, tiny_model), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return run, done.stdout


@pytest.fixture
def run(grown: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(grown[0], tmp_path / "run"))


def test_grow_prints_one_json_object_and_writes_everything_promised(grown: tuple[Path, str]) -> None:
    run, printed = grown
    value = json.loads(printed)
    assert value["run"] == str(run)
    assert list(value["stages"]) == ["corpus", "train", "eval", "fuse"]
    assert {(stage["status"], stage["skipped"]) for stage in value["stages"].values()} == {("done", False)}
    files = finals(run)
    assert files >= PROMISED
    assert not [name for name in files if "partial" in name or "unverified" in name]


def test_the_record_tells_what_the_run_was_made_of(grown: tuple[Path, str], inputs: Path, tiny_model: Path) -> None:
    run = grown[0]
    record = json.loads((run / "run.json").read_text())
    genome = inputs / "genome.txt"
    assert record["genome"] == {
        "path": str(genome),
        "folder": str(inputs),
        "sha256": sha256_file(genome),
        "manifest": sha256_file(run / "genome.json"),
    }
    assert record["model"]["source"] == str(tiny_model)
    assert record["backend"]["name"] == "mlx"
    for name, stage in record["stages"].items():
        for path, output in stage["outputs"].items():
            assert (name, path, sha256_file(run / path)) == (name, path, output["sha256"])
    lineage = json.loads((run / "genome.json").read_text())
    paths = [file["path"] for repository in lineage["repositories"] for file in repository["files"]]
    assert paths == [f"{n}.md" for n in range(12)] + ["copy.md", "a.log"]
    expression = json.loads((run / "corpus/expression.json").read_text())
    assert expression["report"]["left_out"] == {"copy": 1, "exclude: logs/*": 1}


def test_training_lowered_the_loss_and_the_test_perplexity(grown: tuple[Path, str]) -> None:
    run = grown[0]
    valid = [event["loss"] for event in read_metrics(run / "training/metrics.jsonl") if event["kind"] == "valid"]
    assert len(valid) == 3
    assert valid[-1] < valid[0] - 0.5
    evaluation = read_evaluation(run / "evaluation.json")
    base, tuned = evaluation.base.test.overall, evaluation.tuned.test.overall
    assert tuned.targets == base.targets > 100
    assert evaluation.changes["test"].ratio == pytest.approx(tuned.perplexity / base.perplexity)
    assert evaluation.changes["test"].ratio < 0.7


def test_the_exported_files_are_proved(grown: tuple[Path, str]) -> None:
    verification = json.loads((grown[0] / "export/verification.json").read_text())
    assert verification["fused"]["max_difference"] < 1e-4
    assert list(verification["gguf"]) == ["F16", "Q4_K_M"]
    for entry in verification["gguf"].values():
        assert (entry["verified"], entry["lines"], entry["lines_equal"], entry["positions"]) == (True, 20, 20, 4)
    assert verification["gguf"]["F16"]["kl"] < 1e-4
    assert verification["gguf"]["F16"]["top1"] == 1.0
    assert verification["gguf"]["Q4_K_M"]["bytes"] < verification["gguf"]["F16"]["bytes"]
    assert (grown[0] / "export/Modelfile").read_text().startswith("FROM ./model-Q4_K_M.gguf\n")


def test_fused_in_transformers_and_mlx_lm_has_the_logits_of_base_and_adapter(grown: tuple[Path, str]) -> None:
    workspace = Workspace.open(grown[0])
    spec = workspace.adapter_spec()
    arrays = load_adapter(grown[0] / "adapters", spec)
    assert all(array.any() for array in arrays.values())
    segments = read_segments(grown[0] / "corpus/test.jsonl", workspace.model.tokenizer, 128)
    tokens = segments[0].tokens
    engine = load("mlx")(workspace.model.path, spec, arrays, dtype="float32")
    expected = engine.logits(assemble([[segments[0]]], len(tokens)))[0]
    base = load("mlx")(workspace.model.path, dtype="float32").logits(assemble([[segments[0]]], len(tokens)))[0]
    assert np.abs(expected - base).max() > 0.1
    model = transformers.AutoModelForCausalLM.from_pretrained(grown[0] / "fused")
    with torch.no_grad():
        in_torch = model(torch.from_numpy(tokens[None].astype(np.int64))).logits[0].numpy()
    tolerance = 1e-4 * float(np.abs(expected).max())
    assert np.abs(in_torch - expected).max() < tolerance
    in_mlx = np.array(mlx_lm.load(str(grown[0] / "fused"))[0](mx.array(tokens[None])))[0]
    assert np.abs(in_mlx - expected).max() < tolerance


def test_grown_again_every_stage_is_skipped_and_no_file_touched(
    grown: tuple[Path, str], inputs: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = grown[0]
    before = {name: (run / name).stat().st_mtime_ns for name in finals(run)}
    value = report(capfd, "grow", run, *origin(inputs, tiny_model))
    assert [stage["skipped"] for stage in value["stages"].values()] == [True] * 4
    assert {name: (run / name).stat().st_mtime_ns for name in finals(run)} == before
    status, out, _ = call(capfd, "grow", run)
    assert status == 0
    assert out.count("done before, skipped") == 4
    assert {name: (run / name).stat().st_mtime_ns for name in finals(run)} == before


def test_a_removed_file_is_made_again_and_the_rest_is_kept(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    adapter = (run / "adapters/adapters.safetensors").read_bytes()
    (run / "adapters/adapters.safetensors").unlink()
    (run / "evaluation.json").unlink()
    before = (run / "fused/model.safetensors").stat().st_mtime_ns
    value = report(capfd, "grow", run)
    assert {name: stage["skipped"] for name, stage in value["stages"].items()} == {
        "corpus": True,
        "train": False,
        "eval": False,
        "fuse": True,
    }
    assert (run / "adapters/adapters.safetensors").read_bytes() == adapter
    assert (run / "fused/model.safetensors").stat().st_mtime_ns == before
    train = value["stages"]["train"]["report"]
    assert (train["resumed_at"], train["targets"]) == (6, 0)
    last = {event["kind"]: event["loss"] for event in read_metrics(run / "training/metrics.jsonl")}
    assert (train["train_loss"], train["valid_loss"]) == (last["train"], last["valid"])


def test_the_stages_one_by_one_give_what_grow_gives(
    grown: tuple[Path, str], tmp_path: Path, inputs: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert report(capfd, "corpus", run, *origin(inputs, tiny_model))["stage"] == "corpus"
    assert report(capfd, "train", run)["report"]["resumed_at"] == 0
    assert report(capfd, "eval", run)["report"]["rows"] == 4
    for file in ("corpus/train.jsonl", "corpus/test.jsonl", "adapters/adapters.safetensors", "evaluation/tuned.jsonl"):
        assert (run / file).read_bytes() == (grown[0] / file).read_bytes()
    expected = read_evaluation(grown[0] / "evaluation.json")
    assert list(expected.files) == ["F16", "Q4_K_M"]
    assert read_evaluation(run / "evaluation.json") == replace(expected, files={})


def test_fuse_writes_the_types_that_are_asked_for(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    value = report(capfd, "fuse", run, "--quantize", "F32", "--quantize", "BF16")
    assert list(value["report"]["gguf"]) == ["F32", "BF16"]
    assert value["report"]["gguf"]["F32"]["verified"]
    assert value["report"]["gguf"]["F32"]["kl"] < 1e-4
    assert value["report"]["gguf"]["BF16"]["kl"] < 2e-3
    assert finals(run) >= {"export/model-F32.gguf", "export/model-BF16.gguf"}
    assert (run / "export/Modelfile").read_text().startswith("FROM ./model-BF16.gguf\n")


def test_the_export_says_where_it_comes_from(
    grown: tuple[Path, str], inputs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = grown[0]
    proved = report(capfd, "lineage", run / "export/model-Q4_K_M.gguf")
    assert {check["state"] for check in proved["proof"]["checks"]} == {"ok"}
    assert proved["keys"]["chrysalis.genome.sha256"] == sha256_file(inputs / "genome.txt")
    card = (run / "export/README.md").read_text()
    assert card.startswith("---\n")
    assert "model-Q4_K_M.gguf" in card
    imatrix = json.loads((run / "export/verification.json").read_text())["imatrix"]
    assert imatrix["datasets"] == ["e2e: corpus/train.jsonl"]


def test_the_adapter_alone_in_every_form(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    value = report(capfd, "fuse", run, "--adapter-only")
    assert value["written"] == {
        "gguf": str(run / "export/adapter.gguf"),
        "peft": str(run / "export/peft"),
        "mlx": str(run / "export/mlx"),
    }
    spec = Workspace.open(run).adapter_spec()
    model = Workspace.open(run).model
    trained = load_adapter(run / "adapters", spec)
    for form in ("peft", "mlx"):
        found_spec, found = open_adapter(run / "export" / form, model)
        assert found_spec.shapes().keys() == spec.shapes().keys()
        assert all(np.array_equal(found[name], trained[name]) for name in trained)


def test_ollama_is_given_the_export(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A program in Ollama's place, which is not to be had here: it shows what it was given."""
    program = tmp_path / "bin/ollama"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$PWD" "$@" > {tmp_path}/said\ncat Modelfile >> {tmp_path}/said\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    status, out, err = call(capfd, "fuse", run, "--ollama", "larva:e2e")
    assert status == 0, err
    assert out.splitlines()[-1] == "made in Ollama: larva:e2e"
    said = (tmp_path / "said").read_text()
    assert said == f"{run}/export create larva:e2e -f Modelfile\n" + (run / "export/Modelfile").read_text()
    program.unlink()
    status, out, err = call(capfd, "fuse", run, "--ollama", "larva:e2e")
    assert status == 0, err
    assert (
        out.splitlines()[-1] == f"Ollama is not installed here; run: ollama create larva:e2e -f {run}/export/Modelfile"
    )
    assert "next:" not in out


def test_what_to_do_next_is_told_last(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = {command: call(capfd, command, run)[1].splitlines() for command in ("grow", "fuse")}
    for command, printed in lines.items():
        assert printed[-3:] == [
            f"next: chrysalis-mlx report {run}",
            f"      chrysalis-mlx chat {run}",
            f"      ollama create NAME -f {run}/export/Modelfile",
        ], command
        assert sum("ollama" in line for line in printed) == 1


def test_an_unknown_type_is_told_and_the_finished_export_is_kept(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (run / "run.json").read_bytes()
    status, out, err = call(capfd, "fuse", run, "--quantize", "Q9_X")
    assert (status, out) == (1, "")
    assert "no GGUF type is called 'Q9_X'" in err
    assert "Q4_K_M" in err
    assert (run / "run.json").read_bytes() == before


def test_generate_answers_from_the_gguf(grown: tuple[Path, str], capfd: pytest.CaptureFixture[str]) -> None:
    run = grown[0]
    options = ("--prompt", "The caterpillar", "--raw", "--max-tokens", "8")
    value = report(capfd, "generate", run, *options, "--quantize", "F16")
    assert value["file"] == str(run / "export/model-F16.gguf")
    assert 0 < len(value["tokens"]) <= 8
    chosen = report(capfd, "generate", run, *options)
    assert chosen["file"] == str(run / "export/model-Q4_K_M.gguf")
    status, out, _ = call(capfd, "generate", run, *options)
    assert (status, out) == (0, chosen["text"] + "\n")
    status, _, err = call(capfd, "generate", run, *options, "--quantize", "Q8_0")
    assert status == 2
    assert "the run has no Q8_0 file; it has F16, Q4_K_M" in err
    assert f"chrysalis-mlx fuse {run} --quantize Q8_0" in err


def test_another_learning_rate_in_another_run_is_another_adapter(
    grown: tuple[Path, str], tmp_path: Path, inputs: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(inputs / "genome.txt", tmp_path)
    text = (inputs / "blueprint.yaml").read_text()
    (tmp_path / "blueprint.yaml").write_text(text.replace("learning_rate: 1e-2", "learning_rate: 1e-3"))
    report(capfd, "corpus", tmp_path / "run", *origin(tmp_path, tiny_model))
    report(capfd, "train", tmp_path / "run")
    first, second = (
        safetensors.numpy.load_file(directory / "adapters/adapters.safetensors")
        for directory in (grown[0], tmp_path / "run")
    )
    assert first.keys() == second.keys()
    assert all(not np.array_equal(first[name], second[name]) for name in first)
