"""Phi 3, Phi 3.5 and Phi 4: q, k and v in one matrix, gate and up in another, LongRoPE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chrysalis_mlx.gguf.architectures.family import Family, Module, Value
from chrysalis_mlx.gguf.architectures.tensor import Tensor
from chrysalis_mlx.gguf.rope import LONGROPE, longrope


class Phi3(Family):
    """llama.cpp has switched the sliding window of this architecture off.

    So the context ends where the window would begin to act: Phi 3's 4k models have one of 2,047 tokens.
    """

    classes = ("Phi3ForCausalLM",)
    model_type = "phi3"
    gguf = "phi3"
    whole_heads = True
    rope_types = ("default", *LONGROPE)

    def _read(self, config: Mapping[str, Any]) -> None:
        super()._read(config)
        factor = self.rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
        self.rotary = int(self.head_dim * factor)
        self.longrope = longrope(config)
        self.context = min(self.context, int(config.get("sliding_window") or self.context))

    def keys(self) -> dict[str, Value]:
        # Older readers want the key, and 0 is the only value that switches a window off in all of them.
        found = {**super().keys(), "attention.sliding_window": 0}
        if self.longrope is not None:
            found["rope.scaling.original_context_length"] = self.longrope.original
            found["rope.scaling.attn_factor"] = self.longrope.attention
        return found

    def attention(self) -> dict[str, Module]:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "self_attn.qkv_proj": Module("attn_qkv", (q + 2 * kv, self.hidden)),
            "self_attn.o_proj": Module("attn_output", (self.hidden, q)),
        }

    def mlp(self) -> dict[str, Module]:
        return {
            "mlp.gate_up_proj": Module("ffn_up", (2 * self.intermediate, self.hidden)),
            "mlp.down_proj": Module("ffn_down", (self.hidden, self.intermediate)),
        }

    def computed(self) -> list[Tensor]:
        """Both sets of divisors, (rotary / 2,); llama.cpp takes the long one for a context beyond the original."""
        if self.longrope is None:
            return []
        sets = {"rope_factors_long.weight": self.longrope.long, "rope_factors_short.weight": self.longrope.short}
        return [Tensor(name, values.shape, values=values) for name, values in sets.items()]

    def _check_rotary(self) -> None:
        for values in (self.longrope.short, self.longrope.long) if self.longrope else ():
            if values.shape != (self.rotary // 2,):
                self.uncovered("rope_scaling", f"{values.size} factors for {self.rotary} rotary dimensions")
