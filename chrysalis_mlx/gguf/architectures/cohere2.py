"""Cohere 2 (Command R7B): attention and MLP side by side behind one layer norm, scaled logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from chrysalis_mlx.gguf.architectures.family import Module, Value
from chrysalis_mlx.gguf.architectures.windowed import Windowed


class Cohere2(Windowed):
    """Layers behind a window have rotary positions, the others none, and neighbouring numbers are rotated together.

    llama.cpp does both the same way, so no row changes its place.
    """

    classes = ("Cohere2ForCausalLM",)
    model_type = "cohere2"
    gguf = "cohere2"
    epsilon = ("layer_norm_eps", "attention.layer_norm_epsilon")
    whole_heads = True
    always_tied = True
    pattern = 4
    defaults: ClassVar[Mapping[str, Any]] = {"tie_word_embeddings": True, "logit_scale": 0.0625, "sliding_window": 4096}

    def norms(self) -> dict[str, Module]:
        return {"input_layernorm": Module("attn_norm", (self.hidden,))}

    def keys(self) -> dict[str, Value]:
        return {**super().keys(), "logit_scale": float(self.config["logit_scale"])}

    def _check_covered(self) -> None:
        super()._check_covered()
        # llama.cpp needs the window's key, takes a scale of 0 for none, and knows no norms of q and k.
        for key, wrong in (("sliding_window", not any(self.sliding)), ("logit_scale", not self.config["logit_scale"])):
            if wrong:
                self.uncovered(key, self.config.get(key))
        if self.config.get("use_qk_norm"):
            self.uncovered("use_qk_norm", True)
