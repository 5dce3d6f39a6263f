"""Types and bytes are those of llama-quantize.

The expectations were read from files that llama-quantize made; what is written here is the rule behind them.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from pathlib import Path

import gguf
import numpy as np
import pytest

from chrysalis_mlx.errors import ExportError, ModelError
from chrysalis_mlx.gguf import ggml
from chrysalis_mlx.gguf.quantize import (
    TYPES,
    Traits,
    choose,
    encode,
    file_type,
    require_importance,
    tensor_bytes,
    type_id,
)

# A dense model of 24 layers with three heads per key/value head, an output matrix of its own, rows of 256 weights,
# no importance matrix: the types in layer 10, which is neither first nor last nor a third one.
IN_THE_MIDDLE = """
            attn_q  attn_v  attn_output  ffn_up  ffn_down  output  token_embd
    F32     F32     F32     F32          F32     F32       F32     F32
    F16     F16     F16     F16          F16     F16       F16     F16
    BF16    BF16    BF16    BF16         BF16    BF16      BF16    BF16
    Q8_0    Q8_0    Q8_0    Q8_0         Q8_0    Q8_0      Q8_0    Q8_0
    Q6_K    Q6_K    Q6_K    Q6_K         Q6_K    Q6_K      Q6_K    Q6_K
    Q5_1    Q5_1    Q5_1    Q5_1         Q5_1    Q5_1      Q6_K    Q5_1
    Q5_K_M  Q5_K    Q5_K    Q5_K         Q5_K    Q5_K      Q6_K    Q5_K
    Q5_K_S  Q5_K    Q5_K    Q5_K         Q5_K    Q5_K      Q6_K    Q5_K
    Q5_0    Q5_0    Q5_0    Q5_0         Q5_0    Q5_0      Q6_K    Q5_0
    Q4_1    Q4_1    Q4_1    Q4_1         Q4_1    Q4_1      Q6_K    Q4_1
    Q4_K_M  Q4_K    Q4_K    Q4_K         Q4_K    Q4_K      Q6_K    Q4_K
    Q4_K_S  Q4_K    Q4_K    Q4_K         Q4_K    Q4_K      Q6_K    Q4_K
    Q4_0    Q4_0    Q4_0    Q4_0         Q4_0    Q4_0      Q6_K    Q4_0
    IQ4_NL  IQ4_NL  IQ4_NL  IQ4_NL       IQ4_NL  IQ4_NL    Q6_K    IQ4_NL
    IQ4_XS  IQ4_XS  IQ4_XS  IQ4_XS       IQ4_XS  IQ4_XS    Q6_K    IQ4_XS
    MXFP4   Q8_0    Q8_0    Q8_0         Q8_0    Q8_0      Q8_0    Q8_0
    Q3_K_L  Q3_K    Q5_K    Q5_K         Q3_K    Q5_K      Q6_K    Q3_K
    Q3_K_M  Q3_K    Q4_K    Q4_K         Q3_K    Q4_K      Q6_K    Q3_K
    IQ3_M   IQ3_S   Q4_K    Q4_K         IQ3_S   IQ3_S     Q6_K    IQ3_S
    Q3_K_S  Q3_K    Q3_K    Q3_K         Q3_K    Q3_K      Q6_K    Q3_K
    Q2_K    Q2_K    Q3_K    Q3_K         Q2_K    Q3_K      Q6_K    Q2_K
    IQ2_M   IQ2_S   IQ3_S   IQ3_S        IQ2_S   IQ2_S     Q5_K    IQ3_S
