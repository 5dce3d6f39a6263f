"""SmolLM3: a llama whose every fourth layer has no rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from chrysalis_mlx.gguf.architectures.family import Family

_EVERY = 4  # fixed in llama.cpp: no key of a GGUF says it


class SmolLM3(Family):
    classes = ("SmolLM3ForCausalLM",)
    model_type = "smollm3"
    gguf = "smollm3"
    permuted = True
    use_window = False
    defaults: ClassVar[Mapping[str, Any]] = {"no_rope_layer_interval": _EVERY}

    def _check_covered(self) -> None:
        super()._check_covered()
        interval = int(self.config["no_rope_layer_interval"])
        listed = self.config.get("no_rope_layers")
        rotary = [bool(layer) for layer in listed] if listed else self._rotary_layers(interval)
        if rotary[: self.layers] != self._rotary_layers(_EVERY):
            self.uncovered(*(("no_rope_layers", listed) if listed else ("no_rope_layer_interval", interval)))

    def _rotary_layers(self, interval: int) -> list[bool]:
        return [(layer + 1) % interval != 0 for layer in range(self.layers)]
