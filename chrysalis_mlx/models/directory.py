"""A Hugging Face model directory: its configuration and what lies in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.checkpoint import Checkpoint
from chrysalis_mlx.models.parameters import BUFFERS
from chrysalis_mlx.models.quantized import check_quantization
from chrysalis_mlx.models.tokenizer import TOKENIZER_FILES, Tokenizer
from chrysalis_mlx.run import sha256_file

_SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja")
_IN_A_LAYER = re.compile(r"model\.layers\.(\d+)\.")


@dataclass(frozen=True)
class ModelDirectory:
    """A directory with config.json, safetensors weights and a tokenizer.

    Attributes:
        path: the directory.
        config: the content of config.json.
    """

    path: Path
    config: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> ModelDirectory:
        """Read the configuration and see that weights and tokenizer are there.

        Raises:
            ModelError: something is missing or unreadable, or quantized in a way that is not read here; it names what.
        """
        config_file = path / "config.json"
        if not config_file.is_file():
            raise ModelError(
                "the model directory has no config.json", where=path, fix="give a complete Hugging Face directory"
            )
        try:
            config = json.loads(config_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError("config.json is not valid JSON", where=f"{config_file}: {error}") from error
        if not isinstance(config, dict):
            raise ModelError("config.json is not a JSON object", where=config_file)
        if not any((path / name).is_file() for name in TOKENIZER_FILES):
            raise ModelError(
                "the model directory has no tokenizer",
                where=path,
                fix=f"it needs one of {', '.join(TOKENIZER_FILES)}; copy it from the model's original repository",
            )
        check_quantization(config, config_file)
        directory = cls(path, config)
        directory.checkpoint()  # missing or damaged weights are found now, not after the corpus is made
        return directory

    @property
    def architecture(self) -> str:
        """The class name in config.json, for instance LlamaForCausalLM."""
        names = self.config.get("architectures") or ["(none named)"]
        return str(names[0])

    @property
    def context_length(self) -> int:
        """Positions the model was made for, in tokens."""
        return int(self.config.get("max_position_embeddings", 2048))

    def checkpoint(self) -> Checkpoint:
        return Checkpoint.open(self.path)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.open(self.path)

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """The content of generation_config.json; empty without one.

        Raises:
            ModelError: it is not valid JSON.
        """
        file = self.path / "generation_config.json"
        try:
            content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        except ValueError as error:
            raise ModelError(f"generation_config.json is not valid JSON: {error}", where=file) from error
        return content if isinstance(content, dict) else {}

    @property
    def is_quantized(self) -> bool:
        """Whether mlx-lm packed its weights."""
        return bool(self.config.get("quantization"))

    @property
    def plain_config(self) -> dict[str, Any]:
        """The content of config.json without how weights are packed, which those that `checkpoint` reads are not."""
        return {key: value for key, value in self.config.items() if key not in ("quantization", "quantization_config")}

    def layer_linears(self) -> dict[str, tuple[int, int]]:
        """Every linear layer inside the transformer layers: module name to (out, in), in layer order."""
        shapes = self._layer_shapes()
        linears = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight")}
        return {name: (shape[0], shape[1]) for name, shape in linears.items() if len(shape) == 2}

    @property
    def layer_count(self) -> int:
        """How many transformer layers it has."""
        return len({name.split(".")[2] for name in self.layer_linears()})

    def layer_weights(self) -> dict[str, tuple[int, ...]]:
        """Every weight inside the transformer layers, norms and biases too: name to shape, in layer order.

        Raises:
            ModelError: the model is quantized, and packed weights cannot be trained.
        """
        if self.is_quantized:
            raise ModelError(
                "full fine-tuning needs the unquantized model",
                where=self.path / "config.json",
                fix="train an adapter (adapter.kind: lora or dora), or take the original model",
            )
        return self._layer_shapes()

    def _layer_shapes(self) -> dict[str, tuple[int, ...]]:
        checkpoint = self.checkpoint()
        found = []
        for name in checkpoint.names:
            match = _IN_A_LAYER.match(name)
            if match and not name.endswith(BUFFERS):
                found.append((int(match[1]), name, checkpoint.shape(name)))
        return {name: shape for _, name, shape in sorted(found)}

    def hashes(self) -> dict[str, str]:
        """sha256 of every file that decides what the model computes, by file name."""
        files = [self.path / name for name in (*_SETTINGS, *TOKENIZER_FILES) if (self.path / name).is_file()]
        return {file.name: sha256_file(file) for file in sorted([*files, *self.checkpoint().files])}
