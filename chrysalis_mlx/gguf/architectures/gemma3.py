"""Gemma 3, text: norms of q and k, five layers behind a window for one without, each kind with its own rotary base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from chrysalis_mlx.gguf.architectures.family import Module, Value
from chrysalis_mlx.gguf.architectures.gemma2 import Gemma2
from chrysalis_mlx.gguf.rope import rope_of_layers, rope_type

_LOCAL_BASE = 10000.0  # what llama.cpp takes for layers behind a window


class Gemma3(Gemma2):
    classes = ("Gemma3ForCausalLM",)
    model_type = "gemma3_text"
    gguf = "gemma3"
    always_tied = False
    pattern = 6
    rope_types = ("default", "linear")
    defaults: ClassVar[Mapping[str, Any]] = {
        "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096, "rope_theta": 1e6,
        "rope_local_base_freq": _LOCAL_BASE,
    }  # fmt: skip
    layers_of_27b = 62

    def _read(self, config: Mapping[str, Any]) -> None:
        super()._read(config)
        self.local = rope_of_layers(config, "sliding_attention") or {}
        self.local_theta = float(self.local.get("rope_theta") or config["rope_local_base_freq"])

    def norms(self) -> dict[str, Module]:
        one = (self.head_dim,)
        of_heads = {"self_attn.q_norm": Module("attn_q_norm", one), "self_attn.k_norm": Module("attn_k_norm", one)}
        return {**super().norms(), **of_heads}

    def keys(self) -> dict[str, Value]:
        found = super().keys()
        if self.local_theta != _LOCAL_BASE:
            found["rope.freq_base_swa"] = self.local_theta
        if rope_type(self.rope) == "linear":  # of the full attention alone, there and here
            found |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(self.rope["factor"])}
        return found

    def _check_softcaps(self) -> None:
        if self.config.get("attn_logit_softcapping"):
            self.uncovered("attn_logit_softcapping", self.config["attn_logit_softcapping"])

    def _check_rotary(self) -> None:
        super()._check_rotary()
        if rope_type(self.local) != "default":
            self.uncovered("rope_parameters.sliding_attention", rope_type(self.local))
