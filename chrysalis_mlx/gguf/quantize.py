"""Which ggml type each tensor of a file gets, and its bytes.

The choice is that of llama.cpp's quantizer (src/llama-quant.cpp, `llama_tensor_get_type` and
`tensor_type_fallback`); what differs from layer to layer is in mixtures.py. The bytes are those of llama-quantize,
from ggml's own C functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf import ggml
from chrysalis_mlx.gguf.mixtures import Place, mixed
from chrysalis_mlx.models.floats import to_float16


@dataclass(frozen=True)
class Traits:
    """What llama.cpp's choice asks of a model.

    Attributes:
        layers: how many blocks it has.
        gqa: query heads per key/value head.
        experts: experts per block; 0 for a dense model.
        tied: it has no output.weight, so token_embd.weight counts as it.
        wide: llama.cpp takes it for a 70B model: 80 layers, the architecture llama with fewer key/value heads than
            heads (and not 8 experts), or qwen2.
    """

    layers: int
    gqa: int = 1
    experts: int = 0
    tied: bool = True
    wide: bool = False


@dataclass(frozen=True)
class FileType:
    """One row of TYPES.

    Attributes:
        name: as users write it.
        ftype: llama.cpp's `llama_ftype`, stored as general.file_type.
        base: ggml type of the matrices that mixtures.py does not name.
        output: ggml type of the output matrix, which is token_embd when the embeddings are tied.
        embedding: ggml type of token_embd when they are not; None for base.
        dense: ggml type of everything but experts; None for base.
    """

    name: str
    ftype: int
    base: str
    output: str = "Q6_K"
    embedding: str | None = None
    dense: str | None = None

    @property
    def takes_importance(self) -> bool:
        """Whether an importance matrix changes anything of such a file."""
        return self.base not in ("F32", "F16", "BF16", "Q8_0", "MXFP4")


TYPES: dict[str, FileType] = {
    row.name: row
    for row in (
        FileType("F32", 0, "F32"),
        FileType("F16", 1, "F16"),
        FileType("BF16", 32, "BF16"),
        FileType("Q8_0", 7, "Q8_0", output="Q8_0"),
        FileType("Q6_K", 18, "Q6_K"),
        FileType("Q5_1", 9, "Q5_1"),
        FileType("Q5_K_M", 17, "Q5_K"),
        FileType("Q5_K_S", 16, "Q5_K"),
        FileType("Q5_0", 8, "Q5_0"),
        FileType("Q4_1", 3, "Q4_1"),
        FileType("Q4_K_M", 15, "Q4_K"),
        FileType("Q4_K_S", 14, "Q4_K"),
        FileType("Q4_0", 2, "Q4_0"),
        FileType("IQ4_NL", 25, "IQ4_NL"),
        FileType("IQ4_XS", 30, "IQ4_XS"),
        FileType("MXFP4", 38, "MXFP4", output="Q8_0", dense="Q8_0"),
        FileType("Q3_K_L", 13, "Q3_K"),
        FileType("Q3_K_M", 12, "Q3_K"),
        FileType("IQ3_M", 27, "IQ3_S"),
        FileType("Q3_K_S", 11, "Q3_K"),
        FileType("Q2_K", 10, "Q2_K"),
        FileType("IQ2_M", 29, "IQ2_S", output="Q5_K", embedding="IQ3_S"),
    )
}
"""File types that can be written, by name, from large to small (MXFP4 by its experts)."""

# For rows that are no multiple of 256 weights llama.cpp takes these instead.
_FALLBACK: Mapping[str, str] = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
    "IQ2_S": "IQ4_NL", "IQ3_S": "IQ4_NL", "IQ4_XS": "IQ4_NL",
}  # fmt: skip

_NEEDS_IMPORTANCE = ("IQ2_S",)  # of the types here; llama.cpp's list is longer

# Where float32 sums overflow, ggml ends the whole process: 65504 squared and 512 times this still fits.
_MAX_IMPORTANCE = 1e24


def file_type(name: str) -> FileType:
    """The row of a type.

    Raises:
        ExportError: it is not in TYPES.
    """
    try:
        return TYPES[name]
    except KeyError:
        raise ExportError(f"no GGUF type is called {name!r}", fix=f"the types are {', '.join(TYPES)}") from None


def choose(kind: FileType, name: str, shape: tuple[int, ...], traits: Traits, *, importance: bool) -> str:
    """The ggml type of one tensor.

    Args:
        kind: the file's type.
        name: GGUF name of the tensor.
        shape: (out, in), (experts, out, in) or (n,).
        traits: the model.
        importance: the file is made with an importance matrix.
    """
    if len(shape) == 1 or name.endswith(("_norm.weight", ".ffn_gate_inp.weight")):
        return "F32"
    if block_size(kind.base) == 1:
        return kind.base
    chosen = _wanted(kind, name, shape, traits, importance)
    if shape[-1] % block_size(chosen):
        chosen = _FALLBACK.get(chosen, "F16")
    return "F16" if shape[-1] % block_size(chosen) else chosen


def _wanted(kind: FileType, name: str, shape: tuple[int, ...], traits: Traits, importance: bool) -> str:
    """The type of a matrix whose rows fit."""
    if name == ("token_embd.weight" if traits.tied else "output.weight"):
        # llama.cpp leaves the ladder of fall-backs here: a row that does not fit goes to Q8_0 at once.
        return "Q8_0" if shape[-1] % block_size(kind.base) else kind.output
    if kind.dense is not None and (len(shape) < 3 or shape[0] == 1):
        return kind.dense
    if name == "token_embd.weight":
        return kind.embedding or kind.base
    block, layer, *part = name.split(".")
    if block != "blk" or part[1:] != ["weight"]:
        return kind.base
    place = Place(part[0], int(layer), traits.layers, traits.gqa, traits.experts, traits.wide, importance)
    return mixed(kind.name, kind.base, place)


def require_importance(kind: FileType, name: str, ggml_type: str) -> None:
    """Refuse a tensor for which there is no importance matrix; llama.cpp's `tensor_requires_imatrix`.

    Raises:
        ExportError: in this type, and without one, the tensor would be garbage.
    """
    if ggml_type in _NEEDS_IMPORTANCE:
        raise ExportError(
            f"{kind.name} stores {name} as {ggml_type}, which is garbage without an importance matrix",
            where=name,
            fix="give one that has this tensor (--imatrix FILE, or --text FILE to collect it from), or take a larger "
            "type: Q2_K can do without",
        )


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


def encode(
    name: str,
    values: npt.NDArray[np.float32],
    ggml_type: str,
    importance: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[Any]:
    """Rows of a tensor as they are stored. Uses one core; threads may call it at the same time.

    A matrix is rounded to float16 before it is quantized, so that the bytes are those of the usual way through an F16
    file. It costs nothing: float16 is off by 0.02 % (RMS) where Q8_0 is off by 0.5 % and Q4_K by 7 %, and on random
    matrices the error of no type grew by more than a thousandth of itself.

    Args:
        name: for error messages.
        values: float32, (rows, in) or, for F32, F16 and BF16, (n,).
        ggml_type: F32, F16, BF16 or a type that ggml can quantize to.
        importance: float32, (in,): how much an error in each column matters; None for all alike.

    Returns:
        F32 as it came, F16 as float16 and BF16 as its bits in uint16, of that shape; else uint8, (rows, bytes).

    Raises:
        ExportError: a value is not finite, the importance is of another length or not usable, or ggml's result is not
            valid.
        ModelError: a value is too large for F16.
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    if ggml_type == "F32":
        if not np.isfinite(values).all():
            raise _not_finite(name)
        return values
    if ggml_type == "BF16":
        bits = ggml.to_bfloat16(values)
        if not _is_finite(bits, 0x7F80):
            raise _not_finite(name)
        return bits
    half = _rounded(name, values)
    if ggml_type == "F16":
        return half
    if importance is not None:
        importance = _checked(name, importance, values.shape[-1])
    row_bytes = tensor_bytes(ggml_type, values.shape[-1:])
    return ggml.quantize(name, ggml.to_float32(half), type_id(ggml_type), row_bytes, importance)


