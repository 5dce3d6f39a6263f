"""A finished run of a tiny model, made by the real classes in a second; the figures of its stages are invented."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from chrysalis_mlx.adapters.files import save_mlx, save_peft
from chrysalis_mlx.adapters.spec import initialize
from chrysalis_mlx.corpus.build import corpus_of_genome
from chrysalis_mlx.corpus.write import write_corpus
from chrysalis_mlx.evaluation.results import Change, Copying, Evaluation, Interval, Score, Subject, Texts
from chrysalis_mlx.export.lineage.lineage import Lineage, Value, metadata
from chrysalis_mlx.genome.build import build_genome
from chrysalis_mlx.genome.stage import lock_now
from chrysalis_mlx.run import Run, atomic_path, sha256_file, write_json
from chrysalis_mlx.training.metrics import Metrics
from chrysalis_mlx.training.stage import ADAPTER_FILES, PEFT_FILES
from chrysalis_mlx.workspace import Origin, Workspace
from tests.corpus.genomes import prose
from tests.genome.repositories import make_repository

MIT = "Permission is hereby granted, free of charge. The above copyright notice and this permission notice stay."
BLUEPRINT = """\
name: wings
description: what a butterfly knows
split: {valid: 0.2, test: 0.2}
adapter: {kind: dora, rank: 4, alpha: 8}
training:
  {row_length: 128, batch_size: 2, gradient_accumulation: 3, steps: 6, warmup_steps: 1, learning_rate: 1e-3, seed: 7}
"""
CARD = """\
---
license: other
license_name: tiny-licence
license_link: https://example.org/licence
language: [en, no]
base_model: owner/Older-1B
datasets:
\t- owner/words
---
# Tiny
"""
REPORT = {
    "steps": 6,
    "resumed_at": 0,
    "train_loss": 2.5,
    "valid_loss": 2.75,
    "best_step": 5,
    "best_loss": 2.625,
    "rollbacks": 0,
    "stopped_early": False,
    "paused": False,
    "targets": 100,
    "seconds": 1.0,
    "device": "cpu",
    "dtype": "float32",
    "adapter_parameters": 12345,
    "backend": "mlx",
}


def _subject(name: str, loss: float, general: float, copies: int) -> Subject:
    def score(loss: float) -> Score:
        perplexity = math.exp(loss)
        return Score(perplexity, loss, 1234, 9, Interval(perplexity - 0.5, perplexity + 0.5))

    copying = {"train": Copying(16, copies, 7), "held_out": Copying(15, 0, 3)}
    return Subject(name, Texts(score(loss)), score(general), copying)


EVALUATION = Evaluation(
    "mlx",
    _subject("base", 3.0, 2.5, 1),
    _subject("tuned", 2.0, 2.75, 4),
    changes={"test": Change(math.exp(-1), Interval(0.25, 0.5)), "general": Change(math.exp(0.25), Interval(1.0, 1.5))},
)
ENTRIES: dict[str, dict[str, Any]] = {
    "F16": {"file": "model-F16.gguf", "bytes": 2_000_000, "bits_per_weight": 16.0, "kl": 1e-6, "top1": 1.0}
    | {"perplexity": 10.0, "failures": [], "verified": True},
    "Q4_K_M": {"file": "model-Q4_K_M.gguf", "bytes": 700_000, "bits_per_weight": 5.5, "kl": 0.05, "top1": 0.9}
    | {"failures": ["KL 5.00e-02 is above | the budget"], "verified": False},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder of a finished run; nobody writes to it."""
    folder = tmp_path_factory.mktemp("finished")
    finish(folder, tiny_model)
    return folder


