"""Llama 2, Llama 3 (with its rotary scaling), SmolLM2, TinyLlama and Mistral."""

from __future__ import annotations

from typing import ClassVar

from chrysalis_mlx.gguf.architectures.family import Family
from chrysalis_mlx.gguf.architectures.tensor import Tensor
from chrysalis_mlx.gguf.rope import ROPE_FREQS, llama3_factors, llama3_scaling


class Llama(Family):
    classes = ("LlamaForCausalLM",)
    model_type = "llama"
    gguf = "llama"
    permuted = True
    rope_types: ClassVar[tuple[str, ...]] = ("default", "llama3")
    bias_keys: ClassVar[tuple[str, ...]] = ("attention_bias", "mlp_bias")

    @property
    def wide(self) -> bool:
        return self.layers == 80 and self.heads != self.kv_heads

    def computed(self) -> list[Tensor]:
        """Llama 3's scaling as divisors of the rotary frequencies, (head_dim / 2,)."""
        scaling = llama3_scaling(self.config)
        if scaling is None:
            return []
        factors = llama3_factors(self.head_dim, self.rope_theta, dict(scaling))
        return [Tensor(ROPE_FREQS, factors.shape, values=factors)]


class Mistral(Llama):
    classes = ("MistralForCausalLM",)
    model_type = "mistral"
    rope_types = ("default",)
    bias_keys = ()
