"""Which ggml type each tensor of a file gets, and its bytes.

The choice is llama.cpp's (src/llama-quant.cpp, `llama_tensor_get_type` and `tensor_type_fallback`); the K types and
Q8_0 come from ggml's own C functions in the libggml-python wheel, so the bytes are those of llama-quantize.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.models.checkpoint import to_bfloat16, to_float16

_SLICE = 1 << 20  # weights per call: large enough for the threads, small beside the tensor


@dataclass(frozen=True)
class FileType:
    """One row of TYPES.

    Attributes:
        name: as users write it.
        ftype: llama.cpp's `llama_ftype`, stored as general.file_type.
        base: ggml type of matrices.
        more_bits: ggml type of attn_v and ffn_down in the layers where llama.cpp spends more; None for all alike.
        output: ggml type of the output matrix, which is token_embd when the embeddings are tied.
    """

    name: str
    ftype: int
    base: str
    more_bits: str | None = None
    output: str | None = None


TYPES: dict[str, FileType] = {
    row.name: row
    for row in (
        FileType("F32", 0, "F32"),
        FileType("F16", 1, "F16"),
        FileType("BF16", 32, "BF16"),
        FileType("Q8_0", 7, "Q8_0"),
        FileType("Q4_K_M", 15, "Q4_K", more_bits="Q6_K", output="Q6_K"),
    )
}
"""File types that can be written, by name."""

# A K type needs rows of a multiple of 256 weights; llama.cpp takes these instead.
_FALLBACK: Mapping[str, str] = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def file_type(name: str) -> FileType:
    """The row of a type.

    Raises:
        ExportError: it is not in TYPES.
    """
    try:
        return TYPES[name]
    except KeyError:
        raise ExportError(f"no GGUF type is called {name!r}", fix=f"the types are {', '.join(TYPES)}") from None


def choose(kind: FileType, name: str, shape: tuple[int, ...], *, layers: int, tied: bool, wide: bool = False) -> str:
    """The ggml type of one tensor.

    Args:
        kind: the file's type.
        name: GGUF name of the tensor.
        shape: (out, in) or (n,).
        layers: how many blocks the model has.
        tied: the model has no output.weight, so token_embd.weight counts as it.
        wide: a 70B model of the llama or qwen2 architecture: eight heads share an attn_v, which gets Q5_K at least.
    """
    if len(shape) == 1:
        return "F32"
    if block_size(kind.base) == 1:
        return kind.base
    chosen = kind.base
    if name == ("token_embd.weight" if tied else "output.weight"):
        # llama.cpp leaves the ladder of fall-backs here: a row that does not fit goes to Q8_0 at once.
        chosen = "Q8_0" if shape[-1] % block_size(kind.base) else kind.output or kind.base
    elif kind.more_bits is not None and name.endswith((".attn_v.weight", ".ffn_down.weight")):
        if _use_more_bits(int(name.split(".")[1]), layers):
            chosen = kind.more_bits
        elif wide and chosen == "Q4_K" and name.endswith(".attn_v.weight"):
            chosen = "Q5_K"
    if shape[-1] % block_size(chosen):
        chosen = _FALLBACK.get(chosen, "F16")
    return "F16" if shape[-1] % block_size(chosen) else chosen


def _use_more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def type_id(ggml_type: str) -> int:
    """ggml's number of a type."""
    import gguf

    return int(gguf.GGMLQuantizationType[ggml_type].value)


def block_size(ggml_type: str) -> int:
    """Weights per block; 1 for the float types."""
    import gguf

    return int(gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[ggml_type]][0])


def tensor_bytes(ggml_type: str, shape: tuple[int, ...]) -> int:
    """Size of a tensor of this type; the row is a multiple of the block size."""
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[ggml_type]]
    return math.prod(shape) // int(block) * int(size)


def encode(name: str, values: npt.NDArray[np.float32], ggml_type: str) -> npt.NDArray[Any]:
    """A tensor as it is stored.

    Args:
        name: for error messages.
        values: float32, (out, in) or (n,).
        ggml_type: F32, F16, BF16 or any type that ggml can quantize to without an importance matrix.

    Raises:
        ExportError: a value is not finite, or ggml refuses.
        ModelError: a value is too large for F16.
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise ExportError(
            f"the tensor {name} has values that are not finite",
            where=name,
            fix="the training went wrong or the file is damaged; export an earlier checkpoint",
        )
    if ggml_type == "F32":
        return values
    if ggml_type == "F16":
        return to_float16(name, values)
    if ggml_type == "BF16":
        return to_bfloat16(values)
    return _ggml_quantize(name, values, ggml_type)


def _ggml_quantize(name: str, values: npt.NDArray[np.float32], ggml_type: str) -> npt.NDArray[np.uint8]:
    """Quantize slices of rows on all cores; ggml_quantize_chunk is pure, and ctypes releases the interpreter lock."""
    quantize_chunk = _library().ggml_quantize_chunk
    number = type_id(ggml_type)
    rows, columns = (int(length) for length in values.shape)
    row_bytes = tensor_bytes(ggml_type, (columns,))
    out = np.empty(rows * row_bytes, dtype=np.uint8)
    step = max(1, _SLICE // columns)

    def quantize(start: int) -> int:
        count = min(step, rows - start)
        source = values.ctypes.data + start * columns * 4
        written = quantize_chunk(number, source, out.ctypes.data + start * row_bytes, 0, count, columns, None)
        return int(written) - count * row_bytes

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if any(pool.map(quantize, range(0, rows, step))):
            raise ExportError(f"ggml wrote another size than {ggml_type} takes", where=name)
    return out


@functools.cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("libggml")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        for pattern in ("lib*/libggml-base.so", "lib*/libggml-base.dylib"):
            for file in sorted(folder.glob(pattern)):
                library = ctypes.CDLL(str(file))
                # type, source, destination, first weight, rows, weights per row, importance matrix
                library.ggml_quantize_chunk.argtypes = [
                    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
                    ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
                ]  # fmt: skip
                library.ggml_quantize_chunk.restype = ctypes.c_size_t
                return library
    raise ExportError("ggml's library is not installed", fix="pip install libggml-python")