def _checked(name: str, importance: npt.NDArray[np.float32], columns: int) -> npt.NDArray[np.float32]:
    importance = np.ascontiguousarray(importance, dtype=np.float32)
    if importance.shape != (columns,):
        raise ExportError(
            f"the importance matrix has the shape {importance.shape} for {name}, whose rows have {columns} weights",
            where=name,
            fix="take the importance matrix of this model",
        )
    if not ((importance >= 0) & (importance <= _MAX_IMPORTANCE)).all():
        raise ExportError(
            f"the importance matrix has values for {name} that are not numbers from 0 to {_MAX_IMPORTANCE:g}",
            where=name,
            fix="make it again; a model in half precision may have overflowed",
        )
    return importance


def _rounded(name: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    half = ggml.to_float16(values)
    if _is_finite(half, 0x7C00):
        return half
    if not np.isfinite(values).all():
        raise _not_finite(name)
    return to_float16(name, values)  # raises, and names the largest value


def _is_finite(half: npt.NDArray[Any], infinity: int) -> bool:
    """16-bit floats without infinities and NaN, whose bits are the largest of either sign. No copy is made."""
    positive, negative = half.view(np.int16).max(), half.view(np.uint16).max()
    return bool(positive < infinity and negative < infinity | 0x8000)


def _not_finite(name: str) -> ExportError:
    return ExportError(
        f"the tensor {name} has values that are not finite",
        where=name,
        fix="the training went wrong or the file is damaged; export an earlier checkpoint",
    )
