"""Types and bytes are those of llama-quantize."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from chrysalis_mlx.errors import ExportError, ModelError
from chrysalis_mlx.gguf.quantize import TYPES, choose, encode, file_type, tensor_bytes, type_id


def q4_k_m(name: str, columns: int, *, layers: int = 8, tied: bool = True, wide: bool = False) -> str:
    return choose(TYPES["Q4_K_M"], name, (512, columns), layers=layers, tied=tied, wide=wide)


def test_file_types_carry_llamacpps_numbers() -> None:
    numbers = {name: int(gguf.LlamaFileType[f"MOSTLY_{name}" if name != "F32" else "ALL_F32"]) for name in TYPES}
    assert {name: row.ftype for name, row in TYPES.items()} == numbers


@pytest.mark.parametrize("layer", range(8))
@pytest.mark.parametrize("part", ["attn_v", "ffn_down"])
def test_q4_k_m_spends_more_in_the_layers_llamacpp_does(layer: int, part: str) -> None:
    # llama.cpp's use_more_bits for 8 layers: the first eighth, the last eighth, and every third between.
    assert q4_k_m(f"blk.{layer}.{part}.weight", 256) == ("Q6_K" if layer in (0, 3, 6, 7) else "Q4_K")


def test_q4_k_m_of_thirty_layers() -> None:
    more = [layer for layer in range(30) if q4_k_m(f"blk.{layer}.ffn_down.weight", 1536, layers=30) == "Q6_K"]
    assert more == [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]


@pytest.mark.parametrize(
    ("name", "columns", "tied", "expected"),
    [
        ("blk.1.attn_q.weight", 256, True, "Q4_K"),
        ("blk.1.attn_output.weight", 256, True, "Q4_K"),
        ("blk.0.ffn_gate.weight", 256, True, "Q4_K"),
        ("token_embd.weight", 256, True, "Q6_K"),
        ("token_embd.weight", 256, False, "Q4_K"),
        ("output.weight", 256, False, "Q6_K"),
        # rows that are no multiple of 256
        ("blk.1.attn_q.weight", 576, True, "Q5_0"),
        ("blk.0.attn_v.weight", 576, True, "Q8_0"),
        ("token_embd.weight", 576, True, "Q8_0"),
        ("token_embd.weight", 576, False, "Q5_0"),
        ("output.weight", 576, False, "Q8_0"),
        # rows that are no multiple of 32 either
        ("blk.1.attn_q.weight", 40, True, "F16"),
        ("token_embd.weight", 40, True, "F16"),
    ],
)
def test_q4_k_m_by_tensor(name: str, columns: int, tied: bool, expected: str) -> None:
    assert q4_k_m(name, columns, tied=tied) == expected


def test_a_70b_model_has_better_values() -> None:
    assert q4_k_m("blk.10.attn_v.weight", 8192, layers=80, wide=True) == "Q5_K"
    assert q4_k_m("blk.10.attn_v.weight", 8192, layers=80) == "Q4_K"
    assert q4_k_m("blk.0.attn_v.weight", 8192, layers=80, wide=True) == "Q6_K"
    assert q4_k_m("blk.10.ffn_down.weight", 8192, layers=80, wide=True) == "Q4_K"
    assert q4_k_m("blk.10.attn_v.weight", 8224, layers=80, wide=True) == "Q5_1"


@pytest.mark.parametrize("type_name", list(TYPES))
def test_vectors_stay_float32(type_name: str) -> None:
    for name in ("blk.0.attn_norm.weight", "blk.0.attn_q.bias", "output_norm.weight"):
        assert choose(TYPES[type_name], name, (256,), layers=8, tied=True) == "F32"


@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16", "Q8_0"])
def test_uniform_types_are_uniform(type_name: str) -> None:
    for name in ("token_embd.weight", "blk.0.attn_v.weight", "blk.0.ffn_down.weight", "output.weight"):
        assert choose(TYPES[type_name], name, (512, 96), layers=8, tied=False) == type_name


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(ExportError, match=r"'Q9_X'(.|\n)*F32, F16, BF16, Q8_0, Q4_K_M"):
        file_type("Q9_X")


def one_shot(values: np.ndarray, ggml_type: str) -> bytes:
    """The whole matrix in a single call, through a binding of this test's own."""
    spec = importlib.util.find_spec("libggml")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    library = ctypes.CDLL(str(next(Path(spec.submodule_search_locations[0]).glob("lib*/libggml-base.[sd]*"))))
    out = ctypes.create_string_buffer(tensor_bytes(ggml_type, values.shape))
    source = values.ctypes.data_as(ctypes.c_void_p)
    rows, columns = (ctypes.c_int64(length) for length in values.shape)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    size = library.ggml_quantize_chunk(type_id(ggml_type), source, out, ctypes.c_int64(0), rows, columns, None)
    assert size == len(out.raw)
    return out.raw


@pytest.mark.parametrize("ggml_type", ["Q8_0", "Q4_K", "Q5_K", "Q6_K", "Q5_0", "Q5_1"])
def test_slices_on_threads_give_the_bytes_of_one_call(monkeypatch: pytest.MonkeyPatch, ggml_type: str) -> None:
    values = np.random.default_rng(0).standard_normal((101, 512)).astype(np.float32)
    monkeypatch.setattr("chrysalis_mlx.gguf.quantize._SLICE", 7 * 512)  # 101 rows: fourteen slices and a rest
    ours = encode("w", values, ggml_type)
    assert ours.tobytes() == one_shot(values, ggml_type)
    restored = gguf.quants.dequantize(ours.reshape(101, -1), gguf.GGMLQuantizationType[ggml_type])
    assert np.abs(restored - values).mean() < {"Q8_0": 0.01, "Q6_K": 0.03}.get(ggml_type, 0.1)


def test_q8_0_is_what_the_gguf_package_writes() -> None:
    values = np.random.default_rng(1).standard_normal((64, 96)).astype(np.float32)
    expected = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    assert encode("w", values, "Q8_0").tobytes() == expected.tobytes()


def test_float_types_round_as_torch_does() -> None:
    values = np.random.default_rng(2).standard_normal((64, 96)).astype(np.float32)
    for ggml_type, dtype in (("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)):
        expected = torch.from_numpy(values).to(dtype).view(torch.uint8).numpy().tobytes()
        assert encode("w", values, ggml_type).tobytes() == expected


def test_damaged_weights_are_not_exported() -> None:
    values = np.ones((2, 256), np.float32)
    values[1, 3] = np.nan
    with pytest.raises(ExportError, match=r"blk\.0 has values that are not finite"):
        encode("blk.0", values, "Q8_0")
    with pytest.raises(ModelError, match="too large for float16"):
        encode("blk.0", np.full((2, 2), 1e6, np.float32), "F16")
