"""The fast BLAS on Linux: it serves MLX where it can be had, and its absence costs speed only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate; nothing is preloaded there")

PROGRAM = """
import json, sys
from pathlib import Path
from chrysalis_mlx.backends.mlx import blas
import mlx.core as mx
import numpy as np
from chrysalis_mlx import backends
from chrysalis_mlx.batches.packing import assemble
from chrysalis_mlx.batches.tokens import Segment

a, b = np.random.default_rng(0).normal(size=(2, 96, 96)).astype(np.float32)
tokens = np.arange(3, 40, dtype=np.int32)
batch = assemble([[Segment(tokens, np.arange(len(tokens)) > 0)]], 64)
print(json.dumps({
    "mapped": [line.split()[-1] for line in open("/proc/self/maps") if "bridge-" in line or "openblas" in line],
    "product": bool(np.allclose(np.array(mx.array(a) @ mx.array(b)), a @ b, atol=1e-4)),
    "loss": backends.load("mlx")(Path(sys.argv[1])).loss(batch)[0],
}))
"""


def run(model: Path, cache: Path, **environment: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model)],
        env=os.environ | {"CHRYSALIS_CACHE": str(cache)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_without_a_compiler_the_engine_computes_the_same(tmp_path: Path) -> None:
    model = tiny.tiny_llama(tmp_path / "model")
    fast = run(model, tmp_path / "cache")
    assert fast["mapped"]
    assert list((tmp_path / "cache" / "blas").glob("bridge-*.so")) or "/libopenblas" in str(fast["mapped"])
    slow = run(model, tmp_path / "empty", PATH=str(tmp_path))
    assert not (tmp_path / "empty").exists()
    assert fast["product"] is slow["product"] is True
    assert fast["loss"] == pytest.approx(slow["loss"], rel=1e-5)
