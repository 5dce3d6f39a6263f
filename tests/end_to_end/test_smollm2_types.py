"""SmolLM2 in every type, each byte of it against a second, independent quantizer. Slow: `scripts/test --slow`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from chrysalis_mlx import backends
from chrysalis_mlx.export.calibration import IMATRIX, Texts, collect
from chrysalis_mlx.export.gate.reference import held_out_segments, sample_text
from chrysalis_mlx.gguf import architectures
from chrysalis_mlx.gguf.imatrix import read_imatrix
from chrysalis_mlx.gguf.reader import import_gguf
from chrysalis_mlx.gguf.writer import Written, write_gguf
from chrysalis_mlx.models.directory import ModelDirectory

GGUF = os.environ.get("CHRYSALIS_SMOLLM2_GGUF")
ROW_LENGTH = 512

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(GGUF is None, reason="CHRYSALIS_SMOLLM2_GGUF names no file; scripts/test --slow fetches it"),
]

libgguf = pytest.importorskip(
    "libgguf", reason='the second quantizer is not installed: pip install "chrysalis-mlx[quantizer]"'
)

# How many of the 211 matrices have which type: so did llama-quantize choose, from the F16 file, without an importance
# matrix. Rows of 576 weights are no multiple of 256, so most matrices have a fall-back for the type they would have.
ALONE = {
    "F32": {"F32": 211},
    "F16": {"F16": 211},
    "BF16": {"BF16": 211},
    "Q8_0": {"Q8_0": 211},
    "Q6_K": {"Q6_K": 30, "Q8_0": 181},
    "Q5_1": {"Q5_1": 210, "Q8_0": 1},
    "Q5_K_M": {"Q5_1": 166, "Q5_K": 16, "Q6_K": 14, "Q8_0": 15},
    "Q5_K_S": {"Q5_1": 180, "Q5_K": 30, "Q8_0": 1},
    "Q5_0": {"Q5_0": 210, "Q8_0": 1},
    "Q4_1": {"Q4_1": 210, "Q8_0": 1},
    "Q4_K_M": {"Q4_K": 16, "Q5_0": 166, "Q6_K": 14, "Q8_0": 15},
    "Q4_K_S": {"Q4_K": 27, "Q5_0": 176, "Q5_1": 4, "Q5_K": 3, "Q8_0": 1},
    "Q4_0": {"Q4_0": 210, "Q8_0": 1},
    "IQ4_NL": {"IQ4_NL": 207, "Q5_K": 3, "Q8_0": 1},
    "IQ4_XS": {"IQ4_NL": 180, "IQ4_XS": 27, "Q5_K": 3, "Q8_0": 1},
    "MXFP4": {"Q8_0": 211},
    "Q3_K_L": {"Q4_0": 120, "Q5_1": 60, "Q5_K": 30, "Q8_0": 1},
    "Q3_K_M": {"Q4_0": 120, "Q4_K": 29, "Q5_0": 58, "Q5_1": 2, "Q5_K": 1, "Q8_0": 1},
    "IQ3_M": {"IQ3_S": 27, "IQ4_NL": 120, "Q4_K": 3, "Q5_0": 60, "Q8_0": 1},
    "Q3_K_S": {"Q3_K": 30, "Q4_0": 180, "Q8_0": 1},
    "Q2_K": {"Q3_K": 30, "Q4_0": 180, "Q8_0": 1},
}
# And with one.
WEIGHTED = ALONE | {
    "Q5_0": {"Q5_0": 207, "Q5_1": 3, "Q8_0": 1},
    "Q4_0": {"Q4_0": 207, "Q4_1": 3, "Q8_0": 1},
    "IQ4_NL": {"IQ4_NL": 210, "Q8_0": 1},
    "IQ4_XS": {"IQ4_NL": 180, "IQ4_XS": 30, "Q8_0": 1},
    "IQ2_M": {"IQ2_S": 27, "IQ3_S": 3, "IQ4_NL": 180, "Q8_0": 1},
}
VECTORS = {"F32": 61}


@dataclass(frozen=True)
class Files:
    """SmolLM2 in several types.

    Attributes:
        written: by type, what the writer says.
        tensors: by type and tensor name, what gguf's reader finds.
        weights: importance of each tensor's columns by tensor name, as libgguf reads the importance matrix.
    """

    written: Mapping[str, Written]
    tensors: Mapping[str, Mapping[str, Any]]
    weights: Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    assert GGUF is not None
    directory = tmp_path_factory.mktemp("smollm2") / "model"
    import_gguf(Path(GGUF), directory)
    return ModelDirectory.open(directory)


@pytest.fixture(scope="module")
def imatrix(model: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collected from the gate's sample text: 2,021 tokens."""
    file = tmp_path_factory.mktemp("imatrix") / IMATRIX
    calibration = held_out_segments(sample_text(), model.tokenizer, ROW_LENGTH)
    tensors = architectures.for_config(model.plain_config).tensors(model.checkpoint().names)
    engine = backends.load("mlx")(model.path, dtype="float32")
    collect(file, tensors, Texts((), (), calibration, "sample.txt", ROW_LENGTH), engine)
    return file


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "weighted"])
def files(
    model: ModelDirectory,
    imatrix: Path,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Files]:
    """All types from one pass over the weights, without and with the importance matrix; 3 GB, removed afterwards."""
    directory = tmp_path_factory.mktemp("types")
    paths = {name: directory / f"{name}.gguf" for name in (WEIGHTED if request.param else ALONE)}
    importance = read_imatrix(imatrix) if request.param else None
    written = write_gguf(paths, model.checkpoint(), model.plain_config, model.path, importance=importance)
    yield Files(
        written,
        {name: tensors_of(path) for name, path in paths.items()},
        libgguf.load_imatrix(imatrix) if request.param else {},
    )
    for path in paths.values():
        path.unlink()


