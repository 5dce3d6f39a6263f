"""Qwen3: norms over the heads of q and k."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from chrysalis_mlx.gguf.architectures.family import Family, Module


class Qwen3(Family):
    classes = ("Qwen3ForCausalLM",)
    model_type = "qwen3"
    gguf = "qwen3"
    use_window = False
    defaults: ClassVar[Mapping[str, Any]] = {"head_dim": 128}

    def norms(self) -> dict[str, Module]:
        one = (self.head_dim,)
        of_heads = {
            "self_attn.q_norm": Module("attn_q_norm", one),
            "self_attn.k_norm": Module("attn_k_norm", one),
        }
        return {**super().norms(), **of_heads}
