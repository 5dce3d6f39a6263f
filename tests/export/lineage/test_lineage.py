"""The keys of a lineage, and its proof: whatever is changed is found and named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from chrysalis_mlx import __version__
from chrysalis_mlx.adapters.files import save_peft
from chrysalis_mlx.adapters.spec import initialize
from chrysalis_mlx.export.lineage.lineage import Lineage, metadata, place
from chrysalis_mlx.export.lineage.proof import Check, prove_run, run_of
from chrysalis_mlx.genome.history import History
from chrysalis_mlx.genome.manifest import RepositoryRecord, read_manifest
from chrysalis_mlx.gguf.keys import read_keys
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.run import Run, sha256_file, sha256_files, sha256_json
from chrysalis_mlx.workspace import Workspace
from tests.export.finished import export, finished, flip, moved, write

__all__ = ["finished"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    """A copy to change."""
    return moved(finished, tmp_path / "moved")


def wrong(run: Run, file: Path | None = None) -> dict[str, str]:
    """What is not as it was recorded."""
    return {check.what: check.state for check in prove_run(run, file) if check.state != "ok"}


def found(run: Run, what: str) -> Check:
    return next(check for check in prove_run(run) if check.what == what)


def test_the_keys_of_a_run(finished: Path) -> None:
    run = Run.open(finished / "run")
    keys = metadata(Lineage.of_run(run))
    _, (docs, notes) = read_manifest(run.path("genome.json"))
    adapters = {path: out["sha256"] for path, out in run.stage("train")["outputs"].items() if "adapters/" in path}
    assert {name: value for name, value in keys.items() if name.startswith("general.")} == {
        "general.name": "Tiny-1M-Instruct wings",
        "general.description": "what a butterfly knows",
        "general.finetune": "wings",
        "general.size_label": "107K",
        "general.quantized_by": f"chrysalis-mlx {__version__}",
        "general.license": "other",
        "general.license.name": "tiny-licence",
        "general.license.link": "https://example.org/licence",
        "general.base_model.count": 1,
        "general.base_model.0.name": "Tiny-1M-Instruct",
        "general.dataset.count": 1,
        "general.dataset.0.name": "genome",
        "general.dataset.0.description": "the text of 10 files from 2 repositories",
        "general.tags": ["text-generation", "gguf", "dora", "chrysalis-mlx"],
        "general.languages": ["en", "no"],
    }
    assert {name.removeprefix("chrysalis."): value for name, value in keys.items() if name[:8] != "general."} == {
        "version": __version__,
        "created": run.record["created"],
        "seed": 7,
        "backend": "mlx",
        "model.source": "Tiny-1M-Instruct",
        "model.sha256": sha256_json(run.record["model"]["files"]),
        "model.files": [f"{sha256}  {name}" for name, sha256 in run.record["model"]["files"].items()],
        "adapter.kind": "dora",
        "adapter.rank": 4,
        "adapter.alpha": 8.0,
        "adapter.sha256": sha256_file(run.path("adapters/adapters.safetensors")),
        "adapter.files": [f"{sha256}  {path}" for path, sha256 in adapters.items()],
        "training.steps": 6,
        "training.best_step": 5,
        "training.tokens": 101 + 102 + 103 + 104 + 105 + 106,
        "training.train_loss": 2.5,
        "training.valid_loss": 2.75,
        "training.best_loss": 2.625,
        "training.learning_rate": 1e-3,
        "blueprint.name": "wings",
        "blueprint.sha256": run.record["blueprint"]["sha256"],
        "genome.sha256": sha256_file(finished / "genome.txt"),
        "genome.manifest": sha256_file(run.path("genome.json")),
        "genome.lock": [f"docs@{docs.commit}", f"no_te|s@{notes.commit}"],
    }
    assert len(adapters) == 4
    assert str(finished) not in json.dumps(keys)


@pytest.mark.parametrize(
    ("record", "where"),
    [
        (RepositoryRecord("a", "remote", "https://h/o/a", COMMIT), f"https://h/o/a@{COMMIT}"),
        (RepositoryRecord("a", "remote", "https://h/o/a", COMMIT, folder="d/e"), f"https://h/o/a@{COMMIT}:d/e"),
        (RepositoryRecord("a", "checkout", "/home/me/a", COMMIT), f"a@{COMMIT}"),
        (RepositoryRecord("a", "directory", "/home/me/a", None, COMMIT), f"a@{COMMIT}"),
        (RepositoryRecord("a"), "a"),
    ],
)
def test_where_a_repository_comes_from(record: RepositoryRecord, where: str) -> None:
    assert place(record) == where


def test_one_remote_repository_is_the_dataset(finished: Path) -> None:
    lineage = Lineage.of_run(Run.open(finished / "run"))
    remote = dataclasses.replace(lineage.repositories[0], kind="remote", location="https://h/o/docs")
    keys = metadata(dataclasses.replace(lineage, repositories=[remote]))
    assert {name[18:]: value for name, value in keys.items() if name.startswith("general.dataset.0.")} == {
        "name": "docs",
        "description": "the text of 8 files",
        "version": remote.commit,
        "repo_url": "https://h/o/docs",
    }


def test_own_data_are_named_and_from_the_hub_with_their_place(run: Run, tmp_path: Path) -> None:
    rows = tmp_path / f"datasets--owner--words/snapshots/{COMMIT}/rows.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text('{"text": "a"}\n')
    del run.record["genome"]
    run.record["data"] = {"path": str(rows), "sha256": sha256_files(rows)}
    keys = metadata(Lineage.of_run(run))
    assert {name: value for name, value in keys.items() if "dataset" in name or "data." in name} == {
        "general.dataset.count": 1,
        "general.dataset.0.name": "words",
        "general.dataset.0.organization": "owner",
        "general.dataset.0.version": COMMIT,
        "general.dataset.0.repo_url": "https://huggingface.co/datasets/owner/words",
        "chrysalis.data.sha256": sha256_files(rows),
    }
    assert not [name for name in keys if "genome" in name]
    rows.write_text('{"text": "b"}\n')
    assert found(run, "data: rows.jsonl").state == "differs"
    rows.unlink()
    assert found(run, "data: rows.jsonl").state == "missing"


def test_without_a_run_what_the_files_are(finished: Path, tmp_path: Path) -> None:
    directory = finished / "model/Tiny-1M-Instruct"
    model = ModelDirectory.open(directory)
    plain = metadata(Lineage.of_files(str(directory), model))
    assert plain["general.name"] == plain["chrysalis.model.source"] == "Tiny-1M-Instruct"
    assert plain["general.base_model.0.repo_url"] == "https://huggingface.co/owner/Older-1B"
    assert (plain["general.base_model.0.name"], plain["general.base_model.0.organization"]) == ("Older-1B", "owner")
    assert plain["chrysalis.model.sha256"] == sha256_json(model.hashes())
    assert not [name for name in plain if "adapter" in name or "training" in name or "dataset" in name]

    spec = Workspace.open(finished / "run").adapter_spec()
    save_peft(tmp_path, spec, initialize(spec, model.checkpoint(), 0), "base")
    tuned = metadata(Lineage.of_files(str(directory), model, tmp_path, spec))
    assert (tuned["chrysalis.adapter.kind"], tuned["chrysalis.adapter.rank"]) == ("dora", 4)
    assert tuned["chrysalis.adapter.alpha"] == 8.0
    assert tuned["chrysalis.adapter.sha256"] == sha256_file(tmp_path / "adapter_model.safetensors")
    assert tuned["chrysalis.adapter.files"] == [
        f"{sha256_file(tmp_path / name)}  {name}" for name in ("adapter_model.safetensors", "adapter_config.json")
    ]
    assert tuned["general.base_model.0.name"] == "Tiny-1M-Instruct"


@pytest.mark.parametrize("form", ["adapters.npz", "adapters.safetensors", "peft/adapter_model.safetensors"])
def test_of_an_adapter_the_files_that_are_read_are_hashed(finished: Path, tmp_path: Path, form: str) -> None:
    """Of a run's adapters/ those are the ones in peft/, which hold each module as it is."""
    run = Run.open(finished / "run")
    adapter = shutil.copytree(run.path("adapters"), tmp_path / "adapters")
    if "peft" not in form:
        shutil.rmtree(adapter / "peft")
    if form == "adapters.npz":
        (adapter / "adapters.safetensors").unlink()
        np.savez(adapter / form, **{"model.layers.0.self_attn.q_proj.lora_a": np.ones((64, 4), np.float32)})
    directory = finished / "model/Tiny-1M-Instruct"
    spec = Workspace.open(finished / "run").adapter_spec()
    keys = metadata(Lineage.of_files(str(directory), ModelDirectory.open(directory), adapter, spec))
    config = "peft/adapter_config.json" if "peft" in form else "adapter_config.json"
    sums = {name: sha256_file(adapter / name) for name in (form, config)}
    assert keys["chrysalis.adapter.sha256"] == sums[form]
    assert keys["chrysalis.adapter.files"] == [f"{sha256}  {name}" for name, sha256 in sums.items()]


