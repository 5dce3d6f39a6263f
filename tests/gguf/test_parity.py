"""A float GGUF in real llama.cpp gives the distribution that transformers gives, with an adapter merged too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from chrysalis_mlx.gguf.architectures import FAMILIES, Family
from chrysalis_mlx.gguf.architectures.cohere2 import Cohere2
from chrysalis_mlx.gguf.architectures.gemma2 import Gemma2
from chrysalis_mlx.gguf.architectures.gemma3 import Gemma3
from chrysalis_mlx.gguf.architectures.granite import Granite
from chrysalis_mlx.gguf.architectures.llama import Llama, Mistral
from chrysalis_mlx.gguf.architectures.olmo2 import Olmo2
from chrysalis_mlx.gguf.architectures.phi3 import Phi3
from chrysalis_mlx.gguf.architectures.qwen2 import Qwen2
from chrysalis_mlx.gguf.architectures.qwen3 import Qwen3
from chrysalis_mlx.gguf.architectures.qwen3_moe import Qwen3Moe
from chrysalis_mlx.gguf.architectures.smollm3 import SmolLM3
from chrysalis_mlx.llamacpp.server import LlamaServer
from tests.gguf.conftest import EXPORTED
from tests.gguf.parity import (
    LONG,
    adapted_logprobs,
    export,
    llamacpp_logprobs,
    trained_adapter,
    transformers_logprobs,
)

DORA = ("llama-bias", "qwen3", "gemma2", "phi3-long", "granite-bias")
Array = npt.NDArray[np.float64]
Break = Callable[[pytest.MonkeyPatch], None]


def divergence(expected: Array, ours: Array) -> Array:
    """(T,) KL in nats."""
    result: Array = (np.exp(expected) * (expected - ours)).sum(axis=1)
    return result


def in_llamacpp(path: Path) -> Array:
    """(T, vocabulary) log probabilities of the next token after LONG, without a word of warning."""
    with LlamaServer(path, context=64, threads=1, precise=True) as server:
        found = llamacpp_logprobs(server, LONG, 512)
        assert server.log() == ""
    return found


@pytest.mark.parametrize("name", list(EXPORTED))
def test_the_adapted_model_has_the_distributions_of_transformers(
    model_directory: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    directory = model_directory(name)
    kind: Literal["lora", "dora"] = "dora" if name in DORA else "lora"
    adapter = trained_adapter(directory, kind)
    written = export(directory, tmp_path / "model.gguf", adapter=adapter)
    ours = in_llamacpp(written.path)
    expected = adapted_logprobs(directory, adapter, LONG, tmp_path / "peft")
    assert expected.std() > 0.4  # a flat distribution would forgive a wrong rule
    assert np.abs(expected - transformers_logprobs(directory, LONG)).max() > 0.3  # and an idle adapter a lost one
    assert np.abs(divergence(expected, ours)).max() <= 1e-5
    if name.startswith("gemma"):
        # On processors llama.cpp looks GELU up in a table of float16, and 1e-3 holds against that.
        assert np.abs(ours - expected).max() <= 4e-3
        expected = adapted_logprobs(directory, adapter, LONG, tmp_path / "peft", gelu_table=True)
        assert np.abs(ours - expected).max() <= 1e-3
    else:
        assert np.abs(ours - expected).max() <= 1e-4
    assert written.bits_per_weight == 32


@pytest.mark.parametrize(("type_name", "limit"), [("F16", 1e-5), ("BF16", 1e-3), ("Q8_0", 1e-2)])
def test_smaller_types_stay_close(
    model_directory: Callable[[str], Path], tmp_path: Path, type_name: str, limit: float
) -> None:
    directory = model_directory("llama-bias")
    ours = in_llamacpp(export(directory, tmp_path / "model.gguf", type_name).path)
    assert 0 <= divergence(transformers_logprobs(directory, LONG), ours).mean() < limit


def attribute(family: type[Family], name: str, value: Any) -> Break:
    """Another value of a rule."""
    return lambda patch: patch.setattr(family, name, value)


def key(family: type[Family], name: str, value: Any = None) -> Break:
    """Another value of a key, or none."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        right = family.keys

        def keys(self: Family) -> dict[str, Any]:
            found = right(self)
            assert name in found
            return {k: v for k, v in {**found, name: value}.items() if v is not None}

        patch.setattr(family, "keys", keys)

    return apply


