"""Granite 3 and 4 (dense): a llama with four scales."""

from __future__ import annotations

from chrysalis_mlx.gguf.architectures.family import Family, Value

_SCALES = {
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}


class Granite(Family):
    classes = ("GraniteForCausalLM",)
    model_type = "granite"
    gguf = "granite"
    permuted = True
    bias_keys = ("attention_bias", "mlp_bias")
    defaults = dict.fromkeys(_SCALES, 1.0)

    def keys(self) -> dict[str, Value]:
        return {**super().keys(), **{stored: float(self.config[key]) for key, stored in _SCALES.items()}}

    def _check_covered(self) -> None:
        super()._check_covered()
        for key in _SCALES:
            if not self.config[key]:  # llama.cpp takes 0 for "not scaled"
                self.uncovered(key, self.config[key])
        if self.config.get("position_embedding_type", "rope") != "rope":
            self.uncovered("position_embedding_type", self.config["position_embedding_type"])