def tensors_of(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def test_the_floats_are_those_of_the_file_that_was_imported(files: Files) -> None:
    assert GGUF is not None
    imported, ours = tensors_of(Path(GGUF)), files.tensors["F32"]
    assert ours.keys() == imported.keys()
    for name, tensor in imported.items():
        np.testing.assert_array_equal(ours[name].data, gguf.quants.dequantize(tensor.data, tensor.tensor_type), name)


def test_the_types_are_those_that_llama_quantize_chose(files: Files) -> None:
    expected = WEIGHTED if files.weights else ALONE
    found = {
        name: Counter(tensor.tensor_type.name for tensor in tensors.values()) for name, tensors in files.tensors.items()
    }
    assert found == {name: Counter(matrices) + Counter(VECTORS) for name, matrices in expected.items()}
    assert {name: written.tensor_types for name, written in files.written.items()} == found


def test_every_byte_is_what_the_second_quantizer_makes(files: Files) -> None:
    names = list(files.tensors["F32"])
    # libgguf makes its tables at a type's first call, and dies where two threads do so at once.
    for kind in (libgguf.GGMLQuantizationType.IQ2_S, libgguf.GGMLQuantizationType.IQ3_S):
        libgguf.quantize_rows(np.ones((1, 256), np.float32), kind, np.ones(256, np.float32))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        differing = [found for founds in pool.map(lambda name: differences(files, name), names) for found in founds]
    assert differing == []
    assert len(names) == 272
    assert {len(tensors) for tensors in files.tensors.values()} == {272}


def differences(files: Files, name: str) -> list[str]:
    """The file types in which a tensor has other bytes than libgguf's, from the F32 or F16 file's values."""
    exact, half = files.tensors["F32"][name].data, files.tensors["F16"][name].data
    made: dict[str, bytes] = {"F32": exact.tobytes()}
    found = []
    for type_name, tensors in files.tensors.items():
        ggml_type = tensors[name].tensor_type.name
        if ggml_type not in made:
            kind = libgguf.GGMLQuantizationType[ggml_type]
            floats = ggml_type in ("F16", "BF16")
            theirs = (
                libgguf.store_rows(exact, kind)
                if floats
                else libgguf.quantize_rows(half.astype(np.float32), kind, files.weights.get(name))
            )
            made[ggml_type] = theirs.tobytes()
        if tensors[name].data.tobytes() != made[ggml_type]:
            found.append(f"{name} of {type_name} ({ggml_type})")
    return found


def test_the_bits_per_weight_are_the_true_ones(files: Files) -> None:
    for name, tensors in files.tensors.items():
        size = sum(tensor.n_bytes for tensor in tensors.values())
        weights = sum(tensor.n_elements for tensor in tensors.values())
        assert files.written[name].bits_per_weight == pytest.approx(8 * int(size) / int(weights), rel=1e-12)
        assert files.written[name].bytes > size


def test_the_importance_covers_every_matrix_but_the_embedding(files: Files) -> None:
    matrices = {name for name, tensor in files.tensors["F32"].items() if len(tensor.shape) > 1}
    assert set(files.weights) in (set(), matrices - {"token_embd.weight"})
