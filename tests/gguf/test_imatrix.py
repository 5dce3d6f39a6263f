"""The importance matrix: llama.cpp's files byte by byte, what llama-quantize makes of them, and what is refused."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from chrysalis_mlx import backends
from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf import architectures
from chrysalis_mlx.gguf.architectures import Part, Tensor
from chrysalis_mlx.gguf.imatrix import Entry, Imatrix, imatrix_of, read_imatrix, write_imatrix
from chrysalis_mlx.models.directory import ModelDirectory
from tests import tiny
from tests.backends.cases import packed

DOWN, EXPERTS = "blk.0.ffn_down.weight", "blk.0.ffn_up_exps.weight"
SHAPES = {DOWN: (2, 3), EXPERTS: (2, 5, 2), "token_embd.weight": (9, 2), "blk.0.attn_norm.weight": (2,)}


def array(*values: float) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


ENTRIES = {
    EXPERTS: Entry(np.array([[2, 4], [0, 0]], np.float32), array(8, 0)),
    DOWN: Entry(np.array([[10, 1, 7]], np.float32), array(3)),
}
IMATRIX = Imatrix(ENTRIES, ("train.jsonl", "b"), 5, 512)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def by_hand() -> bytes:
    """IMATRIX as a GGUF, from the specification: header, keys, tensors, and data at multiples of 32 bytes."""
    string, uint32, an_array, f32 = 8, 4, 9, 0
    data = b"GGUF" + struct.pack("<IQQ", 3, 4, 4)
    data += text("general.type") + struct.pack("<I", string) + text("imatrix")
    data += text("imatrix.datasets") + struct.pack("<IIQ", an_array, string, 2) + text("train.jsonl") + text("b")
    data += text("imatrix.chunk_count") + struct.pack("<II", uint32, 5)
    data += text("imatrix.chunk_size") + struct.pack("<II", uint32, 512)
    # GGUF lists the fastest dimension first, and ggml drops outer ones of 1.
    named = ((f"{DOWN}.in_sum2", (3,)), (f"{DOWN}.counts", (1,)))
    named += ((f"{EXPERTS}.in_sum2", (2, 2)), (f"{EXPERTS}.counts", (1, 2)))
    for offset, (name, dimensions) in enumerate(named):
        data += text(name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        data += struct.pack("<IQ", f32, 32 * offset)
    data = data.ljust(-(-len(data) // 32) * 32, b"\0")
    for values in ((10, 1, 7), (3,), (2, 4, 0, 0), (8, 0)):
        data += struct.pack(f"<{len(values)}f", *values).ljust(32, b"\0")
    return data


def dat(tail: bytes = struct.pack("<ii", 5, 11) + b"train.jsonl") -> bytes:
    """A .dat by hand: mean squares times calls."""
    data = struct.pack("<i", 2)
    for name, calls, values in ((DOWN, 4, (8, 2, 6)), (EXPERTS, 0, (1, 2, 3, 4))):
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values))
        data += struct.pack(f"<{len(values)}f", *values)
    return data + tail


def test_the_file_is_llama_imatrix_s_byte_for_byte(tmp_path: Path) -> None:
    write_imatrix(tmp_path / "imatrix.gguf", IMATRIX)
    assert (tmp_path / "imatrix.gguf").read_bytes() == by_hand()
    assert [path.name for path in tmp_path.iterdir()] == ["imatrix.gguf"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_imatrix(tmp_path / "other.gguf", IMATRIX)
    again = read_imatrix(tmp_path / "other.gguf")
    assert_same(again, replace(IMATRIX, file="other.gguf"))
    unnamed = replace(IMATRIX, datasets=())
    write_imatrix(tmp_path / "imatrix.gguf", unnamed)
    assert_same(read_imatrix(tmp_path / "imatrix.gguf"), unnamed)


def test_a_gguf_reader_finds_what_llama_cpp_looks_for(tmp_path: Path) -> None:
    write_imatrix(tmp_path / "imatrix.gguf", replace(IMATRIX, datasets=()))
    reader = gguf.GGUFReader(tmp_path / "imatrix.gguf")
    keys = {name: field.types for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    kind = gguf.GGUFValueType
    assert keys == {
        "general.type": [kind.STRING],
        "imatrix.datasets": [kind.ARRAY, kind.STRING],  # llama-quantize refuses a file without
        "imatrix.chunk_count": [kind.UINT32],
        "imatrix.chunk_size": [kind.UINT32],
    }
    assert [(tensor.name, tensor.tensor_type.name, tensor.shape.tolist()) for tensor in reader.tensors] == [
        (f"{DOWN}.in_sum2", "F32", [3]),
        (f"{DOWN}.counts", "F32", [1]),
        (f"{EXPERTS}.in_sum2", "F32", [2, 2]),
        (f"{EXPERTS}.counts", "F32", [1, 2]),
    ]


def assert_same(found: Imatrix, expected: Imatrix) -> None:
    assert replace(found, entries={}) == replace(expected, entries={})
    assert found.entries.keys() == expected.entries.keys()
    for name, entry in found.entries.items():
        for part in ("sums", "counts"):
            values, wanted = getattr(entry, part), getattr(expected.entries[name], part)
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values, wanted, strict=True)


def test_weights_are_means_and_ones_where_no_token_came() -> None:
    for shape in (None, SHAPES[DOWN]):
        found = IMATRIX.weights(DOWN, shape)
        assert found is not None
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.array([[10, 1, 7]], np.float32) / np.float32(3))
    for shape in (None, SHAPES[EXPERTS]):
        np.testing.assert_array_equal(IMATRIX.weights(EXPERTS, shape), [[0.25, 0.5], [1, 1]])
    assert IMATRIX.weights("blk.1.ffn_down.weight") is None


def test_counts_are_rounded_as_llama_quantize_rounds_them() -> None:
    counts = array(2.5, 2.4, 0.4)
    imatrix = replace(IMATRIX, entries={EXPERTS: Entry(np.full((3, 1), 6, np.float32), counts)})
    np.testing.assert_array_equal(imatrix.weights(EXPERTS), [[2], [3], [1]])


def test_one_count_stands_for_all_experts() -> None:
    imatrix = replace(IMATRIX, entries={EXPERTS: Entry(np.array([[2, 4, 6, 8]], np.float32), array(2))})
    assert imatrix.check({EXPERTS: (2, 5, 2)}) == []
    np.testing.assert_array_equal(imatrix.weights(EXPERTS, (2, 5, 2)), [[1, 2], [3, 4]])


def test_a_dat_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.dat"
    for tail, chunks, datasets in (
        (None, 5, ("train.jsonl",)),
        (b"", 0, ()),
        (struct.pack("<i", 7), 7, ()),
        (struct.pack("<ii", 7, 0), 7, ()),
    ):
        path.write_bytes(dat() if tail is None else dat(tail))
        imatrix = read_imatrix(path)
        assert (imatrix.chunks, imatrix.datasets, imatrix.chunk_size, imatrix.file) == (chunks, datasets, 0, path.name)
        assert imatrix.check(SHAPES) == []
        np.testing.assert_array_equal(imatrix.weights(DOWN, SHAPES[DOWN]), [[2, 0.5, 1.5]])
        # Of no calls: the values themselves, as llama-quantize takes them.
        np.testing.assert_array_equal(imatrix.weights(EXPERTS, SHAPES[EXPERTS]), [[1, 2], [3, 4]])
    write_imatrix(tmp_path / "imatrix.gguf", imatrix)
    for name in SHAPES:
        np.testing.assert_array_equal(
            read_imatrix(tmp_path / "imatrix.gguf").weights(name, SHAPES[name]), imatrix.weights(name, SHAPES[name])
        )


@pytest.mark.parametrize("whole", [by_hand(), dat()], ids=["gguf", "dat"])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "imatrix"
    # What a .dat may leave out, and the padding behind the last tensor of a GGUF.
    complete = {len(dat(b"")), len(dat(b"")) + 4} if whole == dat() else set(range(len(whole) - 24, len(whole)))
    for size in set(range(0, len(whole), 1 if whole == dat() else 5)) - complete:
        path.write_bytes(whole[:size])
        with pytest.raises(ExportError) as caught:
            read_imatrix(path)
        assert caught.value.where == str(path)
        assert caught.value.fix
    for size in complete:
        path.write_bytes(whole[:size])
        assert read_imatrix(path).entries.keys() == ENTRIES.keys()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it ends inside the number of entries"),
        (struct.pack("<i", 0), "it has 0 entries"),
        (struct.pack("<i", -3), "it has -3 entries"),
        (b"A genome is a text, and no matrix.", r"the name in entry 1 of 1701257281 has \d+ bytes"),
        (struct.pack("<ii", 1, -1), "the name in entry 1 of 1 has -1 bytes"),
        (struct.pack("<ii2s", 1, 2, b"\xff\xfe"), "is not text"),
        (struct.pack("<iicii", 1, 1, b"a", 1, -5), "it ends inside entry 1 of 1"),
        (struct.pack("<iicii", 1, 1, b"a", 1, 0), "entry 1 of 1 has no values"),
        (by_hand().replace(b"in_sum2", b"in_sum3"), r"GGUF \(imatrix\) is not an importance matrix: it has no sums"),
        (by_hand().replace(b"chunk_size", b"chunk_sizf"), "it lacks imatrix.chunk_size"),
        (by_hand().replace(b"ffn_down.weight.counts", b"ffn_down.weight.countz"), f"sums and counts of {DOWN}"),
        (by_hand().replace(b"ffn_down.weight.in_sum2", b"ffn_down.weight.in_sum3"), f"sums and counts of {DOWN}"),
        (by_hand().replace(struct.pack("<II", 4, 512), struct.pack("<II", 8, 512)), "damaged or truncated"),
        (b"GGUF" + bytes(100), "damaged or truncated"),
    ],
)  # fmt: skip
def test_what_is_no_importance_matrix_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "imatrix").write_bytes(data)
    with pytest.raises(ExportError, match=message):
        read_imatrix(tmp_path / "imatrix")


def test_a_model_or_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="there is no such importance matrix"):
        read_imatrix(tmp_path / "model.gguf")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_type("model")
    writer.add_tensor(DOWN, np.ones((2, 3), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ExportError, match=r"GGUF \(model\) is not an importance matrix: it lacks imatrix.datasets"):
        read_imatrix(tmp_path / "model.gguf")


def test_sums_of_another_type_are_refused(tmp_path: Path) -> None:
    in_sum2 = text(f"{DOWN}.in_sum2") + struct.pack("<IQ", 1, 3)
    data = by_hand().replace(in_sum2 + struct.pack("<I", 0), in_sum2 + struct.pack("<I", 1))
    (tmp_path / "imatrix.gguf").write_bytes(data)
    with pytest.raises(ExportError, match=f"{DOWN}.in_sum2 is F16, not F32"):
        read_imatrix(tmp_path / "imatrix.gguf")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("part", ["sums", "counts"])
def test_values_that_no_sum_of_squares_has_are_refused(tmp_path: Path, value: float, part: str) -> None:
    entry = ENTRIES[DOWN]
    damaged = replace(entry, **{part: np.full_like(getattr(entry, part), value)})
    write_imatrix(tmp_path / "imatrix.gguf", replace(IMATRIX, entries={**ENTRIES, DOWN: damaged}))
    with pytest.raises(ExportError, match=f"values for {DOWN} that are not finite, or negative"):
        read_imatrix(tmp_path / "imatrix.gguf")


def test_an_importance_matrix_of_another_model_is_refused() -> None:
    assert IMATRIX.check(SHAPES) == []
    for name, shape, message in (
        (DOWN, (2, 4), f"has 3 values for {DOWN}, whose rows have 4"),
        (EXPERTS, (2, 5, 4), f"has 4 values for {EXPERTS}, whose rows have 4 for each of 2 experts"),
        (EXPERTS, (4, 5, 2), f"has 4 values for {EXPERTS}, whose rows have 2 for each of 4 experts"),
    ):
        with pytest.raises(ExportError, match=message):
            IMATRIX.check({**SHAPES, name: shape})
        assert IMATRIX.weights(name, shape) is None
    with pytest.raises(ExportError, match=f"no entry for any of the model's tensors; it knows {EXPERTS}"):
        IMATRIX.check({"blk.0.ssm_in.weight": (2, 3)})


def test_missing_entries_are_named_and_an_embedding_that_does_not_fit_is_left_out() -> None:
    shapes = {**SHAPES, "output.weight": (9, 2), "blk.1.ffn_up.weight": (4, 3), "blk.1.ffn_down.weight": (3, 4)}
    assert IMATRIX.check(shapes) == ["blk.1.ffn_up.weight", "blk.1.ffn_down.weight"]
    strange = replace(IMATRIX, entries={**ENTRIES, "token_embd.weight": Entry(np.ones((1, 7), np.float32), array(1))})
    assert strange.check(SHAPES) == []
    assert strange.weights("token_embd.weight", SHAPES["token_embd.weight"]) is None


def test_the_keys_in_a_model_s_file_are_llama_quantize_s() -> None:
    assert IMATRIX.metadata() == {
        "quantize.imatrix.file": "imatrix.gguf",
        "quantize.imatrix.dataset": "train.jsonl",
        "quantize.imatrix.entries_count": 2,
        "quantize.imatrix.chunks_count": 5,
    }
    assert replace(IMATRIX, datasets=(), chunks=0).metadata().keys() == {
        "quantize.imatrix.file",
        "quantize.imatrix.entries_count",
    }


def test_a_model_s_own_matrix_covers_its_tensors(tmp_path: Path) -> None:
    directory = ModelDirectory.open(tiny.tiny_llama(tmp_path / "model"))
    squares = backends.load("torch")(directory.path).input_squares(packed())
    tensors = architectures.for_config(directory.config).tensors(directory.checkpoint().names)
    imatrix = imatrix_of(squares, tensors, datasets=["train.jsonl"], chunk_size=32)
    assert (imatrix.chunks, imatrix.chunk_size, imatrix.datasets) == (73 // 32, 32, ("train.jsonl",))
    assert imatrix.check({tensor.name: tensor.shape for tensor in tensors}) == []
    stored = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
              "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}  # fmt: skip
    assert len(imatrix.entries) == len(squares) == 2 * len(stored)
    for module, entry in squares.items():
        *_, layer, _, kind = module.split(".")
        assert imatrix.entries[f"blk.{layer}.{stored[kind]}.weight"].sums is entry.sums
    write_imatrix(tmp_path / "imatrix.gguf", imatrix)
    assert_same(read_imatrix(tmp_path / "imatrix.gguf"), imatrix)


GATE = "model.layers.0.mlp.experts.gate_proj"
SQUARES: Mapping[str, Entry] = {
    GATE: Entry(np.arange(12, dtype=np.float32).reshape(3, 4), array(5, 0, 2)),
    "model.layers.0.self_attn.qkv_proj": Entry(np.arange(4, dtype=np.float32)[None], array(7)),
    "model.layers.0.self_attn.q_proj": Entry(np.arange(4, dtype=np.float32)[None], array(7)),
    "model.layers.0.self_attn.v_proj": Entry(np.ones((1, 4), np.float32), array(7)),
}


def only(tensor: Tensor) -> Entry | None:
    return imatrix_of(SQUARES, [tensor], datasets=(), chunk_size=512).entries.get(tensor.name)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_experts_stored_one_by_one_get_their_own_rows(order: tuple[int, ...]) -> None:
    sources = [f"model.layers.0.mlp.experts.{expert}.gate_proj.weight" for expert in order]
    found = only(Tensor("blk.0.ffn_gate_exps.weight", (3, 6, 4), tuple(Part(source, 0, 6) for source in sources)))
    assert found is not None
    np.testing.assert_array_equal(found.sums, SQUARES[GATE].sums[list(order)])
    np.testing.assert_array_equal(found.counts, SQUARES[GATE].counts[list(order)])


@pytest.mark.parametrize("source", ["experts.gate_proj.weight", "switch_mlp.gate_proj.weight", "experts.gate_up_proj"])
def test_stacked_experts_are_found_under_every_name(source: str) -> None:
    parts = tuple(Part(f"model.layers.0.mlp.{source}", start, start + 6) for start in (0, 12, 24))
    found = only(Tensor("blk.0.ffn_gate_exps.weight", (3, 6, 4), parts))
    assert found is not None
    np.testing.assert_array_equal(found.sums, SQUARES[GATE].sums)


def test_a_fused_projection_gives_its_inputs_to_all_its_parts() -> None:
    qkv = "model.layers.0.self_attn.qkv_proj"
    for start, stop in itertools.pairwise((0, 8, 12, 16)):
        found = only(Tensor("blk.0.attn_q.weight", (stop - start, 4), (Part(f"{qkv}.weight", start, stop),)))
        assert found is not None
        assert found.sums is SQUARES[qkv].sums
    names = ("q_proj", "qkv_proj")
    parts = tuple(Part(f"model.layers.0.self_attn.{name}.weight", 0, 8) for name in names)
    assert only(Tensor("blk.0.attn_qkv.weight", (16, 4), parts)) is not None


def test_what_was_not_collected_gets_no_entry() -> None:
    assert only(Tensor.of("token_embd.weight", (9, 4), "model.embed_tokens.weight")) is None
    assert only(Tensor.of("blk.0.attn_q.bias", (4,), "model.layers.0.self_attn.q_proj.bias")) is None
    assert only(Tensor("rope_freqs.weight", (4,), values=np.ones(4, np.float32))) is None


@pytest.mark.parametrize(
    ("shape", "sources"),
    [
        ((8, 5), ["self_attn.q_proj"]),
        ((3, 8, 4), ["self_attn.q_proj"]),
        ((16, 4), ["self_attn.q_proj", "self_attn.v_proj"]),  # fed by different inputs
        ((4, 6, 4), [f"mlp.experts.{expert}.gate_proj" for expert in range(4)]),
        ((2, 6, 4), ["mlp.experts.gate_proj"]),
    ],
)
def test_inputs_that_do_not_fit_a_tensor_are_refused(shape: tuple[int, ...], sources: list[str]) -> None:
    parts = tuple(Part(f"model.layers.0.{source}.weight", 0, 6) for source in sources)
    with pytest.raises(ExportError, match=r"what was collected of model.layers.0.*, the tensor") as caught:
        only(Tensor("blk.0.some.weight", shape, parts))
    assert caught.value.where == "blk.0.some.weight"
