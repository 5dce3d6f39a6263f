"""Families in which some layers see only the last tokens: Gemma 2, Gemma 3, Cohere 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from chrysalis_mlx.gguf.architectures.family import Family, Value


class Windowed(Family):
    """Sliding and full attention in turn.

    Attributes:
        sliding: for every layer, whether a window limits it.
    """

    pattern: ClassVar[int]
    """Every so many layers one sees the whole text, in llama.cpp and in the Hugging Face class."""

    def _read(self, config: Mapping[str, Any]) -> None:
        super()._read(config)
        every = int(config.get("sliding_window_pattern") or self.pattern)
        kinds = config.get("layer_types") or [
            "sliding_attention" if (layer + 1) % every else "full_attention" for layer in range(self.layers)
        ]
        self.sliding = [kind == "sliding_attention" for kind in kinds[: self.layers]]

    def keys(self) -> dict[str, Value]:
        """With the window; which layers it limits is said only where llama.cpp does not take it so by itself.

        Older readers do not know that key, and read all published models right without it.
        """
        found = super().keys()
        if any(self.sliding):
            found["attention.sliding_window"] = int(self.config["sliding_window"])
        if self.sliding != [bool((layer + 1) % self.pattern) for layer in range(self.layers)]:
            found["attention.sliding_window_pattern"] = self.sliding
        return found

    def _check_window(self) -> None:
        kinds = set(self.config.get("layer_types") or ())
        if strange := kinds - {"full_attention", "sliding_attention"}:
            self.uncovered("layer_types", ", ".join(sorted(strange)))
        window = self.config.get("sliding_window")
        if any(self.sliding) and not window:
            self.uncovered("sliding_window", window)