def finish(folder: Path, tiny_model: Path) -> Run:
    """Grow `folder`/run from `folder`/model, `folder`/genome.txt (two repositories) and `folder`/blueprint.yaml."""
    model = Path(shutil.copytree(tiny_model, folder / "model" / "Tiny-1M-Instruct"))
    (model / "README.md").write_text(CARD)
    make_repository(folder / "docs", {"LICENSE": MIT, **{f"{n}.md": prose(n, 160) for n in range(8)}})
    make_repository(folder / "no_te|s", {"a.md": prose(50, 160), "b.md": prose(51, 160)})
    lock = lock_now([f"docs={folder / 'docs'}", f"no_te|s={folder / 'no_te|s'}"], folder / "clones")
    build_genome(lock, folder / "clones", folder / "genome.txt")
    (folder / "blueprint.yaml").write_text(BLUEPRINT)
    origin = Origin(folder / "genome.txt", model=str(model), blueprint=str(folder / "blueprint.yaml"))
    workspace = Workspace.create(folder / "run", origin)
    run = workspace.run
    run.record["backend"] = {"name": "mlx", "reason": "asked for"}
    run.record["genome"]["manifest"] = sha256_file(run.path("genome.json"))
    _corpus(workspace)
    _train(workspace)
    with run.recording("eval", run.output_hashes("train")) as record:
        write_json(run.path("evaluation.json"), EVALUATION.as_dict())
        record |= {"report": {}, "outputs": [run.path("evaluation.json")]}
    export(run)
    return run


def export(run: Run) -> None:
    """Record the stage `fuse` with a GGUF of two types."""
    with run.recording("fuse", run.output_hashes("train")) as record:
        run.path("export").mkdir(exist_ok=True)
        write_json(run.path("export/verification.json"), {"gguf": ENTRIES})
        files = [run.path("export", str(entry["file"])) for entry in ENTRIES.values()]
        for file in files:
            write(file, metadata(Lineage.of_run(run)))
        record["outputs"] = [*files, run.path("export/verification.json")]


def write(file: Path, keys: Mapping[str, Value]) -> Path:
    """A GGUF of one tensor with these keys."""
    writer = gguf.GGUFWriter(file, "llama")
    for name, value in keys.items():
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)
    writer.add_array("tokenizer.ggml.tokens", [f"token {n}" for n in range(5000)])
    writer.add_tensor("output_norm.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def moved(folder: Path, to: Path) -> Run:
    """A copy of everything in `folder`, with the paths of the record pointing into the copy."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns(".git"))
    record = (to / "run/run.json").read_text()
    (to / "run/run.json").write_text(record.replace(json.dumps(str(folder))[:-1], json.dumps(str(to))[:-1]))
    return Run.open(to / "run")


def flip(file: Path, old: bytes, new: bytes) -> None:
    """Change the first of these bytes in a file, which keeps its size."""
    content = file.read_bytes()
    assert content.count(old) > 0
    assert len(old) == len(new)
    file.write_bytes(content.replace(old, new, 1))


def _corpus(workspace: Workspace) -> None:
    run, tokenizer = workspace.run, workspace.model.tokenizer
    with run.recording("corpus", workspace.material) as record, atomic_path(run.path("corpus")) as directory:
        made = corpus_of_genome(workspace.genome, workspace.blueprint, tokenizer, None)
        record["report"] = write_corpus(made, directory, tokenizer)
        record["outputs"] = [run.path("corpus", path.name) for path in sorted(directory.iterdir())]


def _train(workspace: Workspace) -> None:
    run, spec = workspace.run, workspace.adapter_spec()
    with run.recording("train", run.output_hashes("corpus")) as record:
        arrays = initialize(spec, workspace.model.checkpoint(), 0)
        save_mlx(run.path("adapters"), spec, arrays, "base", layers=2)
        save_peft(run.path("adapters", "peft"), spec, arrays, "base")
        metrics = Metrics(run.path("training", "metrics.jsonl"))
        for step in range(1, 7):
            metrics.append({"step": step, "kind": "train", "loss": 2.5, "tokens": 100 + step})
        metrics.append({"step": 6, "kind": "valid", "loss": 2.75})
        record["report"] = REPORT
        files = [run.path("adapters", name) for name in (*ADAPTER_FILES, *PEFT_FILES)]
        record["outputs"] = [*files, run.path("training", "metrics.jsonl")]
