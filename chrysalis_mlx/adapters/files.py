"""Adapters on disk: as mlx-lm reads them, and as PEFT does.

A run's adapters/ holds both: adapters.safetensors in mlx-lm's format, and peft/ in PEFT's, which keeps every module's
own rank, alpha and array as they are. Of a full fine-tuning there is the first alone, with the weights themselves.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from chrysalis_mlx.adapters.experts import EXPERT
from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec, Array, layer_and_key
from chrysalis_mlx.errors import ExportError, ModelError

_MLX_FILE, _PEFT_FILE = "adapters.safetensors", "adapter_model.safetensors"
_MLX_NAMES = {"A": "lora_a", "B": "lora_b", "m": "m"}
_PEFT_NAMES = {"A": "lora_A.weight", "B": "lora_B.weight", "m": "lora_magnitude_vector"}
_PEFT_EMBEDDING = {"A": "lora_embedding_B", "B": "lora_embedding_A"}  # transposed too
_EMBEDDING = "embed_tokens"
_PEFT_PREFIX = "base_model.model."
_LAYERS = "model.layers."


def save_mlx(
    directory: Path,
    spec: AdapterSpec,
    arrays: Mapping[str, Array],
    base: str,
    *,
    layers: int | None = None,
    experts: int = 0,
) -> None:
    """Write adapters.safetensors and adapter_config.json as `mlx_lm.generate --adapter-path` reads them.

    mlx-lm holds `lora_a` as (in, r), `lora_b` as (r, out), and the scale itself instead of alpha. It knows one rank and
    one scale: smaller ranks are filled up with zeros, and where scales differ their ratio to the largest goes into B.
    Its own layers of DoRA cannot stand beside a base of 3, 5 or 6 bits, whatever is in the file.

    Args:
        base: what the adapter was trained on; a path or a Hub id.
        layers: of the model. Where the spec's are the last ones, the file says so, as every reader of the format knows
            it; elsewhere, and without this number, it names every module by its full name, as mlx-lm also knows it.
        experts: of a layer of the model.

    Raises:
        ExportError: the format has no place for it: weights replaced whole beside low-rank updates, some of a layer's
            experts, DoRA beside them.
    """
    if spec.kind != "full":
        _refuse(spec.weights, "mlx-lm's adapters hold low-rank updates alone, and this one replaces")
    indices = _layers((*spec.modules, *spec.weights))
    config: dict[str, Any] = {"fine_tune_type": spec.kind, "model": base, "num_layers": len(indices)}
    tensors: Mapping[str, Array] = arrays
    if spec.kind != "full":
        rank = max(adapted.rank for adapted in spec.modules.values())
        scale = max(adapted.scale for adapted in spec.modules.values())
        modules = _mlx_modules(spec, experts)
        tensors = _of_one_rank_and_scale(spec, arrays, modules, rank, scale)
        last = layers is not None and indices == list(range(layers))[-len(indices) :]
        keys = _keys(modules) if last and _is_rectangular(modules) else list(modules)
        config["lora_parameters"] = {"rank": rank, "scale": scale, "dropout": spec.dropout, "keys": keys}
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / _MLX_FILE, tensors, "mlx")
    _write_config(directory, config)


def save_peft(directory: Path, spec: AdapterSpec, arrays: Mapping[str, Array], base: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json as `PeftModel.from_pretrained` reads them.

    Weights that are replaced whole stand in it as those of modules_to_save. Of a full fine-tuning nothing is written:
    it is no adapter, and PEFT knows no such thing.

    Raises:
        ExportError: the format has no place for it: single biases, magnitudes of an embedding's rows.
    """
    if spec.kind == "full":
        return
    _refuse((name for name in spec.weights if name.endswith(".bias")), "PEFT replaces modules, not the bias alone of")
    if spec.kind == "dora":
        _refuse((name for name in spec.modules if name.endswith(_EMBEDDING)), "PEFT has another DoRA for")
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, array in arrays.items():
        module, _, part = name.rpartition(".")
        if name in spec.weights:
            tensors[f"{_PEFT_PREFIX}{name}"] = array
        elif module.endswith(_EMBEDDING):
            tensors[f"{_PEFT_PREFIX}{module}.{_PEFT_EMBEDDING[part]}"] = array.T
        else:
            tensors[f"{_PEFT_PREFIX}{module}.{_PEFT_NAMES[part]}"] = array
    _write(directory / _PEFT_FILE, tensors, "pt")
    _write_config(directory, peft_config(spec) | {"base_model_name_or_path": base, "inference_mode": True})


def load_adapter(directory: Path, spec: AdapterSpec) -> AdapterArrays:
    """Read a run's adapters/ back, bit for bit.

    Args:
        directory: where `save_mlx` wrote, and `save_peft` into peft/.
        spec: the adapter that was written.

    Returns:
        an array for every one of `spec.shapes()`, float32.

    Raises:
        ModelError: a file is missing or damaged, or holds other names or shapes.
    """
    if spec.kind == "full":
        file = directory / _MLX_FILE
        arrays = _read(file)
    else:
        file = directory / "peft" / _PEFT_FILE
        arrays = {_our_name(name): array for name, array in _read(file).items()}
    check_arrays(spec, arrays, str(file))
    return {name: arrays[name] for name in spec.shapes()}


