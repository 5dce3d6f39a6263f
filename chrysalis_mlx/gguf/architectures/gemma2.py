"""Gemma 2: norms before and after each block, both soft-caps, every other layer behind a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from chrysalis_mlx.gguf.architectures.family import Module, Value
from chrysalis_mlx.gguf.architectures.windowed import Windowed

_SOFTCAPS = ("attn_logit_softcapping", "final_logit_softcapping")  # so called in config.json and in GGUF


class Gemma2(Windowed):
    classes = ("Gemma2ForCausalLM",)
    model_type = "gemma2"
    gguf = "gemma2"
    norm_offset = 1.0
    activations = ("gelu_pytorch_tanh",)
    always_tied = True
    pattern = 2
    defaults: ClassVar[Mapping[str, Any]] = {
        "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "tie_word_embeddings": True,
    }  # fmt: skip
    layers_of_27b = 46

    def norms(self) -> dict[str, Module]:
        wide = (self.hidden,)
        return {
            "input_layernorm": Module("attn_norm", wide),
            "post_attention_layernorm": Module("post_attention_norm", wide),
            "pre_feedforward_layernorm": Module("ffn_norm", wide),
            "post_feedforward_layernorm": Module("post_ffw_norm", wide),
        }

    def keys(self) -> dict[str, Value]:
        found = super().keys()
        for key in _SOFTCAPS:
            if self.config.get(key):
                found[key] = float(self.config[key])
        return found

    def _check_covered(self) -> None:
        super()._check_covered()
        self._check_softcaps()
        # No key holds the attention's scale: llama.cpp takes it from the sizes, and tells 27B by its layers.
        scalar = self.hidden // self.heads if self.layers == self.layers_of_27b else self.head_dim
        if self.config["query_pre_attn_scalar"] != scalar:
            self.uncovered("query_pre_attn_scalar", f"{self.config['query_pre_attn_scalar']}, only {scalar}")
        if self.config.get("use_bidirectional_attention"):
            self.uncovered("use_bidirectional_attention", True)

    def _check_softcaps(self) -> None:
        for key in _SOFTCAPS:
            if not self.config.get(key):
                self.uncovered(key, self.config.get(key))
