"""MLX on the packed weights of a quantized model equals torch on the same weights unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.spec import Kind
from chrysalis_mlx.backends.base import OptimizerSettings
from chrysalis_mlx.batches.packing import PADDING
from tests import tiny
from tests.backends.cases import Case, adapted, difference, packed

SETTINGS: dict[str, dict[str, Any]] = {
    **{f"{bits}-bit": {"bits": bits} for bits in (2, 3, 4, 5, 6, 8)},
    "mxfp4": {"bits": 4, "mode": "mxfp4"},
    "mixed": {"bits": 4, "own": {"model.layers.0.mlp.down_proj": {"bits": 8, "group_size": 64}, "lm_head": False}},
}
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=SETTINGS)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    return tiny.quantized(tiny.tiny_llama(root / "plain", tie=False), root / "packed", **SETTINGS[request.param])


@pytest.fixture(scope="module", params=["lora", "dora"])
def case(request: pytest.FixtureRequest, directory: Path) -> Case:
    return adapted(directory, request.param, ["all-linear"])


def test_logits_loss_and_gradients_equal_those_of_the_unpacked_weights(case: Case) -> None:
    mlx, torch = (case.engine(name) for name in backends.NAMES)
    for batch in packed():
        real = batch.segments != PADDING
        assert difference(mlx.logits(batch)[real], torch.logits(batch)[real]) < TOLERANCE
    result, gradients = mlx.gradients(packed())
    expected_result, expected = torch.gradients(packed())
    assert result.loss == pytest.approx(expected_result.loss, rel=TOLERANCE)
    assert gradients.keys() == expected.keys()
    for key, gradient in gradients.items():
        assert difference(gradient, expected[key]) < TOLERANCE, key


def test_training_lowers_the_loss_and_goes_on_bit_for_bit(directory: Path) -> None:
    kind: Kind = "dora"
    case = adapted(directory, kind, ["all-linear"], dropout=0.1)
    options = {"optimizer": OptimizerSettings(weight_decay=0.1), "seed": 3}
    whole = case.engine("mlx", **options)
    losses = [whole.step(packed(), 5e-3).loss for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]
    first, second = (case.engine("mlx", **options) for _ in range(2))
    assert [first.step(packed(), 5e-3).loss for _ in range(4)] == losses[:4]
    second.restore(first.adapter(), first.optimizer_state())
    assert [second.step(packed(), 5e-3).loss for _ in range(4)] == losses[4:]
    ended = second.adapter()
    for name, array in whole.adapter().items():
        np.testing.assert_array_equal(ended[name], array, err_msg=name)
