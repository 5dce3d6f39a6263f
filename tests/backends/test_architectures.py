"""Every architecture: packed rows equal their segments, the torch engine equals transformers, and MLX equals torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers

from chrysalis_mlx import backends
from chrysalis_mlx.backends.base import OptimizerSettings
from chrysalis_mlx.batches.packing import PADDING, assemble
from tests import tiny
from tests.backends.cases import ROW, TOLERANCE, Case, adapted, alone, difference, packed, segments

Builder = Callable[[Path], Path]
BUILDERS: dict[str, Builder] = {
    "llama": partial(tiny.tiny_llama, bias=True),
    "qwen2": tiny.tiny_qwen2,
    "qwen3": tiny.tiny_qwen3,
    "gemma2": partial(tiny.tiny_gemma2, sliding_window=ROW),
    "gemma3": tiny.tiny_gemma3,
    "phi3": tiny.tiny_phi3,
    "olmo2": tiny.tiny_olmo2,
    "granite": tiny.tiny_granite,
    "cohere": tiny.tiny_cohere,
}
# Where transformers sees a window of which mlx-lm knows nothing.
WINDOWS: dict[str, Builder] = {
    "gemma2": tiny.tiny_gemma2,
    "mistral": partial(tiny.tiny_mistral, pre="smollm", sliding_window=8),
    "phi3": partial(tiny.tiny_phi3, sliding_window=8),
    "qwen2": partial(tiny.tiny_qwen2, use_sliding_window=True, sliding_window=8, max_window_layers=1),
}
# As transformers 5 writes them, under rope_parameters.
ROTATIONS: dict[str, dict[str, Any]] = {
    "base": {"rope_type": "default", "rope_theta": 3e3},
    "linear": {"rope_type": "linear", "rope_theta": 3e3, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 3e3,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}
UNLIMITED = 1 << 20
KINDS = ("lora", "dora", "full")


@pytest.fixture(scope="module", params=BUILDERS)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, directory: Path) -> Case:
    return adapted(directory, request.param, ["all-linear"])


def of_transformers(directory: Path, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """(T, V) logits of one text, from the whole model and nothing of ours."""
    model = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
    with torch.no_grad():
        logits: npt.NDArray[np.float32] = model(torch.from_numpy(tokens).long()[None]).logits[0].numpy()
    return logits


def assert_equal_to_transformers(directory: Path) -> None:
    """The logits of the texts in a packed row are those of each alone: head, masks and windows are the model's own."""
    texts = segments(12, 17)
    found = backends.load("torch")(directory).logits(assemble([texts], ROW))[0]
    for text, logits in zip(texts, (found[:12], found[12:29]), strict=True):
        assert difference(logits, of_transformers(directory, text.tokens)) < TOLERANCE


def test_the_torch_engine_equals_transformers(directory: Path) -> None:
    assert_equal_to_transformers(directory)


@pytest.mark.parametrize("name", WINDOWS)
def test_a_sliding_window_counts_inside_a_segment(name: str, tmp_path: Path) -> None:
    WINDOWS[name](tmp_path)
    assert_equal_to_transformers(tmp_path)
    batch = assemble([segments(30)], ROW)
    config = tmp_path / "config.json"
    with_window = backends.load("torch")(tmp_path).logits(batch)[0]
    config.write_text(config.read_text().replace('"sliding_window": 8', f'"sliding_window": {UNLIMITED}'))
    without = backends.load("torch")(tmp_path).logits(batch)[0]
    np.testing.assert_allclose(with_window[:8], without[:8], rtol=TOLERANCE, atol=1e-4)
    assert difference(with_window[8:30], without[8:30]) > 1e-2


@pytest.mark.parametrize("name", backends.NAMES)
def test_the_packed_loss_and_gradients_equal_those_of_the_segments_one_by_one(case: Case, name: str) -> None:
    engine = case.engine(name)
    together, gradients = engine.gradients(packed())
    apart, expected = engine.gradients(alone())
    assert together.targets == apart.targets == 68
    assert together.loss == pytest.approx(apart.loss, rel=TOLERANCE)
    assert gradients.keys() == expected.keys() == case.arrays.keys()
    for key, gradient in gradients.items():
        assert difference(gradient, expected[key]) < TOLERANCE, key


def test_the_logits_of_mlx_equal_those_of_torch(case: Case) -> None:
    mlx, reference = (case.engine(name) for name in backends.NAMES)
    for batch in packed():
        real = batch.segments != PADDING
        assert difference(mlx.logits(batch)[real], reference.logits(batch)[real]) < TOLERANCE


def test_the_loss_and_every_gradient_of_mlx_equal_those_of_torch(case: Case) -> None:
    mlx, reference = (case.engine(name) for name in backends.NAMES)
    for batch in packed():
        assert mlx.loss(batch)[0] == pytest.approx(reference.loss(batch)[0], rel=TOLERANCE)
    result, gradients = mlx.gradients(packed())
    expected_result, expected = reference.gradients(packed())
    assert result.loss == pytest.approx(expected_result.loss, rel=TOLERANCE)
    assert result.grad_norm == pytest.approx(expected_result.grad_norm, rel=TOLERANCE)
    assert gradients.keys() == expected.keys() == case.arrays.keys()
    for key, gradient in gradients.items():
        assert np.abs(expected[key]).max() > 0, key
        assert difference(gradient, expected[key]) < TOLERANCE, key


def test_five_steps_of_mlx_have_the_losses_of_torch(case: Case) -> None:
    optimizer = OptimizerSettings(weight_decay=0.1, max_grad_norm=0.5, b_ratio=2.0)
    losses = []
    for name in backends.NAMES:
        engine: Any = case.engine(name, optimizer=optimizer)
        losses.append([engine.step(packed(), rate).loss for rate in (1e-3, 2e-3, 3e-3, 2e-3, 1e-3)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("backend", backends.NAMES)
@pytest.mark.parametrize("name", ROTATIONS)
@pytest.mark.parametrize("build", [tiny.tiny_llama, tiny.tiny_qwen2, tiny.tiny_qwen3, tiny.tiny_mistral])
def test_rotary_settings_are_read_as_transformers_5_writes_them(
    build: Builder, name: str, backend: str, tmp_path: Path
) -> None:
    partial(build, rope_parameters=ROTATIONS[name])(tmp_path)
    text = segments(24)[0]
    logits = backends.load(backend)(tmp_path).logits(assemble([[text]], 24))[0]
    assert difference(logits, of_transformers(tmp_path, text.tokens)) < TOLERANCE
