"""Tiny models, made once for all tests of the file format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.models.checkpoint import Checkpoint, write_checkpoint
from tests import tiny

Build = Callable[[Path], Path]

BUILDERS: dict[str, Build] = {
    "llama": tiny.tiny_llama,
    "llama-bias": lambda path: tiny.tiny_llama(path, bias=True, seed=1),
    "llama-untied": lambda path: tiny.tiny_llama(path, tie=False, seed=2),
    "llama-head-dim": lambda path: tiny.tiny_llama(path, head_dim=32, rope_theta=500000.0, seed=3),
    "llama3-rope": lambda path: tiny.tiny_llama(
        path,
        head_dim=32,
        pre="llama-bpe",
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        seed=4,
    ),
    "mistral": tiny.tiny_mistral,
    "qwen2": lambda path: tiny.tiny_qwen2(path, seed=5),
    "qwen3": lambda path: tiny.tiny_qwen3(path, seed=6),
    "qwen3-untied": lambda path: tiny.tiny_qwen3(path, tie=False, seed=7),
}

"""What can be exported and imported."""

_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
    "long_factor": [1.0, 1.5, 2.5, 4.0, 6.0, 9.0, 13.0, 20.0],
}


def quiet(directory: Path, scale: float = 0.3) -> Path:
    """Gemma with smaller embeddings: llama.cpp's GELU errs by some 1e-4 of a value, and our limits are absolute."""
    base = Checkpoint.open(directory)
    tensors = {name: base.read(name) for name in base.names}
    tensors["model.embed_tokens.weight"] *= scale
    shapes = {name: values.shape for name, values in tensors.items()}
    write_checkpoint(directory / "model.safetensors", shapes, tensors.__getitem__)
    return directory


def gemma2(path: Path, **config: Any) -> Path:
    return quiet(tiny.tiny_gemma2(path, **{"query_pre_attn_scalar": 16, **config}))


def gemma3(path: Path, **config: Any) -> Path:
    return quiet(tiny.tiny_gemma3(path, **{"query_pre_attn_scalar": 16, **config}))


def edited(directory: Path, **keys: Any) -> Path:
    """Other keys in config.json."""
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | keys), encoding="utf-8")
    return directory


EXPORTED: dict[str, Build] = {
    **BUILDERS,
    "mistral-head-dim": lambda path: tiny.tiny_mistral(path, head_dim=32, pre="smollm", seed=8),
    "qwen2-untied": lambda path: tiny.tiny_qwen2(path, tie=False, seed=9),
    "qwen3-moe": lambda path: tiny.tiny_qwen3_moe(path, seed=10),
    "gemma2": lambda path: gemma2(path, seed=11),
    "gemma2-27b": lambda path: quiet(gemma2(path, layers=46, head_dim=32, seed=11), 0.6),
    "gemma2-pattern": lambda path: gemma2(
        path, layers=3, layer_types=["full_attention", "sliding_attention", "sliding_attention"], seed=12
    ),
    "gemma3": lambda path: gemma3(path, layers=7, sliding_window_pattern=6, seed=13),
    "gemma3-pattern": lambda path: gemma3(path, seed=14),
    "gemma3-linear": lambda path: edited(
        gemma3(path, seed=15), rope_scaling={"factor": 8.0, "rope_type": "linear"}, rope_local_base_freq=3e4
    ),
    "gemma3-untied": lambda path: gemma3(path, tie_word_embeddings=False, seed=16),
    "phi3": lambda path: tiny.tiny_phi3(path, seed=17),
    "phi3-tied": lambda path: tiny.tiny_phi3(path, tie_word_embeddings=True, seed=18),
    "phi3-partial": lambda path: tiny.tiny_phi3(
        path, rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}, seed=19
    ),
    "phi3-long": lambda path: tiny.tiny_phi3(
        path, rope_parameters=dict(_LONGROPE), original_max_position_embeddings=32, seed=20
    ),
    "phi3-short": lambda path: tiny.tiny_phi3(
        path, rope_parameters=dict(_LONGROPE), original_max_position_embeddings=300, seed=20
    ),
    "phi3-window": lambda path: tiny.tiny_phi3(path, sliding_window=300, seed=21),
    "olmo2": lambda path: tiny.tiny_olmo2(path, seed=22),
    "olmo2-tied": lambda path: tiny.tiny_olmo2(path, tie_word_embeddings=True, seed=23),
    "granite": lambda path: tiny.tiny_granite(path, residual_multiplier=0.7, logits_scaling=0.8, seed=24),
    "granite-bias": lambda path: tiny.tiny_granite(
        path, attention_bias=True, mlp_bias=True, tie_word_embeddings=False, logits_scaling=0.8, seed=25
    ),
    "smollm3": lambda path: tiny.tiny_smollm3(path, seed=26),
    "smollm3-untied": lambda path: tiny.tiny_smollm3(path, tie_word_embeddings=False, seed=27),
    "cohere2": lambda path: tiny.tiny_cohere2(path, seed=28),
    "cohere2-pattern": lambda path: tiny.tiny_cohere2(
        path, layers=2, layer_types=["full_attention", "sliding_attention"], seed=29
    ),
}
"""Every family, with what it may have: biases, windows, scalings, an output head of its own."""


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a model of EXPORTED, built at the first call."""
    root = tmp_path_factory.mktemp("tiny")

    def build(name: str) -> Path:
        directory = root / name
        return directory if directory.exists() else EXPORTED[name](directory)

    return build
