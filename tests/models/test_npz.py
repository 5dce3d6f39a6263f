"""MLX's older weight files: what MLX writes is found and mapped, byte for byte."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.checkpoint import Checkpoint
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.floats import from_bfloat16
from chrysalis_mlx.models.npz import npz_files, npz_members, read_npz_header
from tests import tiny

DTYPES: dict[str, tuple[Any, str, str]] = {
    "F32": (mx.float32, "<f4", "float32"),
    "F16": (mx.float16, "<f2", "float16"),
    "BF16": (mx.bfloat16, "<u2", "bfloat16"),
    "U32": (mx.uint32, "<u4", "uint32"),
    "U8": (mx.uint8, "u1", "uint8"),
}


def tensors() -> dict[str, mx.array]:
    rng = np.random.default_rng(0)
    held = {}
    for name, (dtype, _, _) in DTYPES.items():
        for shape in [(5, 7), (3,), (1, 4), (2, 3, 4), ()]:
            values = rng.standard_normal(shape) * 100 if name in ("F32", "F16", "BF16") else rng.integers(0, 255, shape)
            held[f"{name}.{'x'.join(map(str, shape))}"] = mx.array(values).astype(dtype)
    return held


def mapped(file: Path, member: Any) -> npt.NDArray[Any]:
    raw = np.memmap(file, DTYPES[member.dtype][1], "r", member.start, (int(np.prod(member.shape)),))
    assert member.end - member.start == raw.nbytes
    values = from_bfloat16(np.array(raw)) if member.dtype == "BF16" else np.array(raw)
    return values.reshape(member.shape)


def test_every_dtype_and_shape_of_mlx_is_mapped_where_it_lies(tmp_path: Path) -> None:
    held = tensors()
    mx.savez(str(tmp_path / "weights.npz"), **held)
    found = read_npz_header(tmp_path / "weights.npz")
    assert found.keys() == held.keys()
    for name, array in held.items():
        assert found[name].dtype == name.split(".")[0]
        assert found[name].shape == array.shape
        wanted = np.array(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array)
        assert np.array_equal(mapped(tmp_path / "weights.npz", found[name]), wanted)
    starts = [member.start for member in found.values()]
    assert starts == sorted(starts)


def test_numpy_writes_the_same_format(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "weights.npz", **{"a.weight": values})
    found = read_npz_header(tmp_path / "weights.npz")
    assert np.array_equal(mapped(tmp_path / "weights.npz", found["a.weight"]), values)


def test_files_are_found_in_order(tmp_path: Path) -> None:
    assert npz_files(tmp_path) == []
    for name in ("weights.01.npz", "weights.00.npz", "adapters.npz", "model.safetensors"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in npz_files(tmp_path)] == ["weights.00.npz", "weights.01.npz"]


def test_a_matrix_stored_by_columns_is_told(tmp_path: Path) -> None:
    """Such a matrix is what MLX makes of a transposed one; its bytes are those of the other."""
    file = tmp_path / "weights.npz"
    mx.savez(str(file), turned=mx.arange(6).reshape(2, 3).astype(mx.float32).T)
    with pytest.raises(ModelError, match=r"turned is stored column by column(.|\n)*save it again with MLX"):
        read_npz_header(file)
    member, by_columns = npz_members(file)["turned"]
    assert by_columns
    assert member.shape == (3, 2)
    assert mapped(file, member).reshape(2, 3).T.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_compressed_tensors_are_refused(tmp_path: Path) -> None:
    mx.savez_compressed(str(tmp_path / "weights.npz"), w=mx.zeros((8, 8)))
    with pytest.raises(ModelError, match=r"w is compressed(.|\n)*weights.npz(.|\n)*save it again with MLX"):
        read_npz_header(tmp_path / "weights.npz")


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", c=np.zeros(3, np.complex64))
    with pytest.raises(ModelError, match=r"c\.npy holds complex64"):
        read_npz_header(tmp_path / "weights.npz")


@pytest.mark.parametrize("kept", [0, 30, 0.5, -1])
def test_a_truncated_file_is_an_error(tmp_path: Path, kept: float) -> None:
    file = tmp_path / "weights.npz"
    mx.savez(str(file), w=mx.zeros((64, 64)))
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data)) if kept == 0.5 else int(kept)])
    with pytest.raises(ModelError, match=r"damaged or truncated(.|\n)*weights.npz"):
        read_npz_header(file)


def test_a_header_that_lies_about_its_shape_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "weights.npz"
    mx.savez(str(file), w=mx.zeros((64, 64)))
    file.write_bytes(file.read_bytes().replace(b"(64, 64, )", b"(64, 63, )"))
    with pytest.raises(ModelError, match=re.escape("w.npy of shape (64, 63) takes 16384 bytes")):
        read_npz_header(file)


def test_a_directory_that_points_elsewhere_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "weights.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY\x01\x00")
    data = bytearray(file.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 42 : entry + 46] = struct.pack("<I", 7)  # the offset of the local header
    file.write_bytes(bytes(data))
    with pytest.raises(ModelError, match="damaged or truncated"):
        read_npz_header(file)


def as_npz(directory: Path, dtype: Any = None) -> Path:
    """The same model in MLX's older form."""
    held = mx.load(str(directory / "model.safetensors"))
    assert isinstance(held, dict)
    if dtype is not None:
        held = {name: array.astype(dtype) for name, array in held.items()}
    mx.savez(str(directory / "weights.npz"), **held)
    for file in directory.glob("model.safetensors*"):
        file.unlink()
    return directory


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_checkpoint_in_the_older_form_reads_the_same(tmp_path: Path, dtype: str) -> None:
    source = tiny.tiny_llama(tmp_path / "model", layers=1)
    plain = Checkpoint.open(source)
    expected = {name: plain.read(name) for name in plain.names}
    model = ModelDirectory.open(as_npz(source, DTYPES[dtype][0]))
    found = model.checkpoint()
    assert set(found.names) == expected.keys()
    for name, values in expected.items():
        assert found.dtype(name) == dtype
        rounded = np.array(mx.array(values).astype(DTYPES[dtype][0]).astype(mx.float32))
        assert np.array_equal(found.read(name), rounded)
        if values.ndim == 2:
            assert np.array_equal(found.rows(name, 3, 9), rounded[3:9])


def test_a_quantized_checkpoint_in_the_older_form_reads_the_same(tmp_path: Path) -> None:
    source = tiny.quantized(tiny.tiny_llama(tmp_path / "plain", layers=1), tmp_path / "model")
    plain = Checkpoint.open(source)
    expected = {name: plain.read(name) for name in plain.names}
    found = ModelDirectory.open(as_npz(source)).checkpoint()
    assert json.loads((source / "config.json").read_text())["quantization"]["bits"] == 4
    assert found.dtype("model.layers.0.self_attn.q_proj.weight") == "U32"
    assert set(found.names) == expected.keys()
    assert all(np.array_equal(found.read(name), values) for name, values in expected.items())
