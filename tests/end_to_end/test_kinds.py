"""Other adapters and other bases than the usual one, from the genome to the verified GGUF."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from chrysalis_mlx.adapters.files import load_adapter
from chrysalis_mlx.adapters.merge import merge
from chrysalis_mlx.models.checkpoint import Checkpoint
from chrysalis_mlx.workspace import Workspace
from tests import tiny
from tests.end_to_end.inputs import BLUEPRINT, report

ADAPTER = "adapter: {rank: 4, alpha: 8}"
KINDS = {
    "qlora, 4 bits": (ADAPTER, {"bits": 4}),
    "qdora, 3 bits": ("adapter: {kind: dora, rank: 4, alpha: 8}", {"bits": 3}),
    "mxfp4": (ADAPTER, {"bits": 4, "mode": "mxfp4"}),
    "full": ("adapter: {kind: full, layers: 1}", None),
    "own ranks": ("adapter: {rank: 4, rslora: true, dropout: 0.1, ranks: {'mlp.*': 2}, layers: 1, side: first}", None),
}


@pytest.mark.parametrize("backend", ["mlx", "torch"])
@pytest.mark.parametrize("name", KINDS)
def test_it_learns_is_fused_into_its_exact_base_and_verified(
    name: str, backend: str, inputs: Path, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adapter, packing = KINDS[name]
    model = tiny.quantized(tiny_model, tmp_path / "base", **packing) if packing else tiny_model
    blueprint = tmp_path / "blueprint.yaml"
    text = BLUEPRINT.replace(ADAPTER, adapter).replace("quantize: [F16, Q4_K_M]", "quantize: [F16]")
    blueprint.write_text(text.replace("learning_rate: 1e-2", "learning_rate: 3e-3"))
    run = tmp_path / "run"
    options = [f"--genome={inputs / 'genome.txt'}", f"--model={model}", f"--blueprint={blueprint}"]
    stages = report(capfd, "grow", run, *options, "--backend", backend)["stages"]
    assert stages["eval"]["report"]["changes"]["test"]["ratio"] < 0.98
    assert stages["fuse"]["report"]["fused"]["max_difference"] < 1e-4
    assert stages["fuse"]["report"]["gguf"]["F16"]["verified"]
    assert "quantization" not in json.loads((run / "fused/config.json").read_text())

    spec = Workspace.open(run).adapter_spec()
    arrays, fused, base = load_adapter(run / "adapters", spec), Checkpoint.open(run / "fused"), Checkpoint.open(model)
    for weight in spec.weights:
        np.testing.assert_array_equal(fused.read(weight), arrays[weight])
    for module, own in spec.modules.items():
        parts = [arrays.get(f"{module}.{part}") for part in "ABm"]
        expected = merge(own.scale, base.read(f"{module}.weight"), *parts)
        np.testing.assert_array_equal(fused.read(f"{module}.weight"), expected)
    assert {module.split(".")[2] for module in (*spec.modules, *spec.weights)} == (
        {"full": {"1"}, "own ranks": {"0"}}.get(name, {"0", "1"})
    )
