"""Adapters on disk: as mlx-lm reads them, and as PEFT does.

A run's adapters/ holds both: adapters.safetensors in mlx-lm's format, and peft/ in PEFT's, which keeps every module's
own rank, alpha and array as they are. Of a full fine-tuning there is the first alone, with the weights themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec, Array
from chrysalis_mlx.errors import ModelError

_MLX_FILE, _PEFT_FILE = "adapters.safetensors", "adapter_model.safetensors"
_MLX_NAMES = {"A": "lora_a", "B": "lora_b", "m": "m"}
_PEFT_NAMES = {"A": "lora_A.weight", "B": "lora_B.weight", "m": "lora_magnitude_vector"}
_PEFT_PREFIX = "base_model.model."


def save_mlx(
    directory: Path, spec: AdapterSpec, arrays: AdapterArrays, base: str, *, layers: int | None = None
) -> None:
    """Write adapters.safetensors and adapter_config.json as `mlx_lm.generate --adapter-path` reads them.

    mlx-lm holds `lora_a` as (in, r), `lora_b` as (r, out), and the scale itself instead of alpha. It knows one rank and
    one scale: smaller ranks are filled up with zeros, and where scales differ their ratio to the largest goes into B.
    Its own layers of DoRA cannot stand beside a base of 3, 5 or 6 bits, whatever is in the file.

    Args:
        base: what the adapter was trained on; a path or a Hub id.
        layers: of the model. Where the spec's are the last ones, the file says so, as every reader of the format knows
            it; elsewhere, and without this number, it names every module by its full name, as mlx-lm also knows it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {"fine_tune_type": spec.kind, "model": base, "num_layers": len(spec.layer_indices)}
    tensors: Mapping[str, Array] = arrays
    if spec.kind != "full":
        rank = max(adapted.rank for adapted in spec.modules.values())
        scale = max(adapted.scale for adapted in spec.modules.values())
        tensors = _of_one_rank_and_scale(spec, arrays, rank, scale)
        last = layers is not None and spec.layer_indices == list(range(layers))[-len(spec.layer_indices) :]
        keys = list(spec.keys if last and _is_rectangular(spec) else spec.modules)
        config["lora_parameters"] = {"rank": rank, "scale": scale, "dropout": spec.dropout, "keys": keys}
    _write(directory / _MLX_FILE, tensors, "mlx")
    _write_config(directory, config)


def save_peft(directory: Path, spec: AdapterSpec, arrays: AdapterArrays, base: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json as `PeftModel.from_pretrained` reads them.

    Of a full fine-tuning nothing is written: it is no adapter, and PEFT knows no such thing.
    """
    if spec.kind == "full":
        return
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, array in arrays.items():
        module, _, part = name.rpartition(".")
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
    if not _is_rectangular(spec):
        return config | {"target_modules": list(spec.modules)}
    return config | {
        "target_modules": list(spec.keys),
        "layers_to_transform": spec.layer_indices,
        "layers_pattern": "layers",
    }


def check_arrays(spec: AdapterSpec, arrays: AdapterArrays, where: str) -> None:
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


def _of_one_rank_and_scale(spec: AdapterSpec, arrays: Mapping[str, Array], rank: int, scale: float) -> dict[str, Array]:
    """The arrays by mlx-lm's names and in its shapes, of modules that compute the same with this rank and scale."""
    tensors: dict[str, Array] = {}
    for module, adapted in spec.modules.items():
        A, B = arrays[f"{module}.A"], arrays[f"{module}.B"]
        more = rank - adapted.rank
        if adapted.scale != scale:
            B = B * np.float32(adapted.scale / scale)
        own = {"A": np.pad(A, ((0, more), (0, 0))), "B": np.pad(B, ((0, 0), (0, more)))}  # (rank, in), (out, rank)
        if spec.kind == "dora":
            own["m"] = arrays[f"{module}.m"]
        tensors |= {f"{module}.{_MLX_NAMES[part]}": array.T for part, array in own.items()}
    return tensors


def _is_rectangular(spec: AdapterSpec) -> bool:
    """Whether the same modules are adapted in every layer in which there are any."""
    return len(spec.modules) == len(spec.layer_indices) * len(spec.keys)


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
