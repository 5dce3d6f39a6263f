"""A float GGUF in real llama.cpp gives the distribution that transformers gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from chrysalis_mlx.export.llamacpp import LlamaServer
from tests.gguf.conftest import BUILDERS
from tests.gguf.parity import TOKENS, export, llamacpp_logprobs, transformers_logprobs


@pytest.mark.parametrize("name", list(BUILDERS))
def test_float32_distributions_are_those_of_transformers(
    model_directory: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    directory = model_directory(name)
    written = export(directory, tmp_path / "model.gguf")
    with LlamaServer(written.path, context=64, threads=1, precise=True) as server:
        ours = llamacpp_logprobs(server, TOKENS, 512)
        assert server.log() == ""
    expected = transformers_logprobs(directory, TOKENS)
    assert expected.std() > 0.5  # a flat distribution would forgive a wrong rule
    np.testing.assert_allclose(ours, expected, atol=2e-4)
    assert written.bits_per_weight == 32


@pytest.mark.parametrize(("type_name", "divergence"), [("F16", 1e-5), ("BF16", 1e-3), ("Q8_0", 1e-2)])
def test_smaller_types_stay_close(
    model_directory: Callable[[str], Path], tmp_path: Path, type_name: str, divergence: float
) -> None:
    directory = model_directory("llama-bias")
    with LlamaServer(export(directory, tmp_path / "model.gguf", type_name).path, context=64, precise=True) as server:
        ours = llamacpp_logprobs(server, TOKENS, 512)
    expected = transformers_logprobs(directory, TOKENS)
    kl = (np.exp(expected) * (expected - ours)).sum(axis=1)
    assert 0 <= kl.mean() < divergence


def test_a_wrong_row_order_would_be_seen(
    model_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = model_directory("llama")
    monkeypatch.setattr("chrysalis_mlx.gguf.hyperparameters.permute", lambda values, heads: values)
    with LlamaServer(export(directory, tmp_path / "model.gguf").path, context=64, precise=True) as server:
        ours = llamacpp_logprobs(server, TOKENS, 512)
    assert np.abs(ours - transformers_logprobs(directory, TOKENS)).max() > 0.05