"""
PARTS, *ROWS = [line.split() for line in IN_THE_MIDDLE.strip().splitlines()]
MIDDLE = {name: dict(zip(PARTS, types, strict=True)) for name, *types in ROWS}


def chosen(
    kind: str,
    part: str,
    columns: int = 256,
    *,
    layer: int = 10,
    layers: int = 24,
    gqa: int = 3,
    experts: int = 0,
    tied: bool = False,
    wide: bool = False,
    importance: bool = False,
) -> str:
    name = f"{part}.weight" if part in ("output", "token_embd") else f"blk.{layer}.{part}.weight"
    shape = (experts, 512, columns) if part.endswith("_exps") else (512, columns)
    traits = Traits(layers=layers, gqa=gqa, experts=experts, tied=tied, wide=wide)
    return choose(TYPES[kind], name, shape, traits, importance=importance)


def test_file_types_carry_llamacpps_numbers() -> None:
    names = {"F32": "ALL_F32", "MXFP4": "MOSTLY_MXFP4_MOE"}
    numbers = {name: int(gguf.LlamaFileType[names.get(name, f"MOSTLY_{name}")]) for name in TYPES}
    assert {name: row.ftype for name, row in TYPES.items()} == numbers


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(ExportError, match=r"'Q9_X'(.|\n)*F32, F16, BF16, Q8_0, Q6_K(.|\n)*Q2_K, IQ2_M"):
        file_type("Q9_X")


@pytest.mark.parametrize("kind", list(TYPES))
def test_the_middle_of_a_plain_model(kind: str) -> None:
    assert {part: chosen(kind, part) for part in PARTS} == MIDDLE[kind]
    # keys and gates are as queries and ups everywhere
    for part, like in (("attn_k", "attn_q"), ("ffn_gate", "ffn_up")):
        assert chosen(kind, part) == MIDDLE[kind][like]


@pytest.mark.parametrize("kind", list(TYPES))
def test_fused_queries_keys_and_values_count_as_values(kind: str) -> None:
    for layer in range(24):
        for gqa in (1, 4):
            expected = chosen(kind, "attn_v", layer=layer, gqa=gqa)
            assert chosen(kind, "attn_qkv", layer=layer, gqa=gqa) == expected


@pytest.mark.parametrize("kind", list(TYPES))
def test_norms_biases_and_the_gates_of_experts_stay_float32(kind: str) -> None:
    traits = Traits(layers=8)
    for name in ("blk.0.attn_norm.weight", "blk.0.attn_q.bias", "output_norm.weight", "rope_freqs.weight"):
        assert choose(TYPES[kind], name, (256,), traits, importance=False) == "F32"
    for name in ("blk.0.attn_q_norm.weight", "blk.0.ffn_gate_inp.weight"):
        assert choose(TYPES[kind], name, (8, 256), traits, importance=True) == "F32"


# 24 layers: the first eighth is 0-2, the last 21-23, and every third between is 5, 8, ...
FIRST, MORE_BITS = [0, 1, 2], [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]


@pytest.mark.parametrize(
    ("kind", "part", "better", "where"),
    [
        ("Q5_K_M", "attn_v", "Q6_K", MORE_BITS),
        ("Q5_K_M", "ffn_down", "Q6_K", MORE_BITS),
        ("Q4_K_M", "attn_v", "Q6_K", MORE_BITS),
        ("Q4_K_M", "ffn_down", "Q6_K", MORE_BITS),
        ("Q4_K_S", "attn_v", "Q5_K", [0, 1, 2, 3]),
        ("Q4_K_S", "ffn_down", "Q5_K", FIRST),
        ("IQ4_NL", "ffn_down", "Q5_K", FIRST),
        ("IQ4_XS", "ffn_down", "Q5_K", FIRST),
        ("Q3_K_M", "attn_v", "Q5_K", [0, 1]),
        ("Q3_K_M", "ffn_down", "Q5_K", [0]),
        ("IQ3_M", "ffn_down", "Q4_K", FIRST),
        ("IQ2_M", "ffn_down", "IQ3_S", FIRST),
    ],
)
def test_some_layers_get_better_types(kind: str, part: str, better: str, where: list[int]) -> None:
    expected = [better if layer in where else MIDDLE[kind][part] for layer in range(24)]
    assert [chosen(kind, part, layer=layer) for layer in range(24)] == expected


def test_no_other_layer_gets_a_better_type() -> None:
    better = {(kind, part) for kind in TYPES for part in PARTS if chosen(kind, part, layer=0) != MIDDLE[kind][part]}
    mixed = ("Q5_K_M", "Q4_K_M", "Q4_K_S", "Q3_K_M")
    first_down = ("IQ4_NL", "IQ4_XS", "IQ3_M", "IQ2_M")
    assert better == {(k, p) for k in mixed for p in ("attn_v", "ffn_down")} | {(k, "ffn_down") for k in first_down}


def test_q4_k_m_of_thirty_layers() -> None:
    more = [layer for layer in range(30) if chosen("Q4_K_M", "ffn_down", 1536, layer=layer, layers=30) == "Q6_K"]
    assert more == [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]


def test_an_eighth_of_seven_layers_is_none() -> None:
    assert [chosen("Q4_K_S", "ffn_down", layer=layer, layers=7) for layer in range(7)] == ["Q4_K"] * 7
    more = [layer for layer in range(7) if chosen("Q4_K_M", "ffn_down", layer=layer, layers=7) == "Q6_K"]
    assert more == [2, 5, 6]


def test_an_importance_matrix_changes_the_first_ffn_down() -> None:
    def differing(layer: int) -> dict[str, tuple[str, str]]:
        pairs = {
            kind: tuple(chosen(kind, "ffn_down", layer=layer, importance=given) for given in (False, True))
            for kind in TYPES
        }
        return {kind: pair for kind, pair in pairs.items() if pair[0] != pair[1]}

    assert differing(2) == {
        "Q5_0": ("Q5_0", "Q5_1"),
        "Q4_0": ("Q4_0", "Q4_1"),
        "IQ4_NL": ("Q5_K", "IQ4_NL"),
        "IQ4_XS": ("Q5_K", "IQ4_XS"),
    }
    assert differing(3) == {}
    for kind in TYPES:
        for part in ("attn_q", "attn_v", "attn_output", "ffn_up", "output", "token_embd"):
            assert chosen(kind, part, layer=0, importance=True) == chosen(kind, part, layer=0)


def test_values_that_four_heads_share_get_better_types() -> None:
    better = {kind: chosen(kind, "attn_v", gqa=4) for kind in TYPES}
    changed = {kind: new for kind, new in better.items() if new != MIDDLE[kind]["attn_v"]}
    assert changed == {"IQ4_NL": "Q5_K", "IQ4_XS": "Q5_K", "Q2_K": "Q4_K", "IQ2_M": "Q4_K"}


def test_a_70b_model_has_better_values() -> None:
    better = {kind: chosen(kind, "attn_v", layers=80, layer=13, gqa=8, wide=True) for kind in TYPES}
    plain = {kind: chosen(kind, "attn_v", layers=80, layer=13, gqa=8) for kind in TYPES}
    assert {kind: (plain[kind], better[kind]) for kind in TYPES if plain[kind] != better[kind]} == {
        kind: (old, "Q5_K")
        for kind, old in (
            *(("Q4_K_M", "Q4_K"), ("Q4_K_S", "Q4_K"), ("Q3_K_M", "Q4_K")),
            *(("IQ3_M", "Q4_K"), ("Q3_K_S", "Q3_K"), ("Q2_K", "Q4_K")),
        )
    }
    assert chosen("Q4_K_M", "attn_v", layers=80, layer=0, wide=True) == "Q6_K"
    assert chosen("Q4_K_M", "ffn_down", layers=80, layer=13, wide=True) == "Q4_K"
    assert chosen("Q4_K_M", "attn_v", 8224, layers=80, layer=13, wide=True) == "Q5_1"


def test_only_the_experts_are_mxfp4() -> None:
    for part in ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"):
        assert chosen("MXFP4", part, experts=128) == "MXFP4"
        assert chosen("MXFP4", part, experts=1) == "Q8_0"
    for part in PARTS:
        assert chosen("MXFP4", part, experts=128) == "Q8_0"


def test_the_down_matrices_of_experts_are_ffn_down() -> None:
    for kind in set(TYPES) - {"MXFP4"}:
        for layer in range(24):
            experts = chosen(kind, "ffn_down_exps", layer=layer, experts=128)
            assert experts == chosen(kind, "ffn_down", layer=layer)
            assert chosen(kind, "ffn_up_exps", layer=layer, experts=128) == chosen(kind, "ffn_up", layer=layer)


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in ("F32", "F16", "BF16")])
def test_eight_experts_are_mixtral(kind: str) -> None:
    rich = "Q4_K" if kind == "IQ2_M" else "Q8_0"
    assert chosen(kind, "attn_v", experts=8) == chosen(kind, "attn_k", experts=8) == rich
    output = {"MXFP4": "Q8_0", "Q8_0": "Q8_0", "Q3_K_L": "Q3_K", "Q4_0": "Q4_0", "Q4_1": "Q4_1", "Q5_0": "Q5_0",
              "Q5_1": "Q5_1", "Q6_K": "Q6_K"}  # fmt: skip
    assert chosen(kind, "attn_output", experts=8) == output.get(kind, "Q5_K")
    assert chosen(kind, "attn_q", experts=8) == MIDDLE[kind]["attn_q"]


def test_iq3_m_spends_more_on_mixtrals_experts() -> None:
    better = [layer for layer in range(24) if chosen("IQ3_M", "ffn_down_exps", layer=layer, experts=8) == "Q4_K"]
    assert better == MORE_BITS


def test_iq2_m_has_better_values_from_four_experts_on() -> None:
    assert [chosen("IQ2_M", "attn_v", experts=experts) for experts in (0, 2, 4, 128)] == ["IQ3_S"] * 2 + ["Q4_K"] * 2


@pytest.mark.parametrize("kind", list(TYPES))
def test_a_tied_embedding_is_the_output(kind: str) -> None:
    for columns in (256, 576, 40):
        assert chosen(kind, "token_embd", columns, tied=True) == chosen(kind, "output", columns)


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in ("F32", "F16", "BF16")])
def test_rows_that_do_not_fit_get_another_type(kind: str) -> None:
    smaller = {"Q6_K": "Q8_0", "Q5_K": "Q5_1", "Q4_K": "Q5_0", "Q3_K": "Q4_0", "Q2_K": "Q4_0",
               "IQ4_XS": "IQ4_NL", "IQ3_S": "IQ4_NL", "IQ2_S": "IQ4_NL"}  # fmt: skip
    for layer in (0, 10):
        for part in ("attn_q", "attn_v", "attn_output", "ffn_down"):
            wanted = chosen(kind, part, layer=layer)
            # 576 = 18 * 32; 40 is no multiple of 32 either
            assert chosen(kind, part, 576, layer=layer) == smaller.get(wanted, wanted)
            assert chosen(kind, part, 40, layer=layer) == "F16"


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in ("F32", "F16", "BF16")])
def test_an_output_that_does_not_fit_its_files_base_type_is_q8_0(kind: str) -> None:
    # At once: IQ2_M's output, a Q5_K, would be Q5_1 by the table above.
    assert chosen(kind, "output", 576) == "Q8_0"
    assert chosen(kind, "output", 40) == "F16"


def test_what_is_garbage_without_an_importance_matrix_is_refused() -> None:
    message = r"IQ2_M stores blk\.3\.ffn_up\.weight as IQ2_S.*\n(.|\n)*give one that has this tensor"
    with pytest.raises(ExportError, match=message):
        require_importance(TYPES["IQ2_M"], "blk.3.ffn_up.weight", "IQ2_S")
    needing = {(kind, part) for kind in TYPES for part in PARTS if not passes(kind, part)}
    assert needing == {("IQ2_M", part) for part in ("attn_q", "ffn_up", "ffn_down")}


def passes(kind: str, part: str) -> bool:
    try:
        require_importance(TYPES[kind], part, chosen(kind, part))
    except ExportError:
        return False
    return True


GGML_TYPES = ["Q8_0", "Q6_K", "Q5_1", "Q5_K", "Q5_0", "Q4_1", "Q4_K", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4", "Q3_K",
              "IQ3_S", "Q2_K", "IQ2_S"]  # fmt: skip


def in_float16(seed: int, *shape: int) -> np.ndarray:
    """Values of about the size of weights that float16 holds exactly, in float32."""
    return (np.random.default_rng(seed).standard_normal(shape) * 0.05).astype(np.float16).astype(np.float32)


def one_call(values: np.ndarray, ggml_type: str, importance: np.ndarray | None) -> bytes:
    """The whole matrix in a single call, through a binding of this test's own."""
    spec = importlib.util.find_spec("libggml")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    library = ctypes.CDLL(str(next(Path(spec.submodule_search_locations[0]).glob("lib*/libggml-base.[sd]*"))))
    out = ctypes.create_string_buffer(tensor_bytes(ggml_type, values.shape))
    source, weights = (None if x is None else x.ctypes.data_as(ctypes.c_void_p) for x in (values, importance))
    rows, columns = (ctypes.c_int64(length) for length in values.shape)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    size = library.ggml_quantize_chunk(type_id(ggml_type), source, out, ctypes.c_int64(0), rows, columns, weights)
    assert size == len(out.raw)
    return out.raw