def test_a_run_that_nobody_touched_is_proved(run: Run) -> None:
    checks = prove_run(run)
    assert {check.state for check in checks} == {"ok"}
    whats = [check.what for check in checks]
    assert whats[:3] == ["blueprint.yaml", "genome: genome.txt", "genome.json"]
    assert set(whats) >= {f"stage {name}: inputs" for name in ("corpus", "train", "eval", "fuse")}
    assert set(whats) >= {f"model: {name}" for name in run.record["model"]["files"]}
    assert set(whats) >= {path for stage in run.record["stages"].values() for path in stage["outputs"]}
    assert found(run, "export/model-F16.gguf: keys").note == "23 agree with the run"


CHANGES: dict[str, tuple[Callable[[Run], object], dict[str, str]]] = {
    "a byte of an adapter": (
        lambda run: flip(run.path("adapters/peft/adapter_model.safetensors"), b"\x00\x00", b"\x00\x01"),
        {"adapters/peft/adapter_model.safetensors": "differs"},
    ),
    "a byte of a text": (
        lambda run: flip(run.path("corpus/train.jsonl"), b"the", b"The"),
        {"corpus/train.jsonl": "differs"},
    ),
    "a value of the blueprint": (
        lambda run: flip(run.path("blueprint.yaml"), b"rank: 4", b"rank: 5"),
        {
            "blueprint.yaml": "differs",
            "export/model-F16.gguf: chrysalis.adapter.rank": "differs",
            "export/model-Q4_K_M.gguf: chrysalis.adapter.rank": "differs",
        },
    ),
    "a blueprint that is none": (
        lambda run: flip(run.path("blueprint.yaml"), b"rank: 4", b"rank: x"),
        {
            "blueprint.yaml": "differs",
            "export/model-F16.gguf: keys": "missing",
            "export/model-Q4_K_M.gguf: keys": "missing",
        },
    ),
    "a file's hash in the manifest": (
        lambda run: flip(
            run.path("genome.json"),
            read_manifest(run.path("genome.json"))[1][0].files[0].sha256.encode(),
            b"0" * 64,
        ),
        {
            "genome.json": "differs",
            "export/model-F16.gguf: chrysalis.genome.manifest": "differs",
            "export/model-Q4_K_M.gguf: chrysalis.genome.manifest": "differs",
        },
    ),
    "a commit in the manifest": (
        lambda run: flip(
            run.path("genome.json"), str(read_manifest(run.path("genome.json"))[1][0].commit).encode(), b"0" * 40
        ),
        {
            "genome.json": "differs",
            **{
                f"export/model-{kind}.gguf: chrysalis.genome.{name}": "differs"
                for kind in ("F16", "Q4_K_M")
                for name in ("manifest", "lock")
            },
        },
    ),
    "a word of the genome": (
        lambda run: flip(Path(run.record["genome"]["path"]), b"the ", b"teh "),
        {"genome: genome.txt": "differs"},
    ),
    "a byte of the base": (
        lambda run: flip(Path(run.record["model"]["directory"]) / "config.json", b"llama", b"LLAMA"),
        {"model: config.json": "differs"},
    ),
    "no adapter": (
        lambda run: run.path("adapters/adapters.safetensors").unlink(),
        {"adapters/adapters.safetensors": "missing"},
    ),
    "no genome, no base": (
        lambda run: [shutil.rmtree(run.record["model"]["directory"]), Path(run.record["genome"]["path"]).unlink()],
        {
            "genome: genome.txt": "missing",
            **{
                f"model: {name}": "missing"
                for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json")
            },
            "model: tokenizer_config.json": "missing",
        },
    ),
    "no metrics": (
        lambda run: run.path("training/metrics.jsonl").unlink(),
        {"training/metrics.jsonl": "missing"},
    ),
    "no manifest": (
        lambda run: run.path("genome.json").unlink(),
        {
            "genome.json": "missing",
            "export/model-F16.gguf: keys": "missing",
            "export/model-Q4_K_M.gguf: keys": "missing",
        },
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_is_named(run: Run, change: str) -> None:
    act, expected = CHANGES[change]
    act(run)
    assert wrong(run) == expected


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        (b"what a butterfly knows", b"what a butterfly knew!", "general.description"),
        (b"tiny-licence", b"free-licence", "general.license.name"),
        (b"docs@", b"dogs@", "chrysalis.genome.lock"),
        (b"  adapters/adapter_config.json", b"  adapters/adapter_config.JSON", "chrysalis.adapter.files"),
    ],
)
def test_a_changed_key_of_a_gguf_is_named(run: Run, old: bytes, new: bytes, key: str) -> None:
    file = run.path("export/model-F16.gguf")
    flip(file, old, new)
    assert wrong(run) == {"export/model-F16.gguf": "differs", f"export/model-F16.gguf: {key}": "differs"}
    check = found(run, f"export/model-F16.gguf: {key}")
    assert check.expected is not None
    assert check.found is not None
    assert (old.decode() in check.expected, new.decode() in check.found) == (True, True)


