"""Two implementations of one model, compared position by position."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.adapters.files import save_peft
from chrysalis_mlx.adapters.merge import MergedSource
from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec, initialize, resolve_adapter
from chrysalis_mlx.gguf.writer import Written, write_gguf
from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.models.checkpoint import Checkpoint

TOKENS = [5, 300, 17, 44, 101, 260, 260, 3, 400, 511, 9, 77, 350, 12, 66, 19]
LONG = TOKENS + [int(token) for token in np.random.default_rng(6).integers(3, 512, 24)]
"""40 tokens, longer than every window of the tiny models."""

_EXPERT = re.compile(r"(model\.layers\.\d+\.mlp)\.experts\.(\d+)\.(gate|up|down)_proj")


def read_config(directory: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return config


def export(
    directory: Path,
    path: Path,
    type_name: str = "F32",
    *,
    adapter: tuple[AdapterSpec, AdapterArrays] | None = None,
    **options: Any,
) -> Written:
    """Write a model directory, with an adapter merged, as a GGUF."""
    base = Checkpoint.open(directory)
    source = MergedSource(base, *adapter) if adapter else base
    return write_gguf({type_name: path}, source, read_config(directory), directory, **options)[type_name]


def trained_adapter(directory: Path, kind: Literal["lora", "dora"]) -> tuple[AdapterSpec, AdapterArrays]:
    """An adapter on every linear layer, experts and routers too, with B far from zero."""
    base = Checkpoint.open(directory)
    shapes = {name: base.shape(name) for name in base.names if name.startswith("model.layers.")}
    linears = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if len(shape) == 2}
    spec = resolve_adapter(kind, 4, 12.0, "all", ["all-linear"], linears)  # type: ignore[arg-type]
    generator = np.random.default_rng(9)
    arrays = initialize(spec, base, 0)
    for name, values in arrays.items():
        if name.endswith(".B"):
            arrays[name] = 0.1 * generator.standard_normal(values.shape).astype(np.float32)
        elif name.endswith(".m"):
            arrays[name] = values * generator.uniform(0.8, 1.2, values.shape).astype(np.float32)
    return spec, arrays


def adapted_logprobs(
    directory: Path,
    adapter: tuple[AdapterSpec, AdapterArrays],
    tokens: list[int],
    peft: Path,
    *,
    gelu_table: bool = False,
) -> npt.NDArray[np.float64]:
    """(T, vocabulary) log probabilities of transformers with PEFT.

    Args:
        directory: the base model.
        adapter: LoRA or DoRA; experts and routers, no linear layers to PEFT, get what the LoRA formula says.
        tokens: (T,) ids.
        peft: a directory for the adapter's files.
        gelu_table: look GELU up in float16, as llama.cpp does on processors.
    """
    import torch
    import transformers
    from peft import PeftModel

    spec, arrays = adapter
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    for layer in model.model.layers if gelu_table else ():
        layer.mlp.act_fn.forward = lambda x: (
            torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        )
    linear = {}
    for module, adapted in spec.modules.items():
        if (weight := _not_linear(model, module)) is None:
            linear[module] = adapted
        else:
            weight += torch.from_numpy(adapted.scale * arrays[f"{module}.B"] @ arrays[f"{module}.A"])
    spec = replace(spec, modules=linear)
    save_peft(peft, spec, {name: arrays[name] for name in spec.shapes()}, str(directory))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return _logprobs(PeftModel.from_pretrained(model, str(peft)).eval(), tokens)


def _not_linear(model: Any, module: str) -> Any:
    """The weight of an expert or a router in transformers' model; None for a linear layer."""
    if module.endswith("mlp.gate"):
        return model.get_submodule(module).weight.data
    if (found := _EXPERT.fullmatch(module)) is None:
        return None
    experts, number = model.get_submodule(f"{found[1]}.experts"), int(found[2])
    if found[3] == "down":
        return experts.down_proj.data[number]
    return experts.gate_up_proj.data[number].chunk(2)[found[3] == "up"]


def transformers_logprobs(directory: Path, tokens: list[int]) -> npt.NDArray[np.float64]:
    """(T, vocabulary) log probabilities of the next token, in float32 torch."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    return _logprobs(model, tokens)


def _logprobs(model: Any, tokens: list[int]) -> npt.NDArray[np.float64]:
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double()
    result: npt.NDArray[np.float64] = torch.log_softmax(logits, dim=-1).numpy()
    return result


def llamacpp_logprobs(server: LlamaServer, tokens: list[int], vocabulary: int) -> npt.NDArray[np.float64]:
    """(T, vocabulary) log probabilities of the next token, one request a position."""
    rows = np.full((len(tokens), vocabulary), np.nan)
    for position in range(len(tokens)):
        ids, logprobs = server.next_token_logprobs(tokens[: position + 1], vocabulary)
        rows[position, ids] = logprobs
    return rows