def peft_config(spec: AdapterSpec) -> dict[str, Any]:
    """The arguments of `peft.LoraConfig` that say the same as a spec of LoRA or DoRA."""
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": spec.dropout,
        "bias": "none",
        "use_dora": spec.kind == "dora",
        "use_rslora": spec.rslora,
        "rank_pattern": {name: module.rank for name, module in spec.modules.items() if module.rank != spec.rank},
        "alpha_pattern": {name: module.alpha for name, module in spec.modules.items() if module.alpha != spec.alpha},
    }
    if spec.weights:
        config["modules_to_save"] = list(dict.fromkeys(name.rpartition(".")[0] for name in spec.weights))
    if not _is_rectangular(spec.modules):
        return config | {"target_modules": list(spec.modules)}
    return config | {
        "target_modules": list(spec.keys),
        "layers_to_transform": _layers(spec.modules),
        "layers_pattern": "layers",
    }


def check_arrays(spec: AdapterSpec, arrays: Mapping[str, Array], where: str) -> None:
    """See that the arrays are those of the spec, name for name and shape for shape.

    Raises:
        ModelError: they are not; it names the first difference.
    """
    expected = spec.shapes()
    found = {name: array.shape for name, array in arrays.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ModelError(
                f"the adapter does not fit: {name} is {found.get(name)}, expected {expected.get(name)}",
                where=where,
                fix="it was made for another model or blueprint",
            )


def _mlx_modules(spec: AdapterSpec, experts: int) -> dict[str, list[str]]:
    """mlx-lm's modules, to those of the spec that each is: the experts of one projection are one, in order."""
    modules: dict[str, list[str]] = {}
    for module in spec.modules:
        found = EXPERT.fullmatch(module)
        name = f"{found['block']}.switch_mlp.{found['projection']}" if found else module
        modules.setdefault(name, []).append(module)
    for name, parts in modules.items():
        if found := EXPERT.fullmatch(parts[0]):
            if spec.kind == "dora":
                _refuse(parts, "mlx-lm has no DoRA beside experts, as here beside")
            wanted = [f"{found['block']}.experts.{expert}.{found['projection']}" for expert in range(experts)]
            if set(parts) != set(wanted):
                _refuse(parts, "mlx-lm adapts all experts of a layer as one, not some, as here")
            modules[name] = wanted
    return modules


def _of_one_rank_and_scale(
    spec: AdapterSpec, arrays: Mapping[str, Array], modules: Mapping[str, list[str]], rank: int, scale: float
) -> dict[str, Array]:
    """The arrays by mlx-lm's names and in its shapes, of modules that compute the same with this rank and scale."""
    tensors: dict[str, Array] = {}
    for name, (module, *others) in modules.items():
        own = _padded(spec, arrays, module, rank, scale)  # (rank, in), (out, rank)
        if spec.kind == "dora":
            own["m"] = arrays[f"{module}.m"]
        if EXPERT.fullmatch(module):
            each = [own, *(_padded(spec, arrays, other, rank, scale) for other in others)]
            tensors |= {f"{name}.{_MLX_NAMES[part]}": np.stack([arrays[part] for arrays in each]) for part in own}
            continue
        if module.endswith(_EMBEDDING):  # the weight's rows are the tokens, which mlx-lm looks up in the first matrix
            own |= {"A": own["B"].T, "B": own["A"].T}
        tensors |= {f"{name}.{_MLX_NAMES[part]}": array.T for part, array in own.items()}
    return tensors


def _padded(spec: AdapterSpec, arrays: Mapping[str, Array], module: str, rank: int, scale: float) -> dict[str, Array]:
    """A module's A (rank, in) and B (out, rank)."""
    A, B, adapted = arrays[f"{module}.A"], arrays[f"{module}.B"], spec.modules[module]
    more = rank - adapted.rank
    if adapted.scale != scale:
        B = B * np.float32(adapted.scale / scale)
    return {"A": np.pad(A, ((0, more), (0, 0))), "B": np.pad(B, ((0, 0), (0, more)))}


def _refuse(names: Iterable[str], why: str) -> None:
    for name in names:
        raise ExportError(f"{why} {name}", fix="fuse the adapter into the model")


def _layers(names: Iterable[str]) -> list[int]:
    """The transformer layers that some of the names lie in, ascending."""
    return sorted({layer_and_key(name)[0] for name in names if name.startswith(_LAYERS)})


def _is_rectangular(modules: Collection[str]) -> bool:
    """Whether the same modules are adapted in every layer in which there are any, and none outside of the layers."""
    inside = all(name.startswith(_LAYERS) for name in modules)
    return inside and len(modules) == len(_layers(modules)) * len(_keys(modules))


def _keys(modules: Iterable[str]) -> list[str]:
    """The modules' names inside a layer, sorted."""
    return sorted({layer_and_key(module)[1] for module in modules})


def _our_name(name: str) -> str:
    """A tensor's name in PEFT's file -> ours."""
    for part, theirs in _PEFT_NAMES.items():
        if name.endswith(f".{theirs}"):
            return f"{name.removeprefix(_PEFT_PREFIX).removesuffix(theirs)}{part}"
    return name


def _read(file: Path) -> AdapterArrays:
    try:
        return dict(load_file(file))
    except Exception as error:  # safetensors raises its own and OSError
        raise ModelError(f"the adapter cannot be read: {error}", where=file, fix="train again") from error


def _write(file: Path, tensors: Mapping[str, Array], made_by: str) -> None:
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(contiguous, file, metadata={"format": made_by})


def _write_config(directory: Path, config: dict[str, Any]) -> None:
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