def test_keys_that_are_renamed_or_invented_are_named(run: Run) -> None:
    file = run.path("export/model-F16.gguf")
    flip(file, b"chrysalis.seed", b"chrysalis.weed")
    assert wrong(run) == {
        "export/model-F16.gguf": "differs",
        "export/model-F16.gguf: chrysalis.weed": "differs",
        "export/model-F16.gguf: keys": "missing",
    }
    assert found(run, "export/model-F16.gguf: keys").note == "the file does not have chrysalis.seed"


def test_both_hashes_are_told(run: Run) -> None:
    file = run.path("adapters/adapters.safetensors")
    recorded = sha256_file(file)
    flip(file, b"\x00\x00", b"\x00\x01")
    assert found(run, "adapters/adapters.safetensors") == Check(
        "adapters/adapters.safetensors", "differs", recorded, sha256_file(file)
    )


def test_a_manifest_whose_hash_nobody_recorded_is_proved_by_its_genome(run: Run) -> None:
    del run.record["genome"]["manifest"]
    assert wrong(run) == {}
    flip(run.path("genome.json"), b'"path": "0.md"', b'"path": "9.md"')
    check = found(run, "genome.json")
    assert (check.state, check.expected) == ("differs", None)
    assert check.note == "docs/0.md: not in the manifest, or there twice; docs/9.md: missing"
    Path(run.record["genome"]["path"]).unlink()
    assert found(run, "genome.json").state == "missing"


