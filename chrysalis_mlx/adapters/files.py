"""Adapters on disk: in mlx-lm's format, which is also ours, and in PEFT's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec, layer_and_key
from chrysalis_mlx.errors import ModelError

_MLX_NAMES = {"A": "lora_a", "B": "lora_b", "m": "m"}
_PEFT_NAMES = {"A": "lora_A.weight", "B": "lora_B.weight", "m": "lora_magnitude_vector"}


def save_mlx(directory: Path, spec: AdapterSpec, arrays: AdapterArrays, base: str) -> None:
    """Write adapters.safetensors and adapter_config.json as `mlx_lm.generate --adapter-path` reads them.

    mlx-lm holds `lora_a` as (in, r), `lora_b` as (r, out), and the scale itself instead of alpha.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, array in arrays.items():
        module, _, part = name.rpartition(".")
        tensors[f"{module}.{_MLX_NAMES[part]}"] = np.ascontiguousarray(array.T)
    save_file(tensors, directory / "adapters.safetensors", metadata={"format": "mlx"})
    config = {
        "fine_tune_type": spec.kind,
        "model": base,
        "num_layers": spec.num_layers,
        "lora_parameters": {"rank": spec.rank, "scale": spec.scale, "dropout": 0.0, "keys": list(spec.keys)},
    }
    _write_config(directory, config)


def load_mlx(directory: Path, spec: AdapterSpec) -> AdapterArrays:
    """Read back what `save_mlx` wrote for the same spec.

    Raises:
        ModelError: the file is missing, or holds other modules or shapes.
    """
    file = directory / "adapters.safetensors"
    try:
        tensors = load_file(file)
    except Exception as error:  # safetensors raises its own and OSError
        raise ModelError(f"the adapter cannot be read: {error}", where=file, fix="train again") from error
    parts = {name: part for part, name in _MLX_NAMES.items()}
    arrays = {}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        arrays[f"{module}.{parts.get(part, part)}"] = np.ascontiguousarray(tensor.T)
    check_arrays(spec, arrays, str(file))
    return arrays


def save_peft(directory: Path, spec: AdapterSpec, arrays: AdapterArrays, base: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json as `PeftModel.from_pretrained` reads them."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, array in arrays.items():
        module, _, part = name.rpartition(".")
        tensors[f"base_model.model.{module}.{_PEFT_NAMES[part]}"] = np.ascontiguousarray(array)
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    _write_config(directory, peft_config(spec) | {"base_model_name_or_path": base, "inference_mode": True})


def peft_config(spec: AdapterSpec) -> dict[str, Any]:
    """The arguments of `peft.LoraConfig` that say the same as the spec."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_dora": spec.kind == "dora",
        "target_modules": sorted({layer_and_key(module)[1] for module in spec.modules}),
        "layers_to_transform": spec.layer_indices,
        "layers_pattern": "layers",
    }


def check_arrays(spec: AdapterSpec, arrays: AdapterArrays, where: str) -> None:
    """See that the arrays are those of the spec, name for name and shape for shape.

    Raises:
        ModelError: they are not; it names the first difference.
    """
    expected: dict[str, tuple[int, ...]] = {}
    for module, (out, into) in spec.modules.items():
        expected |= {f"{module}.A": (spec.rank, into), f"{module}.B": (out, spec.rank)}
        if spec.kind == "dora":
            expected[f"{module}.m"] = (out,)
    found = {name: array.shape for name, array in arrays.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ModelError(
                f"the adapter does not fit: {name} is {found.get(name)}, expected {expected.get(name)}",
                where=where,
                fix="it was made for another model or blueprint",
            )


def _write_config(directory: Path, config: dict[str, Any]) -> None:
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
