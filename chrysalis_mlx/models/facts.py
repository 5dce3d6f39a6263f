"""What can be known of a model before its weights are here: enough to find a blueprint for it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.checkpoint import Checkpoint
from chrysalis_mlx.models.parameters import counted, estimated, quantized_bits, text_config
from chrysalis_mlx.models.source import locate

Variant = Literal["base", "instruct"]

HUB_FACT_FILES = ("config.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json")
_WORDS: dict[str, Variant] = {
    "base": "base", "pt": "base", "pretrained": "base",
    "instruct": "instruct", "it": "instruct", "chat": "instruct",
}  # fmt: skip


@dataclass(frozen=True)
class ModelFacts:
    """What a blueprint is chosen by.

    Attributes:
        name: without its owner: Qwen3-0.6B.
        model_type: of the language model in config.json: qwen3.
        parameters: how many it has, embeddings included.
        variant: base continues texts; instruct has learned to answer.
        context_length: positions it was made for, in tokens.
        bits: of a quantized weight; None for a model that is not quantized.
        reasons: how each of these was found, where it could be doubted.
    """

    name: str
    model_type: str
    parameters: int
    variant: Variant
    context_length: int
    bits: int | None
    reasons: tuple[str, ...]

    @property
    def weight_bytes(self) -> int:
        """Of the weights in memory: 2 bytes each, or as quantized."""
        return self.parameters * (self.bits or 16) // 8


def resolve_facts(source: str, revision: str | None = None) -> ModelFacts:
    """The facts of a model; of a Hub id only a few small files are downloaded, of a .gguf only the header is read.

    Args:
        source: a directory, a .gguf file or a Hub id such as Qwen/Qwen3-0.6B.
        revision: commit, tag or branch of a Hub id.

    Raises:
        ModelError: it is none of these, cannot be had, or says too little of itself.
    """
    path = Path(source).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return _gguf_facts(path)
    name = path.resolve().name if path.is_dir() else source.rsplit("/", 1)[-1]
    return read_facts(locate(source, revision, HUB_FACT_FILES), name)


def read_facts(directory: Path, name: str) -> ModelFacts:
    """The facts of a model directory, which may lack its weights; `name` is the model's own.

    Raises:
        ModelError: no usable config.json.
    """
    file = directory / "config.json"
    config = _read_object(file)
    if config is None:
        raise ModelError(
            "the model directory has no config.json", where=directory, fix="give a complete Hugging Face directory"
        )
    try:
        parameters, how = counted(Checkpoint.open(directory), config), "counted in its weights"
    except ModelError:  # they are not here (yet), or not whole: opening the model to train it will say so
        try:
            parameters, how = estimated(config), "computed from its config.json"
        except ModelError as error:
            raise ModelError(error.what, where=file, fix=error.fix) from error
    settings = _read_object(directory / "tokenizer_config.json") or {}
    files = ("chat_template.jinja", "chat_template.json")
    has_template = bool(settings.get("chat_template")) or any((directory / name).is_file() for name in files)
    text = text_config(config)
    return _facts(
        name,
        str(text["model_type"]),
        (parameters, how),
        has_template,
        int(text.get("max_position_embeddings") or 2048),
        quantized_bits(config),
    )


def _gguf_facts(file: Path) -> ModelFacts:
    """Of a GGUF, which is dequantized before it is trained."""
    from chrysalis_mlx.gguf.reader import GGUFModel

    model = GGUFModel.open(file)
    parameters = sum(math.prod(model.shape(name)) for name in model.names)
    return _facts(
        file.stem,
        model.config["model_type"],
        (parameters, "counted in its weights"),
        bool(model.vocabulary.chat_template),
        model.config["max_position_embeddings"],
        None,
    )


def _facts(
    name: str, model_type: str, size: tuple[int, str], has_template: bool, context: int, bits: int | None
) -> ModelFacts:
    parameters, how = size
    variant, why = _variant(name, has_template)
    reasons = (f"{parameters / 1e6:,.1f} million parameters, {how}", f"{variant}: {why}")
    return ModelFacts(name, model_type, parameters, variant, context, bits, reasons)


def _variant(name: str, has_template: bool) -> tuple[Variant, str]:
    """The last word of the name that speaks of it; else whether there is a chat template.

    The name goes first, because base models are often published with the template of their chat model.
    """
    words = [word for word in re.split(r"[-_.\s]", name.lower()) if word in _WORDS]
    if words:
        return _WORDS[words[-1]], f"its name says '{words[-1]}'"
    return ("instruct", "it has a chat template") if has_template else ("base", "it has no chat template")


def _read_object(file: Path) -> dict[str, Any] | None:
    """A JSON object; None when there is no such file."""
    if not file.is_file():
        return None
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file.name} is not valid JSON: {error}", where=file) from error
    if not isinstance(value, dict):
        raise ModelError(f"{file.name} is not a JSON object", where=file)
    return value
