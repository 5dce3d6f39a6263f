"""The Modelfile that `ollama create` reads."""

from __future__ import annotations

import json
from pathlib import Path

from chrysalis_mlx.models.directory import ModelDirectory

_MAX_CONTEXT = 8192  # a longer default costs memory that most laptops do not have
_END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>", "</s>")
_SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty")


def modelfile(gguf: Path, model: ModelDirectory, *, system: str | None, context: int | None) -> str:
    """The text of a Modelfile beside its GGUF.

    TEMPLATE is left out: Ollama takes the chat template from the GGUF. Every end token becomes a `stop`, because a
    missing one is the most common cause of output that does not end.

    Args:
        gguf: the file, in the same directory as the Modelfile.
        context: num_ctx in tokens; None takes the model's own, at most 8192.
    """
    tokenizer = model.tokenizer
    stops = [token for token in _END_TOKENS if tokenizer.token_id(token) is not None]
    lines = [f"FROM ./{gguf.name}"]
    if system is not None:
        lines.append(f'SYSTEM """{system}"""')
    lines.append(f"PARAMETER num_ctx {context or min(model.context_length, _MAX_CONTEXT)}")
    lines += [f'PARAMETER stop "{token}"' for token in stops]
    lines += [f"PARAMETER {name} {value}" for name, value in _sampling(model.path / "generation_config.json").items()]
    return "\n".join(lines) + "\n"


def _sampling(file: Path) -> dict[str, float]:
    """The sampling that the model's makers recommend, by Ollama's names."""
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = {name: config[name] for name in _SAMPLING if isinstance(config.get(name), (int, float))}
    if "repetition_penalty" in found:
        found["repeat_penalty"] = found.pop("repetition_penalty")
    return found
