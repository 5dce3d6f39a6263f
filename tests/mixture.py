"""A tiny mixture of experts in each of the forms in which checkpoints hold experts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tests import tiny

EXPERTS = 6
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def mixture(directory: Path, form: str = "single", *, layers: int = 1) -> Path:
    """`tiny.tiny_qwen3_moe`, with the keys in config.json that mlx-lm looks for.

    Args:
        form: "single" (a matrix for each expert), "switch" (mlx-lm's) or "fused" (transformers 5's); "4-bit" is what
            `mlx_lm.convert -q` makes of it.
    """
    if form == "4-bit":
        return tiny.quantized(mixture(directory.with_name(f"{directory.name}-plain"), layers=layers), directory)
    tiny.tiny_qwen3_moe(directory, layers=layers)
    file = directory / "config.json"
    config = json.loads(file.read_text())
    own = {"num_experts": EXPERTS, "rope_theta": config["rope_parameters"]["rope_theta"]}
    file.write_text(json.dumps(config | own))
    return directory if form == "single" else restacked(directory, form, directory)


def restacked(source: Path, form: str, directory: Path) -> Path:
    """The same model with its experts, held one by one, in another form: "switch" or "fused"."""
    if directory != source:
        shutil.copytree(source, directory)
    file = directory / "model.safetensors"
    single = load_file(file)
    held = {name: array for name, array in single.items() if ".experts." not in name}
    for block in sorted({name.split(".experts.")[0] for name in single.keys() - held.keys()}):
        gate, up, down = (
            np.stack([single[f"{block}.experts.{expert}.{part}.weight"] for expert in range(EXPERTS)])
            for part in PROJECTIONS
        )
        if form == "fused":
            held |= {f"{block}.experts.gate_up_proj": np.concatenate([gate, up], axis=1)}
            held |= {f"{block}.experts.down_proj": down}
        else:
            stacked = zip(PROJECTIONS, (gate, up, down), strict=True)
            held |= {f"{block}.switch_mlp.{part}.weight": values for part, values in stacked}
    save_file(held, file, metadata={"format": "pt"})
    return directory
