"""OLMo 2: norms after the blocks instead of before, and over all heads of q and k."""

from __future__ import annotations

from dataclasses import replace

from chrysalis_mlx.gguf.architectures.family import EMBEDDING, Family, Module
from chrysalis_mlx.gguf.architectures.tensor import Tensor
from chrysalis_mlx.gguf.quantize import Traits


class Olmo2(Family):
    classes = ("Olmo2ForCausalLM",)
    model_type = "olmo2"
    gguf = "olmo2"
    whole_heads = True

    def norms(self) -> dict[str, Module]:
        wide = (self.hidden,)
        return {
            "post_attention_layernorm": Module("post_attention_norm", wide),
            "post_feedforward_layernorm": Module("post_ffw_norm", wide),
            "self_attn.q_norm": Module("attn_q_norm", (self.heads * self.head_dim,)),
            "self_attn.k_norm": Module("attn_k_norm", (self.kv_heads * self.head_dim,)),
        }

    @property
    def traits(self) -> Traits:
        return replace(super().traits, tied=False)

    def output(self) -> list[Tensor]:
        """llama.cpp wants a head of its own here; a tied model gets a copy of its embedding."""
        source = EMBEDDING if self.tied else "lm_head.weight"
        return [Tensor.of("output.weight", (self.vocab, self.hidden), source)]
