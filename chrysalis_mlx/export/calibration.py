"""The texts of an export: what it is measured on, and what the importance matrix is collected from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.batches.packing import Batch, assemble, pack_in_order
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.export.gate.reference import sample_lines
from chrysalis_mlx.gguf.architectures import Tensor
from chrysalis_mlx.gguf.imatrix import Imatrix, imatrix_of, write_imatrix
from chrysalis_mlx.gguf.quantize import file_type
from chrysalis_mlx.progress import Progress, silent

IMATRIX = "imatrix.gguf"


@dataclass(frozen=True)
class Texts:
    """The texts of an export.

    Attributes:
        held_out: texts that nothing was trained on; distributions are compared on them.
        corpus: any texts; token ids are compared on their lines.
        calibration: for the importance matrix, texts that were trained on, never held-out ones; empty: none is made.
        name: of the calibration texts, written into the matrix.
        row_length: longest text in tokens.
    """

    held_out: Sequence[Segment]
    corpus: Sequence[str]
    calibration: Sequence[Segment]
    name: str
    row_length: int

    def sample(self, count: int) -> list[str]:
        """Up to `count` lines of the corpus."""
        return sample_lines(self.corpus, count)


def takes_importance(types: Sequence[str]) -> bool:
    """Whether an importance matrix changes any of these file types."""
    return any(file_type(name).takes_importance for name in types)


def collect(
    file: Path, tensors: Sequence[Tensor], texts: Texts, trained: Engine, progress: Progress = silent
) -> Imatrix:
    """Collect an importance matrix from the calibration texts, and keep it in llama.cpp's format.

    Args:
        file: where it is written.
        tensors: of the GGUF.
        trained: the model whose inputs are collected.
    """
    rows = pack_in_order(texts.calibration, texts.row_length)
    with progress("importance matrix", len(rows), unit="row") as bar:

        def batches() -> Iterator[Batch]:
            for row in rows:
                yield assemble([[texts.calibration[index] for index in row]], texts.row_length)
                bar.update()

        squares = trained.input_squares(batches())
    found = imatrix_of(squares, tensors, datasets=(texts.name,), chunk_size=texts.row_length)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_imatrix(file, found)
    return found