def test_files_made_from_an_older_adapter(run: Run) -> None:
    """A training that was done again, and nothing after it."""
    with run.recording("train", run.output_hashes("corpus")) as record:
        flip(run.path("adapters/adapters.safetensors"), b"\x00\x00", b"\x00\x01")
        record["outputs"] = [run.path(path) for path in ("adapters/adapters.safetensors", "training/metrics.jsonl")]
    state = wrong(run)
    assert (state["stage eval: inputs"], state["stage fuse: inputs"]) == ("differs", "differs")
    assert found(run, "stage fuse: inputs").note.startswith("it was made from another adapters/adapters.safetensors")
    assert state["export/model-F16.gguf: chrysalis.adapter.sha256"] == "differs"
    assert "stage train: inputs" not in state
    with run.recording("eval", {}) as record:
        record["outputs"] = []
    export(run)
    assert wrong(run) == {}


def test_a_file_elsewhere_is_known_by_its_hash(run: Run, tmp_path: Path) -> None:
    file = run.path("export/model-Q4_K_M.gguf")
    copy = Path(shutil.copy(file, tmp_path / "renamed.gguf"))
    assert wrong(run, copy) == {}
    assert run_of(copy) is None
    there = run_of(file)
    assert there is not None
    assert there.directory.samefile(run.directory)
    flip(copy, b"tiny-licence", b"evil-licence")
    assert wrong(run, copy) == {str(copy): "differs", f"{copy}: general.license.name": "differs"}
    stale = write(run.path("export/model-Q8_0.gguf"), {"general.name": "stale"})
    assert wrong(run, stale)[str(stale)] == "differs"


