"""The fused model of a quantized base: it holds what the packed weights stand for, and is no longer quantized."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from chrysalis_mlx.export.fuse import write_fused, write_unverified
from chrysalis_mlx.gguf.reader import import_gguf
from chrysalis_mlx.gguf.writer import plan_gguf
from chrysalis_mlx.models.checkpoint import Checkpoint
from chrysalis_mlx.models.directory import ModelDirectory
from tests import tiny


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    assert sorted(found.names) == sorted(expected.names)
    for name in expected.names:
        assert np.array_equal(found.read(name), expected.read(name))


def test_a_fused_directory_is_not_quantized(tiny_model: Path, tmp_path: Path) -> None:
    model = ModelDirectory.open(tiny.quantized(tiny_model, tmp_path / "model", bits=5))
    write_fused(tmp_path / "fused", model.checkpoint(), model, "float32")
    fused = ModelDirectory.open(tmp_path / "fused")
    assert not fused.is_quantized
    original = json.loads((tiny_model / "config.json").read_text())
    assert {key: fused.config[key] for key in original} == original
    assert fused.config.keys() - original.keys() == set()
    assert_same(fused.checkpoint(), model.checkpoint())


def test_a_gguf_holds_what_packed_weights_stand_for(tiny_model: Path, tmp_path: Path) -> None:
    model = ModelDirectory.open(tiny.quantized(tiny_model, tmp_path / "model", mode="mxfp4"))
    source = model.checkpoint()
    plan = plan_gguf(source, model.plain_config, model.path).choose(["F32"], None)
    written = write_unverified(tmp_path, plan, source, metadata={})["F32"]
    assert written.path.name == "model-F32.unverified.gguf"
    import_gguf(written.path, tmp_path / "imported")
    assert_same(Checkpoint.open(tmp_path / "imported"), model.checkpoint())