def swap(family: type[Family], method: str, first: str, second: str) -> Break:
    """Two modules of the same shape exchanged."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        right = getattr(family, method)

        def modules(self: Family) -> dict[str, Any]:
            found = right(self)
            assert found[first].shape == found[second].shape
            return {**found, first: found[second], second: found[first]}

        patch.setattr(family, method, modules)

    return apply


WRONG: dict[str, tuple[str, Break]] = {
    "llama-rows": ("llama", attribute(Llama, "permuted", False)),
    "llama-scaling": ("llama3-rope", attribute(Llama, "computed", lambda self: [])),
    "llama-gate": ("llama", swap(Llama, "mlp", "mlp.gate_proj", "mlp.up_proj")),
    "mistral-rows": ("mistral-head-dim", attribute(Mistral, "permuted", False)),
    "qwen2-rows": ("qwen2", attribute(Qwen2, "permuted", True)),
    "qwen3-norms": ("qwen3", swap(Qwen3, "norms", "self_attn.q_norm", "self_attn.k_norm")),
    "qwen3-rows": ("qwen3", attribute(Qwen3, "permuted", True)),
    "qwen3-moe-used": ("qwen3-moe", key(Qwen3Moe, "expert_used_count", 1)),
    "qwen3-moe-rows": ("qwen3-moe", attribute(Qwen3Moe, "permuted", True)),
    "gemma2-offset": ("gemma2", attribute(Gemma2, "norm_offset", 0.0)),
    "gemma2-window": ("gemma2", key(Gemma2, "attention.sliding_window")),
    "gemma2-pattern": ("gemma2-pattern", key(Gemma2, "attention.sliding_window_pattern")),
    "gemma2-attention-cap": ("gemma2", key(Gemma2, "attn_logit_softcapping")),
    "gemma2-final-cap": ("gemma2", key(Gemma2, "final_logit_softcapping", 1.0)),
    "gemma2-norms": ("gemma2", swap(Gemma2, "norms", "post_attention_layernorm", "pre_feedforward_layernorm")),
    "gemma3-offset": ("gemma3", attribute(Gemma3, "norm_offset", 0.0)),
    "gemma3-window": ("gemma3", key(Gemma3, "attention.sliding_window", 7)),
    "gemma3-pattern": ("gemma3-pattern", key(Gemma3, "attention.sliding_window_pattern")),
    "gemma3-global-base": ("gemma3", key(Gemma3, "rope.freq_base", 1e4)),
    "gemma3-local-base": ("gemma3-linear", key(Gemma3, "rope.freq_base_swa")),
    "gemma3-linear": ("gemma3-linear", key(Gemma3, "rope.scaling.factor")),
    "phi3-partial": ("phi3-partial", key(Phi3, "rope.dimension_count", 16)),
    "phi3-attention": ("phi3-long", key(Phi3, "rope.scaling.attn_factor")),
    "phi3-long": ("phi3-long", key(Phi3, "rope.scaling.original_context_length")),
    "phi3-short": ("phi3-short", key(Phi3, "rope.scaling.original_context_length", 100)),
    "olmo2-norms": ("olmo2", swap(Olmo2, "norms", "post_attention_layernorm", "post_feedforward_layernorm")),
    "olmo2-rows": ("olmo2", attribute(Olmo2, "permuted", True)),
    "granite-attention": ("granite", key(Granite, "attention.scale")),
    "granite-embedding": ("granite", key(Granite, "embedding_scale")),
    "granite-residual": ("granite", key(Granite, "residual_scale")),
    "granite-logits": ("granite", key(Granite, "logit_scale", 1.0)),
    "granite-rows": ("granite", attribute(Granite, "permuted", False)),
    "smollm3-rows": ("smollm3", attribute(SmolLM3, "permuted", False)),
    "cohere2-rows": ("cohere2", attribute(Cohere2, "permuted", True)),
    "cohere2-window": ("cohere2", key(Cohere2, "attention.sliding_window", 64)),
    "cohere2-pattern": ("cohere2-pattern", key(Cohere2, "attention.sliding_window_pattern")),
    "cohere2-logits": ("cohere2", key(Cohere2, "logit_scale", 1.0)),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_rule_would_be_seen(
    model_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model, apply = WRONG[name]
    directory = model_directory(model)
    apply(monkeypatch)
    ours = in_llamacpp(export(directory, tmp_path / "model.gguf").path)
    assert np.abs(ours - transformers_logprobs(directory, LONG)).max() > 0.02, "twenty times what is allowed"


def test_every_family_is_proved_and_broken() -> None:
    for family in FAMILIES:
        stem = family.model_type.removesuffix("_text").replace("_", "-")
        assert any(name.startswith(stem) for name in EXPORTED), stem
        assert any(name.startswith(stem) for name in WRONG), stem
