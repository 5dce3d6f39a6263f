"""The packed weights of a model that mlx-lm quantized, without MLX.

The matrix X is three tensors: X.weight, words of 32 bits; X.scales and X.biases, one of each for a group of elements in
a row. A row's elements are one stream of bits, lowest bit first, whatever their width (`mx.quantize`):

    affine   w = scale · q + bias; q is an integer of 2 to 8 bits
    mxfp4    w = 2^(scale − 127) · e; e is a float of 4 bits (E2M1), and there is no bias
             (OCP Microscaling Formats 1.0)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ModelError

Array = npt.NDArray[np.float32]

# mode -> group size and bits where config.json names none.
_DEFAULTS = {"affine": (64, 4), "mxfp4": (32, 4), "nvfp4": (16, 4), "mxfp8": (32, 8)}
_AFFINE_BITS, _AFFINE_GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)
_HALVES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
_E2M1 = np.concatenate([_HALVES, -_HALVES])


@dataclass(frozen=True)
class Packing:
    """How the elements of one weight are packed: bits of each, elements in a group, and what they mean."""

    mode: str
    bits: int
    group_size: int

    @property
    def is_known(self) -> bool:
        """Whether `dequantize` can read it."""
        if self.mode == "affine":
            return self.bits in _AFFINE_BITS and self.group_size in _AFFINE_GROUPS
        return self == Packing("mxfp4", 4, 32)

    def unpacked(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the matrix whose words have this shape."""
        return (*shape[:-1], shape[-1] * 32 // self.bits)

    def __str__(self) -> str:
        return f"{self.mode} with {self.bits} bits in groups of {self.group_size}"


def packing_of(config: Mapping[str, Any], module: str) -> Packing | None:
    """How a module's weight is packed; None when it is not.

    Args:
        config: the content of config.json.
        module: its name as the weights have it, without `.weight`.
    """
    settings = config.get("quantization")
    if not isinstance(settings, Mapping):
        return None
    own = settings.get(module, True)
    if own is False:
        return None
    return _packing(own if isinstance(own, Mapping) else settings)


def check_quantization(config: Mapping[str, Any], where: object) -> None:
    """See that a model is not quantized, or in a way that can be read here.

    Args:
        config: the content of config.json.
        where: the file, for errors.

    Raises:
        ModelError: it is quantized in another way; it names which.
    """
    settings = config.get("quantization")
    if isinstance(settings, Mapping):
        for part in (settings, *(own for own in settings.values() if isinstance(own, Mapping))):
            if not _packing(part).is_known:
                raise ModelError(
                    f"the model is quantized as {_packing(part)}, which cannot be trained here",
                    where=where,
                    fix="quantize the original again, affine with 2 to 8 bits or mxfp4: mlx_lm.convert -q --q-bits 4",
                )
    elif other := config.get("quantization_config"):
        method = other.get("quant_method") if isinstance(other, Mapping) else None
        raise ModelError(
            f"the model is quantized by {method or 'a method without a name'}, which cannot be trained here",
            where=where,
            fix="use the original (bf16 or f16) model, or quantize that: mlx_lm.convert -q",
        )


def beside(name: str, part: str) -> str:
    """`MODULE.weight`, `scales` -> `MODULE.scales`."""
    return f"{name.removesuffix('.weight')}.{part}"


def find_packed(directory: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Packing]:
    """Which weights of a model directory are packed, and how; config.json is read only where some may be.

    Args:
        tensors: name to dtype, as safetensors names it, and shape of everything in its files.

    Raises:
        ModelError: config.json cannot be read, or the tensors are not as it says.
    """
    names = [name for name, (dtype, _) in tensors.items() if dtype == "U32" and beside(name, "scales") in tensors]
    file = directory / "config.json"
    if not names or not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        found = {name: packing_of(config, name.removesuffix(".weight")) for name in names}
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"the quantization in config.json cannot be read: {error}", where=file) from error
    packed = {name: packing for name, packing in found.items() if packing}
    for name, packing in packed.items():
        groups = tensors[beside(name, "scales")][1]
        biases = tensors.get(beside(name, "biases"))
        fits = packing.bits > 0 and packing.unpacked(tensors[name][1]) == (
            *groups[:-1],
            groups[-1] * packing.group_size,
        )
        if not fits or (biases and biases[1]) != (groups if packing.mode == "affine" else None):
            raise ModelError(
                f"the tensor {name} is not packed as config.json says: {packing}",
                where=directory,
                fix="quantize the original model again: mlx_lm.convert -q",
            )
    return packed


def dequantize(
    words: npt.NDArray[np.uint32], scales: npt.NDArray[Any], biases: Array | None, packing: Packing
) -> Array:
    """The matrix that packed words stand for, exactly what MLX computes with; float32.

    Args:
        words: (..., in · bits / 32).
        scales: (..., in / group_size); of mxfp4 uint8, else float32.
        biases: as the scales; None of mxfp4.

    Returns:
        (..., in).
    """
    codes = unpack(words, packing.bits)  # (..., in)
    groups = codes.reshape(*scales.shape, packing.group_size)
    if biases is None:
        weight: Array = _E2M1[groups]
        weight *= np.ldexp(np.float32(1), scales.astype(np.int32) - 127)[..., None]
    else:
        weight = groups.astype(np.float32)
        weight *= scales[..., None]
        weight += biases[..., None]
    return weight.reshape(codes.shape)


def unpack(words: npt.NDArray[np.uint32], bits: int) -> npt.NDArray[np.uint8]:
    """(..., n) words -> their (..., 32 · n / bits) elements of so many bits."""
    stream = np.ascontiguousarray(words, "<u4").view(np.uint8).reshape(-1, bits)  # eight elements in a row
    padded = np.zeros((len(stream), 8), np.uint8)
    padded[:, :bits] = stream
    eights = padded.view("<u8")[:, 0]
    elements = np.empty((len(stream), 8), np.uint8)
    for place in range(8):
        elements[:, place] = (eights >> np.uint64(place * bits)) & np.uint64((1 << bits) - 1)
    return elements.reshape(*words.shape[:-1], words.shape[-1] * 32 // bits)


def _packing(settings: Mapping[str, Any]) -> Packing:
    mode = str(settings.get("mode") or "affine")
    group_size, bits = _DEFAULTS.get(mode, (0, 0))
    numbers = (settings.get("bits") or bits, settings.get("group_size") or group_size)
    return Packing(mode, *(number if isinstance(number, int) else 0 for number in numbers))
