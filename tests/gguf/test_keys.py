"""The key-values of a GGUF, without its vocabulary."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.gguf.keys import read_keys


def write(file: Path, order: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE) -> Path:
    writer = gguf.GGUFWriter(file, "llama", endianess=order)
    writer.add_string("text", "naïve 🦋")
    writer.add_bool("yes", True)
    writer.add_uint32("small", 7)
    writer.add_int64("large", -(1 << 40))
    writer.add_float32("single", 0.1)
    writer.add_float64("double", 0.1)
    writer.add_array("numbers", [1, 2, 3])
    writer.add_array("words", ["a", "bc"])
    writer.add_array("scores", [0.5] * 4)
    writer.add_array("vocabulary", ["x" * (n % 7) for n in range(4)])
    writer.add_string("last", "end")
    writer.add_tensor("t", np.zeros(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize("order", list(gguf.GGUFEndian))
def test_the_same_as_the_librarys_reader_and_long_arrays_left_out(tmp_path: Path, order: gguf.GGUFEndian) -> None:
    file = write(tmp_path / "a.gguf", order)
    reader = gguf.GGUFReader(file)
    theirs = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert read_keys(file) == theirs
    assert theirs["text"] == "naïve 🦋"
    assert list(read_keys(file, longest=3)) == [name for name in theirs if name not in ("scores", "vocabulary")]
    assert read_keys(file, longest=3)["last"] == "end"


def test_damage_is_told_wherever_the_file_ends(tmp_path: Path) -> None:
    content = write(tmp_path / "whole.gguf").read_bytes()
    end = content.index(b"end") + 3
    for length in range(4, end):
        (tmp_path / "cut.gguf").write_bytes(content[:length])
        with pytest.raises(ModelError, match="damaged or truncated"):
            read_keys(tmp_path / "cut.gguf", longest=2)
    (tmp_path / "cut.gguf").write_bytes(content[:end])
    assert read_keys(tmp_path / "cut.gguf")["last"] == "end"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GGML....", "not a GGUF"),
        (b"GGUF" + struct.pack("<I", 1), "it has version 1; 2, 3 are read"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<I", 99), "type 99"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 9, 1), "type 9"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 8, 1 << 63), "damaged"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 4, 1 << 63), "damaged"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, (1 << 64) - 1), "damaged"),
    ],
)
def test_a_file_that_is_none_or_lies_about_its_sizes(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=said):
        read_keys(tmp_path / "a.gguf")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such GGUF file"):
        read_keys(tmp_path / "a.gguf")
