"""ggml's own C functions, from the shared libraries in the wheel libggml-python.

`ggml_quantize_chunk` writes the bytes that llama-quantize writes. The conversions between float types are those of
libggml-cpu, which give numpy's bits ten times as fast (it needs AVX2 and F16C on x86, as xllamacpp does).
All of them are pure: any number of threads may call them at once, and ctypes releases the interpreter lock.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ExportError


def quantize(
    name: str,
    values: npt.NDArray[np.float32],
    type_id: int,
    row_bytes: int,
    importance: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.uint8]:
    """Rows of a matrix in blocks of a ggml type.

    Args:
        name: for error messages.
        values: contiguous, (rows, in); in is a multiple of the type's block size.
        type_id: ggml's number of the type.
        row_bytes: what a row of `in` weights takes in this type.
        importance: contiguous, (in,); None for all alike.

    Returns:
        (rows, row_bytes).

    Raises:
        ExportError: ggml finds its own result invalid, as llama-quantize checks it.
    """
    library = _library("ggml-base")
    rows, columns = values.shape
    out = np.empty((rows, row_bytes), dtype=np.uint8)
    weights = None if importance is None else importance.ctypes.data
    written = library.ggml_quantize_chunk(type_id, values.ctypes.data, out.ctypes.data, 0, rows, columns, weights)
    if written != out.nbytes or not library.ggml_validate_row_data(type_id, out.ctypes.data, out.nbytes):
        raise ExportError(
            f"ggml made blocks of {name} that are not numbers",
            where=name,
            fix="its weights or its importance matrix have extreme values: try without the matrix, or a larger type",
        )
    return out


def to_float16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Round to nearest, ties to even; what is too large becomes infinite."""
    return _convert("ggml_cpu_fp32_to_fp16", values, np.float16)


def to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of the values rounded to bfloat16, to nearest, ties to even."""
    return _convert("ggml_cpu_fp32_to_bf16", values, np.uint16)


def to_float32(values: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """float16 values, exactly."""
    return _convert("ggml_cpu_fp16_to_fp32", values, np.float32)


def _convert(function: str, values: npt.NDArray[Any], dtype: type[Any]) -> npt.NDArray[Any]:
    out = np.empty(values.shape, dtype=dtype)
    getattr(_library("ggml-cpu"), function)(values.ctypes.data, out.ctypes.data, values.size)
    return out


@functools.cache
def _library(name: str) -> ctypes.CDLL:
    spec = importlib.util.find_spec("libggml")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        for pattern in (f"lib*/lib{name}.so", f"lib*/lib{name}.dylib"):
            for file in sorted(folder.glob(pattern)):
                return _typed(name, ctypes.CDLL(str(file)))
    raise ExportError("ggml's library is not installed", fix="pip install libggml-python")


def _typed(name: str, library: ctypes.CDLL) -> ctypes.CDLL:
    """The C functions' arguments, so that addresses and counts are passed in 64 bits."""
    kind, pointer, count = ctypes.c_int, ctypes.c_void_p, ctypes.c_int64
    if name == "ggml-cpu":
        for function in ("ggml_cpu_fp32_to_fp16", "ggml_cpu_fp32_to_bf16", "ggml_cpu_fp16_to_fp32"):
            getattr(library, function).argtypes = [pointer, pointer, count]
            getattr(library, function).restype = None
        library.ggml_cpu_init()  # the table from which the last few of a row's float16 values are read
        return library
    # type, source, destination, first weight, rows, weights per row, importance
    library.ggml_quantize_chunk.argtypes = [kind, pointer, pointer, count, count, count, pointer]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_validate_row_data.argtypes = [kind, pointer, ctypes.c_size_t]
    library.ggml_validate_row_data.restype = ctypes.c_bool
    return library
