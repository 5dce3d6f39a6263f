"""How many parameters a model has, against published numbers and against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.checkpoint import Checkpoint, write_checkpoint
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.parameters import counted, estimated, quantized_bits
from tests import tiny
from tests.models.published import PUBLISHED


@pytest.mark.parametrize("source", PUBLISHED)
def test_published_models_have_their_published_size(source: str) -> None:
    config, parameters, _ = PUBLISHED[source]
    assert estimated(config) == parameters


SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("model_type", "more"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 16}),
        ("mistral", {}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("qwen3", {"head_dim": 16, "attention_bias": True}),
        ("gemma3_text", {"head_dim": 16}),
        ("phi3", {}),
        ("smollm3", {}),
        ("olmo2", {}),
        ("granite", {}),
        ("qwen3_moe", {"head_dim": 16, "num_experts": 4, "moe_intermediate_size": 24, "mlp_only_layers": [1]}),
    ],
)
def test_the_formula_counts_what_transformers_makes(model_type: str, more: dict[str, Any], tied: bool) -> None:
    import torch
    import transformers

    settings = transformers.AutoConfig.for_model(model_type, **SMALL, **more, tie_word_embeddings=tied)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(settings)
    assert estimated(settings.to_dict()) == sum(parameter.numel() for parameter in model.parameters())


def test_what_a_class_has_as_a_default_may_be_missing() -> None:
    """The published gemma-3-4b-it names neither heads nor vocabulary.

    Its language model has 3,880,099,328 parameters with a vocabulary of 262,144; the weights hold 64 rows more.
    """
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "model_type": "gemma3_text"}
    assert estimated({"model_type": "gemma3", "text_config": text}) == 3_880_099_328 + 64 * 2560


def test_an_unusual_config_names_what_it_lacks() -> None:
    with pytest.raises(ModelError, match=r"cannot be computed from config\.json: KeyError\('hidden_size'\)"):
        estimated({"model_type": "gpt2", "n_embd": 768})


@pytest.mark.parametrize("tie", [True, False])
def test_weights_are_counted_as_the_formula_says(tmp_path: Path, tie: bool) -> None:
    model = ModelDirectory.open(tiny.tiny_qwen3(tmp_path / "model", tie=tie))
    assert counted(model.checkpoint(), model.config) == estimated(model.config)


@pytest.mark.parametrize("settings", [{"bits": 3}, {"bits": 4}, {"bits": 8}, {"mode": "mxfp4"}, {"mode": "mxfp8"}])
def test_packed_weights_count_as_what_they_stand_for(
    tmp_path: Path, tiny_model: Path, settings: dict[str, Any]
) -> None:
    original = Checkpoint.open(tiny_model)
    parameters = sum(int(np.prod(original.shape(name))) for name in original.names)
    settings = {"bits": 8 if settings.get("mode") == "mxfp8" else 4, **settings}
    packed = Checkpoint.open(tiny.quantized(tiny_model, tmp_path / "packed", **settings))
    assert any(packed.dtype(name) == "U32" for name in packed.names)
    assert counted(packed, {"model_type": "llama", "tie_word_embeddings": True}) == parameters


def test_tied_weights_count_once_and_buffers_not_at_all(tmp_path: Path) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (8, 4),
        "lm_head.weight": (8, 4),
        "model.layers.0.self_attn.rotary_emb.inv_freq": (2,),
    }
    write_checkpoint(tmp_path / "model.safetensors", shapes, lambda name: np.zeros(shapes[name], dtype=np.float32))
    checkpoint = Checkpoint.open(tmp_path)
    assert counted(checkpoint, {"model_type": "llama", "tie_word_embeddings": True}) == 32
    assert counted(checkpoint, {"model_type": "llama"}) == 64


@pytest.mark.parametrize(
    ("config", "bits"),
    [
        ({}, None),
        ({"quantization": {"group_size": 64, "bits": 6}}, 6),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, 4),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, 4),
        ({"quantization_config": {"quant_method": "mxfp4"}}, 4),
        ({"quantization_config": {"quant_method": "fp8"}}, 8),
    ],
)
def test_bits_of_a_quantized_weight(config: dict[str, Any], bits: int | None) -> None:
    assert quantized_bits(config) == bits
