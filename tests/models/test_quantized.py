"""Packed weights: what MLX packs is read as MLX reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.checkpoint import Checkpoint
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.parameters import counted
from chrysalis_mlx.models.quantized import Packing, check_quantization, dequantize, packing_of, unpack
from tests import tiny

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


def matrix(seed: int = 0) -> mx.array:
    """Rows of very different sizes, one of them zero."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((24, 256)) * np.logspace(-3, 2, 24)[:, None]
    values[5] = 0
    return mx.array(values.astype(np.float32))


def numpy(array: mx.array) -> npt.NDArray[np.float32]:
    return np.array(array.astype(mx.float32))


def close(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> bool:
    """Equal to 1e-6 of the largest in the row: scale · q and bias cancel, and MLX may fuse the two operations."""
    assert (ours.dtype, ours.shape) == (np.float32, theirs.shape)
    return bool((np.abs(ours - theirs) <= 1e-6 * np.abs(theirs).max(axis=-1, keepdims=True)).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_affine_weights_are_what_mlx_makes_of_them(bits: int, group_size: int, dtype: str) -> None:
    words, scales, biases = mx.quantize(matrix().astype(DTYPES[dtype]), group_size, bits)
    assert scales.dtype == DTYPES[dtype]
    theirs = mx.dequantize(words, scales.astype(mx.float32), biases.astype(mx.float32), group_size, bits)
    packing = Packing("affine", bits, group_size)
    ours = dequantize(np.array(words), numpy(scales), numpy(biases), packing)
    assert close(ours, numpy(theirs))
    assert packing.is_known
    assert packing.unpacked(words.shape) == (24, 256)
    rounded = numpy(mx.dequantize(words, scales, biases, group_size, bits))  # in the dtype of the scales
    assert np.abs(ours - rounded).max() <= 2.0**-7 * np.abs(rounded).max()
    step = np.repeat(np.abs(numpy(scales)), group_size, axis=1)
    assert (np.abs(ours - numpy(matrix())) <= step * 1.1 + 0.05 * np.abs(ours)).all()  # it is the matrix


def test_mxfp4_weights_are_what_mlx_makes_of_them() -> None:
    words, scales = mx.quantize(matrix(), mode="mxfp4")
    ours = dequantize(np.array(words), np.array(scales), None, Packing("mxfp4", 4, 32))
    assert np.array_equal(ours, numpy(mx.dequantize(words, scales, mode="mxfp4", dtype=mx.float32)))
    every = np.arange(16, dtype=np.uint8).repeat(2).reshape(1, 32)
    packed = (every[:, 0::2] | every[:, 1::2] << 4).view(np.uint32)
    for exponent in (1, 126, 127, 128, 250):
        scale = np.full((1, 1), exponent, np.uint8)
        theirs = mx.dequantize(mx.array(packed), mx.array(scale), mode="mxfp4", dtype=mx.float32)
        assert np.array_equal(dequantize(packed, scale, None, Packing("mxfp4", 4, 32)), numpy(theirs))


def test_elements_lie_in_one_stream_of_bits() -> None:
    """The first elements of each width, bit by bit: 3 bits cross a byte, 5 and 6 bits cross a word."""
    rng = np.random.default_rng(1)
    for bits in (2, 3, 4, 5, 6, 8):
        elements = rng.integers(0, 1 << bits, (3, 64), dtype=np.uint8)
        stream = (elements[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
        words = np.packbits(stream.reshape(3, -1), axis=1, bitorder="little").view(np.uint32)
        assert np.array_equal(unpack(words, bits), elements)
    assert unpack(np.zeros((2, 0), np.uint32), 3).shape == (2, 0)


def test_a_module_may_have_settings_of_its_own() -> None:
    config = {"quantization": {"group_size": 64, "bits": 4, "a": {"bits": 8, "group_size": 32}, "b": False, "c": True}}
    assert packing_of(config, "a") == Packing("affine", 8, 32)
    assert packing_of(config, "b") is None
    assert packing_of(config, "c") == packing_of(config, "other") == Packing("affine", 4, 64)
    mixed = {"quantization": {"mode": "mxfp4", "a": {"bits": 8}}}  # as `to_quantized` fills in what is left out
    assert (packing_of(mixed, "a"), packing_of(mixed, "b")) == (Packing("affine", 8, 64), Packing("mxfp4", 4, 32))
    assert packing_of({}, "a") is None


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        ({"mode": "nvfp4", "bits": 4, "group_size": 16}, "nvfp4 with 4 bits in groups of 16"),
        ({"mode": "mxfp8"}, "mxfp8 with 8 bits in groups of 32"),
        ({"mode": "mxfp4", "bits": 4, "group_size": 16}, "mxfp4 with 4 bits in groups of 16"),
        ({"bits": 1, "group_size": 64}, "affine with 1 bits in groups of 64"),
        ({"bits": 4, "group_size": 16}, "affine with 4 bits in groups of 16"),
        ({"bits": 4, "group_size": 64, "lm_head": {"mode": "mxfp8"}}, "mxfp8 with 8 bits in groups of 32"),
        ({"bits": "four"}, "affine with 0 bits in groups of 64"),
        ({"mode": "q4_k"}, "q4_k with 0 bits in groups of 0"),
    ],
)
def test_other_quantizations_of_mlx_are_refused_by_name(quantization: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=rf"quantized as {words}, (.|\n)*where: config(.|\n)*to do: quantize the orig"):
        check_quantization({"quantization": quantization, "quantization_config": quantization}, "config.json")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"bits": 4}, "a method without a name"),
    ],
)
def test_quantizations_of_others_are_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=rf"is quantized by {words}, (.|\n)*to do: use the original"):
        check_quantization({"quantization_config": settings}, "config.json")


