"""MLX's older weight files, weights.npz: an uncompressed zip of .npy files, read where they lie.

`mx.savez` stores bfloat16 as a void type of two bytes, which numpy gives back without a meaning. A tensor that lay in
memory column by column is stored so (`fortran_order`). Sources: https://numpy.org/doc/stable/reference/generated/
numpy.lib.format.html; the zip format, APPNOTE 6.3.3, section 4.3.7.
"""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from chrysalis_mlx.errors import ModelError

_PATTERN = "weights*.npz"
_CONVERT = "load and save it again with MLX: mx.save_safetensors('model.safetensors', mx.load('weights.npz'))"
# numpy's type -> the name of the same in safetensors.
_DTYPES = {
    "<f8": "F64", "<f4": "F32", "<f2": "F16", "|V2": "BF16", "|b1": "BOOL",
    "|i1": "I8", "|u1": "U8", "<i2": "I16", "<u2": "U16", "<i4": "I32", "<u4": "U32", "<i8": "I64", "<u8": "U64",
}  # fmt: skip
_LOCAL_HEADER = 30  # bytes before the name of a member


class Member(NamedTuple):
    """One tensor of an .npz: its dtype as safetensors names it, and the bytes of the file that hold it, row by row."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def npz_files(directory: Path) -> list[Path]:
    """The weight files of an older MLX model directory, weights.npz or weights.00.npz and so on, in order."""
    return sorted(path for path in directory.glob(_PATTERN) if path.is_file())


def read_npz_header(file: Path) -> dict[str, Member]:
    """Every tensor of an .npz in file order, without reading one.

    Raises:
        ModelError: a damaged file, or tensors that are compressed, stored by columns or of an unknown type.
    """
    found = npz_members(file)
    for name, (_, by_columns) in found.items():
        if by_columns:
            raise ModelError(
                f"the tensor {name} is stored column by column, and cannot be read in rows", where=file, fix=_CONVERT
            )
    return {name: member for name, (member, _) in found.items()}


def npz_members(file: Path) -> dict[str, tuple[Member, bool]]:
    """The same, where a tensor may be stored by columns (True): then its bytes are those of the transposed one.

    Raises:
        ModelError: as `read_npz_header`.
    """
    try:
        with zipfile.ZipFile(file) as archive, file.open("rb") as handle:
            infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
            return {info.filename.removesuffix(".npy"): _member(handle, file, info) for info in infos}
    except (zipfile.BadZipFile, OSError, ValueError, SyntaxError) as error:
        raise _damaged(file, str(error)) from error


def _member(handle: IO[bytes], file: Path, info: zipfile.ZipInfo) -> tuple[Member, bool]:
    if info.compress_type != zipfile.ZIP_STORED:
        raise ModelError(
            f"the tensor {info.filename.removesuffix('.npy')} is compressed, and cannot be read where it lies",
            where=file,
            fix=_CONVERT,
        )
    handle.seek(info.header_offset)
    header = handle.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise ValueError(f"{info.filename} is not where the directory of the file says")
    # The lengths of name and extra field may differ from those in the directory of the zip.
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    handle.seek(lengths, os.SEEK_CUR)
    end = handle.tell() + info.file_size
    version = np.lib.format.read_magic(handle)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(handle)
    if dtype.str not in _DTYPES:
        raise ModelError(f"the tensor {info.filename} holds {dtype}, which cannot be read", where=file, fix=_CONVERT)
    start = handle.tell()
    if end - start != math.prod(shape) * dtype.itemsize or end > os.fstat(handle.fileno()).st_size:
        raise ValueError(f"{info.filename} of shape {shape} takes {end - start} bytes")
    is_matrix = sum(length > 1 for length in shape) > 1  # else both orders are one
    return Member(_DTYPES[dtype.str], tuple(int(length) for length in shape), start, end), by_columns and is_matrix


def _damaged(file: Path, why: str) -> ModelError:
    return ModelError(f"the .npz file is damaged or truncated: {why}", where=file, fix="download or write it again")