def test_an_imatrix_has_no_lineage_of_its_own(run: Run) -> None:
    imatrix = write(run.path("export/imatrix.gguf"), {"general.type": "imatrix"})
    outputs = run.stage("fuse")["outputs"]
    outputs["export/imatrix.gguf"] = {"sha256": sha256_file(imatrix), "bytes": imatrix.stat().st_size}
    assert wrong(run) == {}


def test_what_is_no_gguf_any_more(run: Run) -> None:
    run.path("export/model-F16.gguf").write_bytes(b"GGUF")
    assert wrong(run) == {"export/model-F16.gguf": "differs", "export/model-F16.gguf: keys": "missing"}


def test_the_commits_of_a_genome_with_history(finished: Path, tmp_path: Path) -> None:
    run = moved(finished, tmp_path / "moved")
    folder = tmp_path / "moved"
    for name in ("docs", "no_te|s"):
        shutil.copytree(finished / name / ".git", folder / name / ".git")
    manifest = run.path("genome.json")
    manifest.write_text(manifest.read_text().replace(str(finished), str(folder)))
    run.record["genome"]["history"] = History(manifest, folder, max_commits=200).fingerprint()
    assert found(run, "history").state == "ok"
    shutil.rmtree(folder / "docs/.git")
    assert found(run, "history") == Check(
        "history", "missing", run.record["genome"]["history"], note="these are not cloned here: docs"
    )
    shutil.copytree(finished / "docs/.git", folder / "docs/.git")
    run.record["genome"]["history"] = "0" * 64
    assert found(run, "history").state == "differs"


def test_the_floats_of_a_gguf_have_32_bits(finished: Path) -> None:
    keys = read_keys(finished / "run/export/model-F16.gguf")
    assert keys["chrysalis.training.learning_rate"] != 1e-3
    assert keys["chrysalis.training.learning_rate"] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://me:tok3n@h.org/r.git", "https://h.org/r.git@abc"),
        ("https://tok3n@h.org/r.git", "https://h.org/r.git@abc"),
        ("https://h.org/r.git", "https://h.org/r.git@abc"),
        ("git@github.com:o/r.git", "git@github.com:o/r.git@abc"),
    ],
)
def test_a_place_tells_no_password_and_no_token(location: str, told: str) -> None:
    assert place(RepositoryRecord("r", "remote", location, "abc")) == told
