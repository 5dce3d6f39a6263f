"""Qwen2 and Qwen2.5: biases on q, k and v."""

from __future__ import annotations

from dataclasses import replace

from chrysalis_mlx.gguf.architectures.family import Family, Module


class Qwen2(Family):
    classes = ("Qwen2ForCausalLM",)
    model_type = "qwen2"
    gguf = "qwen2"
    use_window = False

    @property
    def wide(self) -> bool:
        return self.layers == 80

    def attention(self) -> dict[str, Module]:
        found = super().attention()
        return {name: replace(module, bias=not name.endswith("o_proj")) for name, module in found.items()}
