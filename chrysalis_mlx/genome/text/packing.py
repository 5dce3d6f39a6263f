"""A genome on disk: plain, gzip or xz.

Packing is told by the first bytes when reading, by the name when writing. The same text gives the same file.
"""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from chrysalis_mlx.errors import GenomeError


@contextmanager
def unpacked(path: Path) -> Iterator[BufferedIOBase]:
    """Open the text of a genome for reading.

    Raises:
        GenomeError: it cannot be opened, or reading it inside of the block found it damaged.
    """
    try:
        with path.open("rb") as raw:
            # The first bytes, not the name: a download may have lost its suffix.
            magic = raw.peek(6)
            if magic.startswith(b"\x1f\x8b"):
                with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
                    yield stream
            elif magic.startswith(b"\xfd7zXZ\x00"):
                with lzma.LZMAFile(raw, "rb") as packed:
                    yield packed
            else:
                yield raw
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise GenomeError(
            f"the packed genome is damaged or cut short ({error})",
            where=path,
            fix="copy or download it again; `xz -t` or `gzip -t` checks it",
        ) from error
    except OSError as error:
        raise GenomeError(
            f"the genome cannot be read: {error.strerror or error}",
            where=path,
            fix="name a genome file, or build one: chrysalis-mlx genome build SOURCE... -o FILE",
        ) from error


@contextmanager
def packing(target: Path, suffix: str) -> Iterator[BufferedIOBase]:
    """Open a file that packs what is written to it: gzip for `.gz`, xz for `.xz`, else not at all."""
    # No name, no time: the same text gives the same file.
    with target.open("wb") as raw:
        if suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as stream:
                yield stream
        elif suffix == ".xz":
            with lzma.LZMAFile(raw, "wb", format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=6) as packed:
                yield packed
        else:
            yield raw
