"""Which GGUF is meant, and how it is to be spoken with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chrysalis_mlx.errors import ModelError, RunError, UsageError
from chrysalis_mlx.inference.files import Exported, Manner, find_exported, manner_of
from chrysalis_mlx.run import Run
from tests import tiny
from tests.gguf.parity import export
from tests.inference.runs import endless_model, without_base


def test_of_a_run_the_type_that_is_named_else_the_last(larva: Path) -> None:
    last = find_exported(larva)
    assert (last.file, last.type_name, last.name) == (larva / "export/model-Q8_0.gguf", "Q8_0", "larva")
    assert find_exported(larva, "F32").file == larva / "export/model-F32.gguf"
    with pytest.raises(UsageError, match=r"the run has no Q4_K_M file; it has F32, Q8_0") as failure:
        find_exported(larva, "Q4_K_M")
    assert failure.value.fix == f"run: chrysalis-mlx fuse {larva} --quantize Q4_K_M"


def test_the_run_of_a_file_is_found(larva: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(larva / "export")
    found = find_exported(Path("model-F32.gguf"))
    assert found.run is not None
    assert (found.run.directory, found.type_name, found.name) == (larva, "F32", "larva")
    with pytest.raises(UsageError, match="--quantize chooses among the files of a run"):
        find_exported(Path("model-F32.gguf"), "F32")


def test_a_file_that_no_run_has_made_stands_alone(larva: Path, tmp_path: Path) -> None:
    copy = tmp_path / "some.gguf"
    shutil.copy(larva / "export/model-F32.gguf", copy)
    assert find_exported(copy) == Exported(copy)
    assert find_exported(copy).name == "some"
    run = tmp_path / "run"
    (run / "export").mkdir(parents=True)
    shutil.copy(larva / "run.json", run)
    shutil.copy(copy, run / "export/other.gguf")
    assert find_exported(run / "export/other.gguf").run is None


def test_what_is_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such GGUF file"):
        find_exported(tmp_path / "none.gguf")
    with pytest.raises(RunError, match="this is not a run directory"):
        find_exported(tmp_path)
    run = Run.create(tmp_path / "run", {})
    with pytest.raises(RunError, match="the stage 'fuse' has not finished"):
        find_exported(run.directory)


def test_a_run_is_spoken_with_as_its_blueprint_and_the_models_makers_say(larva: Path) -> None:
    manner = manner_of(find_exported(larva))
    assert manner == Manner(
        context=300,
        system="You are a larva.",
        examples=({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}),
        sampling={"temperature": 0.7, "top_p": 0.9, "top_k": 30, "repeat_penalty": 1.1},
    )
    assert manner_of(find_exported(larva), 77).context == 77


def test_without_the_base_a_run_still_talks(larva: Path, tmp_path: Path) -> None:
    manner = manner_of(find_exported(without_base(larva, tmp_path)))
    assert (manner.context, manner.system, manner.sampling) == (300, "You are a larva.", {})


def test_of_a_file_alone_the_context_is_its_own_up_to_8192(tmp_path: Path) -> None:
    short = export(tiny.tiny_llama(tmp_path / "short"), tmp_path / "short.gguf").path
    long = export(endless_model(tmp_path / "long"), tmp_path / "long.gguf").path
    assert manner_of(Exported(short)) == Manner(512)
    assert manner_of(Exported(long)) == Manner(8192)
    assert manner_of(Exported(long), 20_000).context == 20_000
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(ModelError, match="the file is not a GGUF"):
        manner_of(Exported(tmp_path / "text.gguf"))
