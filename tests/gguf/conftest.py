"""Tiny models, made once for all tests of the file format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a model of BUILDERS, built at the first call."""
    root = tmp_path_factory.mktemp("tiny")

    def build(name: str) -> Path:
        directory = root / name
        return directory if directory.exists() else BUILDERS[name](directory)

    return build
