"""Reading and writing safetensors: against safetensors, mlx and torch."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.checkpoint import Checkpoint, write_checkpoint
from chrysalis_mlx.models.floats import to_bfloat16, to_float16

AWKWARD = np.array(
    [0.0, -0.0, 1.0, 1.00390625, 1.01171875, 3.3895314e38, -1e-40, 65504.0, 1 / 3, np.inf, -np.inf, np.nan],
    dtype=np.float32,
)


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "b.weight": rng.standard_normal((5, 7)).astype(np.float32),
        "a.bias": rng.standard_normal(3).astype(np.float32),
        "ü.scalar": np.array(2.5, dtype=np.float32),
        "empty": np.zeros((0, 4), dtype=np.float32),
    }


def write(path: Path, tensors: dict[str, np.ndarray], dtype: str = "float32") -> None:
    write_checkpoint(path, {name: value.shape for name, value in tensors.items()}, tensors.__getitem__, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_written_is_what_the_libraries_read(tmp_path: Path, dtype: str) -> None:
    tensors = arrays()
    write(tmp_path / "model.safetensors", tensors, dtype)
    expected = {name: torch.from_numpy(value).to(getattr(torch, dtype)) for name, value in tensors.items()}
    in_torch = safetensors.torch.load_file(tmp_path / "model.safetensors")
    in_mlx = mx.load(str(tmp_path / "model.safetensors"))
    ours = Checkpoint.open(tmp_path)
    assert set(in_torch) == set(in_mlx) == set(tensors)
    for name, value in expected.items():
        assert in_torch[name].dtype == value.dtype
        assert torch.equal(in_torch[name], value)
        assert np.array_equal(np.array(in_mlx[name].astype(mx.float32)), value.float().numpy())
        assert np.array_equal(ours.read(name), value.float().numpy())
        assert ours.read(name).dtype == np.float32
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as handle:
        assert handle.metadata() == {"format": "pt"}


def test_reads_every_float_type_as_torch_does(tmp_path: Path) -> None:
    value = torch.randn(4, 6, dtype=torch.float64)
    types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    safetensors.torch.save_file({name: value.to(kind) for name, kind in types.items()}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint.open(tmp_path)
    for name, kind in types.items():
        assert checkpoint.dtype(name) == name
        assert checkpoint.shape(name) == (4, 6)
        assert np.array_equal(checkpoint.read(name), value.to(kind).to(torch.float32).numpy())


def test_bfloat16_rounds_as_torch_does() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([AWKWARD, rng.standard_normal(10000).astype(np.float32)])
    expected = torch.from_numpy(values).to(torch.bfloat16)
    ours = torch.from_numpy(to_bfloat16(values).view(np.int16)).view(torch.bfloat16)
    nan = torch.isnan(expected)
    assert torch.equal(ours[~nan], expected[~nan])
    assert torch.isnan(ours[nan]).all()


def test_float16_refuses_what_it_cannot_hold() -> None:
    assert to_float16("w", np.array([65504.0, np.inf], dtype=np.float32)).tolist() == [65504.0, np.inf]
    with pytest.raises(ModelError, match=r"w has values up to 70000, too large for float16"):
        to_float16("w", np.array([70000.0, 1.0], dtype=np.float32))


def test_shards_are_one_model(tmp_path: Path) -> None:
    first, second = {"one": np.ones((2, 2), np.float32)}, {"two": np.full(3, 2, np.float32)}
    safetensors.numpy.save_file(first, tmp_path / "model-00001-of-00002.safetensors")
    safetensors.numpy.save_file(second, tmp_path / "model-00002-of-00002.safetensors")
    weight_map = {"two": "model-00002-of-00002.safetensors", "one": "model-00001-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.names == ["one", "two"]
    assert [file.name for file in checkpoint.files] == sorted(weight_map.values())
    assert checkpoint.read("two").tolist() == [2, 2, 2]
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="1 of 2 weight files are missing: model-00002-of-00002"):
        Checkpoint.open(tmp_path)


def test_a_tensor_in_two_shards_is_an_error(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        safetensors.numpy.save_file({"same": np.ones(1, np.float32)}, tmp_path / name)
    index = {"weight_map": {"same": "a.safetensors", "other": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="same is in two files"):
        Checkpoint.open(tmp_path)


def test_integer_tensors_name_the_quantized_model(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"w": np.ones((2, 2), np.uint32)}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.dtype("w") == "U32"
    with pytest.raises(ModelError, match=r"holds U32(.|\n)*quantized"):
        checkpoint.read("w")


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model.safetensors"):
        Checkpoint.open(tmp_path)
    write(tmp_path / "model.safetensors", arrays())
    for method in (Checkpoint.open(tmp_path).read, Checkpoint.open(tmp_path).shape, Checkpoint.open(tmp_path).dtype):
        with pytest.raises(ModelError, match="no tensor nowhere"):
            method("nowhere")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ModelError, match="weight index is damaged"):
        Checkpoint.open(tmp_path)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write(file, {"w": np.arange(6, dtype=np.float32)})
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="damaged or truncated"):
            Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b'{"w": 3}',
        b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}',
        b'{"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}',
        b'{"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}}',
        b"\xff\xfe",
    ],
)
def test_damaged_headers_are_noticed(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ModelError, match="damaged or truncated"):
        Checkpoint.open(tmp_path)


def test_the_writer_checks_what_it_was_promised(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"announced as \(2,\) and came as \(3,\)"):
        write_checkpoint(tmp_path / "x", {"w": (2,)}, lambda name: np.zeros(3, np.float32))


def test_the_writer_reads_each_tensor_once_and_in_order(tmp_path: Path) -> None:
    tensors, asked = arrays(), []

    def read(name: str) -> np.ndarray:
        asked.append(name)
        return tensors[name]

    write_checkpoint(tmp_path / "x", {name: value.shape for name, value in tensors.items()}, read)
    assert asked == list(tensors)
