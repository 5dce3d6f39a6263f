"""GGUF -> Hugging Face directory, and the way there and back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import transformers

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.gguf.reader import GGUFModel, import_gguf
from chrysalis_mlx.gguf.vocabulary.hard_strings import HARD_STRINGS
from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.models.checkpoint import Checkpoint
from tests.gguf.conftest import BUILDERS
from tests.gguf.parity import TOKENS, export, read_config, transformers_logprobs

BYTE_LEVEL = [name for name in BUILDERS if name != "mistral"]


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_there_and_back_is_the_same_model(model_directory: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    directory, again = model_directory(name), tmp_path / "again"
    import_gguf(export(directory, tmp_path / "model.gguf").path, again)
    first, second = Checkpoint.open(directory), Checkpoint.open(again)
    assert sorted(first.names) == sorted(second.names)
    for tensor in first.names:
        assert np.array_equal(first.read(tensor), second.read(tensor)), tensor
    tokenizers = [transformers.AutoTokenizer.from_pretrained(path) for path in (directory, again)]
    for text in HARD_STRINGS:
        assert tokenizers[0](text).input_ids == tokenizers[1](text).input_ids, text
    np.testing.assert_array_equal(transformers_logprobs(directory, TOKENS), transformers_logprobs(again, TOKENS))
    keys = ("model_type", "hidden_size", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings")
    ours, theirs = read_config(again), read_config(directory)
    assert {key: ours[key] for key in keys} == {key: theirs[key] for key in keys}
    assert ours["rope_parameters"] == theirs["rope_parameters"]
    assert (ours["eos_token_id"], ours["pad_token_id"], ours["bos_token_id"]) == (2, 0, None)
    assert json.loads((again / "generation_config.json").read_text())["eos_token_id"] == 2
    assert not (tmp_path / "again.partial").exists()


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_mlx_lm_computes_what_transformers_computes(
    model_directory: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    import_gguf(export(model_directory(name), tmp_path / "model.gguf").path, tmp_path / "again")
    model, tokenizer = mlx_lm.load(str(tmp_path / "again"))
    logits = model(mx.array([TOKENS]))[0]
    ours = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    np.testing.assert_allclose(ours, transformers_logprobs(model_directory(name), TOKENS), atol=2e-4)
    assert tokenizer.eos_token_id == 2


@pytest.mark.parametrize(
    ("type_name", "error"), [("F16", 1 / 2048), ("BF16", 1 / 256), ("Q8_0", 1 / 127), ("Q4_K_M", 0.2)]
)
def test_quantized_weights_come_back_close(
    model_directory: Callable[[str], Path], tmp_path: Path, type_name: str, error: float
) -> None:
    directory = model_directory("llama-bias")
    import_gguf(export(directory, tmp_path / "model.gguf", type_name).path, tmp_path / "again")
    first, second = Checkpoint.open(directory), Checkpoint.open(tmp_path / "again")
    for name in first.names:
        expected, ours = first.read(name), second.read(name)
        assert np.abs(ours - expected).max() <= error * np.abs(expected).max()
        assert first.shape(name) == second.shape(name)
    assert not np.array_equal(first.read("model.embed_tokens.weight"), second.read("model.embed_tokens.weight"))


def test_large_tensors_are_dequantized_in_slices(
    model_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GGUFModel.open(export(model_directory("qwen3"), tmp_path / "model.gguf", "Q8_0").path)
    whole = {name: model.read(name) for name in model.names}
    monkeypatch.setattr("chrysalis_mlx.gguf.reader._SLICE", 5 * 64)  # five rows, which divide nothing
    for name in model.names:
        assert np.array_equal(model.read(name), whole[name])


def test_an_interrupted_import_leaves_no_model_and_can_be_repeated(
    model_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = export(model_directory("llama"), tmp_path / "model.gguf").path
    real = GGUFModel.read
    with monkeypatch.context() as patch:

        def fail(self: GGUFModel, name: str) -> Any:
            if name == "model.norm.weight":
                raise KeyboardInterrupt
            return real(self, name)

        patch.setattr(GGUFModel, "read", fail)
        with pytest.raises(KeyboardInterrupt):
            import_gguf(file, tmp_path / "again")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    (tmp_path / "again.partial").mkdir()
    (tmp_path / "again.partial/left.by.a.kill").touch()
    (tmp_path / "again").mkdir()
    import_gguf(file, tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    with pytest.raises(ModelError, match="exists and is not empty"):
        import_gguf(file, tmp_path / "again")


def test_what_is_not_a_gguf(model_directory: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such GGUF"):
        import_gguf(tmp_path / "nothing.gguf", tmp_path / "out")
    for content in (b"", b"GG", b"PK\x03\x04 and more"):
        (tmp_path / "other.gguf").write_bytes(content)
        with pytest.raises(ModelError, match="not a GGUF"):
            import_gguf(tmp_path / "other.gguf", tmp_path / "out")
    whole = export(model_directory("llama"), tmp_path / "model.gguf").path.read_bytes()
    for length in (4, 7, 20, 24, 100, 3000, len(whole) // 2, len(whole) - 4096):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(ModelError, match="damaged or truncated"):
            import_gguf(tmp_path / "cut.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def write_edited(source: Path, path: Path, *, change: dict[str, Any], drop: str = "", extra: str = "") -> Path:
    """A copy of a GGUF with other metadata, without one tensor, with one more."""
    reader = gguf.GGUFReader(source)
    arch = change.get("general.architecture", reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(path, arch)
    kept = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.") and key not in change}
    for key, field in kept.items():
        if key != "general.architecture":
            writer.add_key_value(
                key, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None
            )
    for key, value in change.items():
        if value is not None and key != "general.architecture":
            add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
            add(key, value)
    for tensor in reader.tensors:
        if tensor.name != drop:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    if extra:
        writer.add_tensor(extra, np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("change", "drop", "extra", "message"),
    [
        ({"general.architecture": "gemma3"}, "", "", r"architecture gemma3(.|\n)*llama, qwen2, qwen3"),
        ({"llama.rope.scaling.type": "yarn"}, "", "", "rotary scaling yarn"),
        ({"llama.expert_count": 8}, "", "", "llama.expert_count = 8"),
        ({"llama.attention.sliding_window": 64}, "", "", "sliding_window = 64"),
        ({"llama.logit_scale": 0.5}, "", "", "logit_scale = 0.5"),
        ({"split.count": 2}, "", "", "one part of several"),
        ({"llama.block_count": None}, "", "", "lack a usable value: 'llama.block_count'"),
        ({"llama.attention.value_length": 8}, "", "", "value_length = 8"),
        ({"llama.feed_forward_length": 96}, "", "", r"ffn_gate.weight has the shape \(128, 64\)"),
        ({"tokenizer.ggml.pre": "falcon"}, "", "", "pre-tokenizer falcon"),
        ({"tokenizer.ggml.model": "llama"}, "", "", "of the kind llama"),
        ({}, "blk.1.attn_v.weight", "", "has no tensor blk.1.attn_v.weight"),
        ({}, "token_embd.weight", "", "no token_embd.weight"),
        ({}, "", "blk.0.attn_sinks.weight", "no place for, such as blk.0.attn_sinks.weight"),
        ({}, "", "blk.0.attn_q.bias", "only attn_q have a bias"),
        ({}, "", "rope_freqs.weight", "not a scaling of Llama 3"),
    ],
)
def test_what_cannot_be_imported_is_named(
    model_directory: Callable[[str], Path], tmp_path: Path, change: dict[str, Any], drop: str, extra: str, message: str
) -> None:
    plain = export(model_directory("llama"), tmp_path / "plain.gguf").path
    edited = write_edited(plain, tmp_path / "edited.gguf", change=change, drop=drop, extra=extra)
    with pytest.raises(ModelError, match=message):
        import_gguf(edited, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_edited_copies_are_otherwise_sound(model_directory: Callable[[str], Path], tmp_path: Path) -> None:
    plain = export(model_directory("llama"), tmp_path / "plain.gguf").path
    edited = write_edited(plain, tmp_path / "edited.gguf", change={"tokenizer.ggml.eot_token_id": 1})
    import_gguf(edited, tmp_path / "out")
    assert json.loads((tmp_path / "out/generation_config.json").read_text())["eos_token_id"] == [2, 1]


def test_a_type_without_a_dequantizer_is_named(tmp_path: Path) -> None:
    missing = [kind for kind in gguf.GGMLQuantizationType if not _dequantizes(kind)]
    assert gguf.GGMLQuantizationType.Q8_K in missing
    for kind in missing:
        with pytest.raises(ModelError, match=f"type {kind.name}, which cannot be dequantized"):
            GGUFModel(tmp_path, {}, {"token_embd.weight": SimpleNamespace(tensor_type=kind)})


def _dequantizes(kind: gguf.GGMLQuantizationType) -> bool:
    try:
        gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


@pytest.mark.slow
def test_the_real_smollm2_is_imported(tmp_path: Path) -> None:
    name = os.environ.get("CHRYSALIS_SMOLLM2_GGUF")
    if not name:
        pytest.skip("CHRYSALIS_SMOLLM2_GGUF does not name SmolLM2-135M-Instruct.Q4_1.gguf")
    import_gguf(Path(name), tmp_path / "hf")
    model, tokenizer = mlx_lm.load(str(tmp_path / "hf"))
    with LlamaServer(Path(name), context=64) as server:
        for text in HARD_STRINGS:
            assert tokenizer.encode(text) == server.tokenize(text, parse_special=True), text
    text = "The capital of France is Paris, and the capital of Germany is Berlin."
    tokens = tokenizer.encode(text)
    logits = model(mx.array([tokens]))[0]
    logprobs = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    perplexity = np.exp(-np.mean([logprobs[i, token] for i, token in enumerate(tokens[1:])]))
    assert perplexity < 12
    assert Checkpoint.open(tmp_path / "hf").shape("model.embed_tokens.weight") == (49152, 576)