@pytest.mark.parametrize("with_importance", [False, True])
@pytest.mark.parametrize("ggml_type", GGML_TYPES)
def test_slices_on_threads_give_the_bytes_of_one_call(ggml_type: str, with_importance: bool) -> None:
    values = in_float16(0, 23, 512)
    importance = np.random.default_rng(1).random(512, dtype=np.float32) ** 4 if with_importance else None
    slices = [values[start : start + 3] for start in range(0, 23, 3)]
    ours, together = [b""] * len(slices), threading.Barrier(len(slices))

    def quantize(number: int) -> None:
        together.wait()
        ours[number] = encode("w", slices[number], ggml_type, importance).tobytes()

    threads = [threading.Thread(target=quantize, args=(number,)) for number in range(len(slices))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert b"".join(ours) == one_call(values, ggml_type, importance)


# Root of the mean squared error over that of normal values, measured; a type that loses more is not what it says.
ERRORS = {"Q8_0": 0.006, "Q6_K": 0.019, "Q5_1": 0.040, "Q5_K": 0.039, "Q5_0": 0.045, "Q4_1": 0.08, "Q4_K": 0.075,
          "Q4_0": 0.09, "IQ4_NL": 0.08, "IQ4_XS": 0.08, "MXFP4": 0.12, "Q3_K": 0.16, "IQ3_S": 0.18, "Q2_K": 0.31,
          "IQ2_S": 0.28}  # fmt: skip


@pytest.mark.parametrize("ggml_type", GGML_TYPES)
def test_blocks_restore_to_about_the_values(ggml_type: str) -> None:
    values = in_float16(2, 16, 512)
    stored = encode("w", values, ggml_type)
    assert stored.shape == (16, tensor_bytes(ggml_type, (512,)))
    restored = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[ggml_type])
    error = np.sqrt(((restored - values) ** 2).mean() / (values**2).mean())
    assert 0.8 * ERRORS[ggml_type] < error < ERRORS[ggml_type]


