"""The base of a run as a GGUF."""

from __future__ import annotations

from pathlib import Path

import pytest

from chrysalis_mlx.errors import ExportError, ModelError
from chrysalis_mlx.gguf.reader import GGUFModel
from chrysalis_mlx.inference.base import base_gguf
from chrysalis_mlx.models.checkpoint import Checkpoint
from chrysalis_mlx.models.source import cache_directory
from chrysalis_mlx.progress import silent
from chrysalis_mlx.run import Run
from chrysalis_mlx.workspace import Origin, Workspace
from tests.gguf.parity import export
from tests.inference.runs import endless_model, without_base


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHRYSALIS_CACHE", str(tmp_path / "cache"))


def test_it_is_the_base_without_the_adapter_in_that_type(larva: Path, tmp_path: Path) -> None:
    file = base_gguf(Run.open(larva), "F32", silent)
    assert file.parent == cache_directory() / "base"
    assert file.name.startswith("model-F32-")
    base, found = Checkpoint.open(larva.parent / "model"), GGUFModel.open(file)
    for name in base.names:
        assert (found.read(name) == base.read(name)).all()
    q8 = base_gguf(Run.open(larva), "Q8_0", silent)
    expected = export(larva.parent / "model", tmp_path / "q8.gguf", "Q8_0", metadata={"general.name": "model"})
    assert q8.read_bytes() == expected.path.read_bytes()


def test_it_is_written_once(larva: Path) -> None:
    file = base_gguf(Run.open(larva), "F32", silent)
    written = file.stat().st_mtime_ns
    assert base_gguf(Run.open(larva), "F32", silent) == file
    assert file.stat().st_mtime_ns == written
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_type_that_needs_an_importance_matrix_has_no_base(larva: Path, tmp_path: Path) -> None:
    model = endless_model(tmp_path / "wide", hidden=256, intermediate=256)
    origin = Origin(larva.parent / "genome.txt", model=str(model), blueprint=str(larva.parent / "blueprint.yaml"))
    run = Workspace.create(tmp_path / "run", origin).run
    with pytest.raises(ExportError, match=r"there is no base of this type to compare with: IQ2_M stores") as failure:
        base_gguf(run, "IQ2_M", silent)
    assert failure.value.fix is not None
    assert "--quantize TYPE" in failure.value.fix


def test_a_base_that_is_gone_is_told(larva: Path, tmp_path: Path) -> None:
    run = without_base(larva, tmp_path)
    with pytest.raises(ModelError, match=r"no config\.json"):
        base_gguf(Run.open(run), "F32", silent)
    assert not (cache_directory() / "base").exists()
