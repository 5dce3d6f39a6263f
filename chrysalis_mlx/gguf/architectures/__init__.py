"""How each family of models is stored in GGUF: one small file of rules per family.

family = for_config(config)      # the rules, bound to one config.json
family.metadata()                # the architecture's keys
family.tensors(names)            # every tensor, and what of the checkpoint becomes of it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chrysalis_mlx.errors import ExportError, ModelError
from chrysalis_mlx.gguf.architectures.cohere2 import Cohere2
from chrysalis_mlx.gguf.architectures.family import Family, Module, Value
from chrysalis_mlx.gguf.architectures.gemma2 import Gemma2
from chrysalis_mlx.gguf.architectures.gemma3 import Gemma3
from chrysalis_mlx.gguf.architectures.granite import Granite
from chrysalis_mlx.gguf.architectures.llama import Llama, Mistral
from chrysalis_mlx.gguf.architectures.olmo2 import Olmo2
from chrysalis_mlx.gguf.architectures.phi3 import Phi3
from chrysalis_mlx.gguf.architectures.qwen2 import Qwen2
from chrysalis_mlx.gguf.architectures.qwen3 import Qwen3
from chrysalis_mlx.gguf.architectures.qwen3_moe import Qwen3Moe
from chrysalis_mlx.gguf.architectures.smollm3 import SmolLM3
from chrysalis_mlx.gguf.architectures.tensor import Part, Tensor, permute, row_count, unpermute

FAMILIES: tuple[type[Family], ...] = (
    Llama, Mistral, Qwen2, Qwen3, Qwen3Moe, Gemma2, Gemma3, Phi3, Olmo2, Granite, SmolLM3, Cohere2,
)  # fmt: skip

SUPPORTED: tuple[str, ...] = tuple(name for family in FAMILIES for name in family.classes)
"""Hugging Face classes that can be exported."""

__all__ = [
    "FAMILIES", "SUPPORTED", "Family", "Module", "Part", "Tensor", "Value",
    "for_config", "for_gguf", "permute", "row_count", "unpermute",
]  # fmt: skip


def for_config(config: Mapping[str, Any]) -> Family:
    """The rules for a config.json.

    Raises:
        ExportError: no rules for its architecture, or something in it that they do not cover.
    """
    named = (config.get("architectures") or [None])[0]
    for family in FAMILIES:
        if named in family.classes or (named is None and family.model_type == config.get("model_type")):
            return family(config)
    if str(named).endswith("ForConditionalGeneration"):
        raise ExportError(
            f"{named} is a language model with a tower for images or sound, which these rules leave out",
            where="config.json",
            fix="take the text model alone: its language_model saved by transformers, such as a Gemma3ForCausalLM",
        )
    raise ExportError(
        f"no GGUF rules for the architecture {named or config.get('model_type') or 'of a config without a name'}",
        where="config.json",
        fix=f"supported are {', '.join(SUPPORTED)}",
    )


def for_gguf(name: str) -> type[Family]:
    """The family of a GGUF's `general.architecture`; "llama" is read as LlamaForCausalLM, Mistral files too.

    Raises:
        ModelError: no rules for it.
    """
    for family in FAMILIES:
        if family.gguf == name:
            return family
    known = ", ".join(dict.fromkeys(family.gguf for family in FAMILIES))
    raise ModelError(f"there are no rules for a GGUF of the architecture {name}", fix=f"known are {known}")