@pytest.mark.parametrize("ggml_type", [name for name in GGML_TYPES if name not in ("Q8_0", "MXFP4")])
def test_columns_that_matter_are_kept_better(ggml_type: str) -> None:
    values, importance = in_float16(3, 16, 512), np.ones(512, np.float32)
    importance[::4] = 1000
    kind = gguf.GGMLQuantizationType[ggml_type]
    plain, weighted = (
        gguf.quants.dequantize(encode("w", values, ggml_type, given), kind) for given in (None, importance)
    )
    assert np.abs(weighted - values)[:, ::4].mean() < 0.95 * np.abs(plain - values)[:, ::4].mean()


@pytest.mark.parametrize("ggml_type", ["Q8_0", "Q4_K", "IQ4_NL"])
def test_quantized_types_are_made_from_float16(ggml_type: str) -> None:
    # The way through an F16 file: llama-quantize sees rounded values.
    values = np.random.default_rng(4).standard_normal((8, 256)).astype(np.float32)
    rounded = values.astype(np.float16).astype(np.float32)
    assert encode("w", values, ggml_type).tobytes() == one_call(rounded, ggml_type, None)
    assert encode("w", values, ggml_type).tobytes() != one_call(values, ggml_type, None)


def hard_floats() -> np.ndarray:
    """float32 of every exponent and sign with halves, ties, carries and leftovers below; (n,), n odd."""
    high = np.arange(1 << 16, dtype=np.uint32) << 16
    low = np.array([0, 1, 0x0FFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = (high[:, None] | low).reshape(-1)[:-1].view(np.float32)
    return values[np.isfinite(values)]


def test_float16_rounds_as_numpy_does() -> None:
    values = hard_floats()
    values = values[np.abs(values) < 65520]
    assert len(values) > 300_000
    expected = values.astype(np.float16)
    assert encode("w", values, "F16").tobytes() == expected.tobytes()
    assert ggml.to_float32(expected).tobytes() == expected.astype(np.float32).tobytes()


def test_bfloat16_rounds_to_nearest_even() -> None:
    values = hard_floats()
    values = values[np.abs(values) < 3.39e38]
    bits = values.view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)
    assert encode("w", values, "BF16").tobytes() == expected.tobytes()


def test_float32_is_stored_as_it_is() -> None:
    values = hard_floats()
    assert encode("w", values, "F32").tobytes() == values.tobytes()
    assert encode("w", values.reshape(-1, 2)[:, ::2], "F32").tobytes() == values[::2].tobytes()


@pytest.mark.parametrize("ggml_type", ["F32", "F16", "BF16", "Q8_0", "IQ2_S"])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_damaged_weights_are_not_exported(ggml_type: str, value: float) -> None:
    values = np.full((2, 256), -1, np.float32)
    values[1, 3] = value
    with pytest.raises(ExportError, match=r"blk\.0 has values that are not finite"):
        encode("blk.0", values, ggml_type)


def test_bfloat16_that_rounds_to_infinity_is_damaged() -> None:
    with pytest.raises(ExportError, match="not finite"):
        encode("blk.0", np.full((2, 2), 3.4e38, np.float32), "BF16")


@pytest.mark.parametrize("ggml_type", ["F16", "Q8_0", "Q4_K"])
@pytest.mark.parametrize("sign", [1, -1])
def test_values_beyond_float16_are_not_exported(ggml_type: str, sign: int) -> None:
    values = np.full((2, 256), -sign, np.float32)
    values[1, 7] = sign * 65519  # rounds to 65504
    assert encode("blk.0", values, ggml_type).size
    values[1, 7] = sign * 65520
    with pytest.raises(ModelError, match=r"blk\.0 has values up to 65520, too large for float16"):
        encode("blk.0", values, ggml_type)


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        (np.ones(255), r"has the shape \(255,\) for blk\.0, whose rows have 256"),
        (np.ones((2, 256)), r"has the shape \(2, 256\)"),
        (np.full(256, np.nan), "not numbers from 0 to 1e\\+24"),
        (np.full(256, -1.0), "not numbers from 0"),
        (np.full(256, 1e38), "not numbers from 0"),  # ggml would abort: its sums overflow
    ],
)
def test_an_unusable_importance_is_refused(importance: np.ndarray, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        encode("blk.0", np.ones((2, 256), np.float32), "IQ3_S", importance.astype(np.float32))


@pytest.mark.parametrize("ggml_type", GGML_TYPES)
def test_extreme_values_and_importance_are_survived(ggml_type: str) -> None:
    values = np.full((2, 512), 65504, np.float32)
    values[:, ::3] *= -0.7
    for row, importance in ((values, 1e24), (values, 0), (values * np.float32(1e-12), 1e24), (values * 0, 1e-30)):
        stored = encode("w", row, ggml_type, np.full(512, importance, np.float32))
        assert np.isfinite(gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[ggml_type])).all()


def test_blocks_that_are_not_numbers_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    values, overflowing = in_float16(5, 2, 512), np.full(512, 1e38, np.float32)
    with pytest.raises(ExportError, match=r"made blocks of blk\.0 that are not numbers"):
        ggml.quantize("blk.0", values, type_id("Q4_K"), tensor_bytes("Q4_K", (512,)), overflowing)
    assert "nan" in capfd.readouterr().err