QUANTIZATIONS = {
    "2": {"bits": 2},
    "3": {"bits": 3, "group_size": 64},
    "4": {"bits": 4},
    "5": {"bits": 5},
    "6": {"bits": 6, "group_size": 64},
    "8": {"bits": 8},
    "mxfp4": {"mode": "mxfp4"},
    "mixed": {
        "bits": 3,
        "own": {
            "model.layers.0.self_attn.q_proj": {"bits": 6, "group_size": 64},
            "model.layers.0.self_attn.k_proj": {"mode": "mxfp4", "bits": 4, "group_size": 32},
            "model.layers.1.mlp.down_proj": False,
        },
    },
}


@pytest.mark.parametrize("name", QUANTIZATIONS)
def test_a_model_that_mlx_lm_quantized_is_read_as_mlx_lm_reads_it(tiny_model: Path, tmp_path: Path, name: str) -> None:
    import mlx.nn as nn
    import mlx_lm

    directory = tiny.quantized(tiny_model, tmp_path / "model", **QUANTIZATIONS[name])
    original, model = ModelDirectory.open(tiny_model), ModelDirectory.open(directory)
    checkpoint = model.checkpoint()
    assert model.is_quantized
    assert not original.is_quantized
    assert sorted(checkpoint.names) == sorted(original.checkpoint().names)
    assert model.layer_linears() == original.layer_linears()
    assert counted(checkpoint, model.config) == counted(original.checkpoint(), original.config)
    modules = dict(mlx_lm.load(str(directory))[0].named_modules())
    packed = 0
    for tensor in checkpoint.names:
        module = modules[tensor.removesuffix(".weight")]
        assert checkpoint.shape(tensor) == original.checkpoint().shape(tensor)
        if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
            settings = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
            biases = module.get("biases")
            theirs = mx.dequantize(module.weight, module.scales, biases, **settings, dtype=mx.float32)
            assert checkpoint.dtype(tensor) == "U32"
            packed += 1
        else:
            theirs = module.weight
        assert close(checkpoint.read(tensor), numpy(theirs))
    assert packed == (14 if name == "mixed" else 15)


def test_norms_biases_and_linears_are_the_weights_of_layers(tmp_path: Path) -> None:
    directory = tiny.tiny_qwen2(tmp_path / "model")
    model = ModelDirectory.open(directory)
    weights = model.layer_weights()
    assert {name for name in weights if ".layers." not in name} == set()
    assert {name: model.checkpoint().shape(name) for name in model.checkpoint().names if ".layers." in name} == weights
    assert weights["model.layers.1.self_attn.q_proj.bias"] == (64,)
    assert [name.split(".")[2] for name in weights] == ["0"] * 12 + ["1"] * 12
    quantized = ModelDirectory.open(tiny.quantized(directory, tmp_path / "quantized"))
    with pytest.raises(ModelError, match=r"full fine-tuning needs the unquantized model(.|\n)*lora or dora"):
        quantized.layer_weights()


def test_packed_weights_that_are_not_as_the_configuration_says(tiny_model: Path, tmp_path: Path) -> None:
    directory = tiny.quantized(tiny_model, tmp_path / "model")
    file = directory / "config.json"
    config = json.loads(file.read_text())
    for change in ({"bits": 3}, {"group_size": 64}, {"mode": "mxfp4"}):
        file.write_text(json.dumps(config | {"quantization": config["quantization"] | change}))
        with pytest.raises(ModelError, match=r"is not packed as config\.json says: (affine|mxfp4) with"):
            Checkpoint.open(directory)
    file.write_text("{")
    with pytest.raises(ModelError, match=r"the quantization in config\.json cannot be read"):
        Checkpoint.open(directory)
    del config["quantization"]
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"holds U32(.|\n)*looks like a quantized model"):
        Checkpoint.open(directory).read("model.layers.0.mlp.up_proj.weight")
