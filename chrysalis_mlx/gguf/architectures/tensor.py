"""One tensor of a GGUF: where its values come from, and how they are stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """Rows `start` to `stop` of a Hugging Face tensor, seen as a matrix with all leading axes flattened."""

    source: str
    start: int
    stop: int


@dataclass(frozen=True)
class Tensor:
    """One tensor of a GGUF.

    Attributes:
        name: GGUF's, for instance blk.0.attn_q.weight.
        shape: (out, in), (n,) or (experts, out, in).
        parts: its rows, part after part.
        heads: rows of so many heads are interleaved (`permute`); 0: they stay as they are.
        plus: added to every value.
        values: what is computed from config.json and stands in no checkpoint, instead of `parts`.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...] = ()
    heads: int = 0
    plus: float = 0.0
    values: Array | None = None

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...], source: str, *, heads: int = 0, plus: float = 0.0) -> Tensor:
        """The whole of one Hugging Face tensor."""
        return cls(name, shape, (Part(source, 0, row_count(shape)),), heads, plus)


def row_count(shape: tuple[int, ...]) -> int:
    """Rows of a tensor seen as a matrix; a vector is one row."""
    return int(np.prod(shape[:-1], dtype=np.int64))


def permute(values: Array, heads: int) -> Array:
    """Rows of q or k, (heads * head_dim, ...), from Hugging Face's order to llama.cpp's.

    Hugging Face rotates a head's first half with its second, llama.cpp's llama graph neighbouring pairs.
    """
    split = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(values.shape)


def unpermute(values: Array, heads: int) -> Array:
    """The inverse of `permute`."""
    split = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(values.shape)
