"""Every byte that is written is also what a second quantizer makes: libgguf, which shares no library with ours."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from chrysalis_mlx.gguf.quantize import TYPES, Traits, choose, encode, type_id
from tests.gguf.test_quantize import GGML_TYPES

libgguf = pytest.importorskip(
    "libgguf", reason='the second quantizer is not installed: pip install "chrysalis-mlx[quantizer]"'
)


# Rows of a multiple of 32 weights that is none of 256 are stored in the types of 32 weights a block only.
CASES = [
    (name, columns)
    for name in GGML_TYPES
    for columns in (96, 576, 256, 1536)
    if columns % gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][0] == 0
]


def matrix(columns: int) -> np.ndarray:
    """Normal values with outliers, a row of zeros, a block of zeros, a block of one value; all exact in float16."""
    rng = np.random.default_rng(columns)
    values = rng.standard_normal((12, columns)) * 0.03
    values[rng.random(values.shape) < 0.01] *= 20
    values[1], values[2, :32], values[3, 32:64] = 0, 0, 0.5
    values[4] *= 1e-4  # subnormal in float16
    values[5] *= 1e4
    return values.astype(np.float16).astype(np.float32)


def importance(columns: int, how: str) -> np.ndarray | None:
    rng = np.random.default_rng(columns + 1)
    if how == "none":
        return None
    weights = rng.random(columns, dtype=np.float32) ** 8 * 100
    if how == "with zeros":  # inputs that are always zero
        weights[rng.random(columns) < 0.3] = 0
        weights[:32] = 0
    return weights


def test_every_type_that_a_file_can_hold_is_compared() -> None:
    """All parts, layers, shapes and models that a rule of the choice knows."""
    written = {
        choose(kind, name, shape, Traits(layers=24, gqa=gqa, experts=experts, tied=tied), importance=given)
        for kind in TYPES.values()
        for columns in (512, 96)
        for gqa in (1, 4)
        for experts in (0, 8)
        for tied in (False, True)
        for given in (False, True)
        for name, shape in [
            ("token_embd.weight", (8, columns)),
            *((f"blk.{layer}.{part}.weight", (8, columns)) for layer in range(24) for part in ("attn_v", "ffn_down")),
            *((f"blk.1.{part}.weight", (8, columns)) for part in ("attn_q", "attn_output")),
            ("blk.1.ffn_up_exps.weight", (8, 8, columns)),
        ]
    }
    assert written - {"F32", "F16", "BF16"} == set(GGML_TYPES) == {name for name, _ in CASES}


@pytest.mark.parametrize("how", ["none", "given", "with zeros"])
@pytest.mark.parametrize(("ggml_type", "columns"), CASES)
def test_bytes_are_those_of_libgguf(ggml_type: str, columns: int, how: str) -> None:
    values, weights = matrix(columns), importance(columns, how)
    theirs = libgguf.quantize_rows(values, libgguf.GGMLQuantizationType(type_id(ggml_type)), weights)
    ours = encode("w", values, ggml_type, weights)
    assert ours.shape == theirs.shape
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("ggml_type", [name for name in GGML_TYPES if name not in ("Q8_0", "MXFP4")])
def test_the_importance_is_in_those_bytes(ggml_type: str) -> None:
    assert (
        encode("w", matrix(512), ggml_type).tobytes()
        != encode("w", matrix(512), ggml_type, importance(512, "given")).tobytes()
    )
