"""log p of every target: what the float64 reference has, what the loss sums up, and the same in both backends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.spec import Kind
from chrysalis_mlx.backends import reference
from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.batches.packing import Batch, assemble
from tests import tiny
from tests.backends.cases import ROW, TOLERANCE, Case, adapted, difference, packed, segments
from tests.backends.reference_model import ReferenceModel

Builder = Callable[[Path], Path]
# Capped logits, scaled ones, divided ones; a head of its own, and a mixture of experts.
BUILDERS: dict[str, Builder] = {
    "gemma2": partial(tiny.tiny_gemma2, sliding_window=ROW),
    "gemma3": tiny.tiny_gemma3,
    "cohere": tiny.tiny_cohere,
    "granite": tiny.tiny_granite,
    "phi3": tiny.tiny_phi3,
    "qwen3-moe": tiny.tiny_qwen3_moe,
}


@pytest.fixture(scope="module", params=["lora", "dora", "full"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    directory = tiny.tiny_llama(tmp_path_factory.mktemp(request.param) / "model", bias=True)
    return adapted(directory, request.param, ["all-linear"])


def of_logits(engine: Engine, batch: Batch) -> npt.NDArray[np.float64]:
    """From all logits at once, in float64."""
    return reference.target_logprobs(engine.logits(batch).astype(np.float64), batch.targets, batch.mask)


def assert_complete(engine: Engine, batch: Batch, found: npt.NDArray[np.float32]) -> None:
    """Nothing where there is no target, and in all what the loss is."""
    assert found.dtype == np.float32
    assert not found[~batch.mask].any()
    assert (found[batch.mask] < 0).all()
    assert -found.astype(np.float64).sum() == pytest.approx(engine.loss(batch)[0], rel=1e-6)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("name", backends.NAMES)
def test_they_equal_those_of_the_float64_model(name: str, kind: Kind, tmp_path: Path) -> None:
    case = adapted(tiny.tiny_qwen3(tmp_path), kind, ["all-linear"])
    engine, oracle = case.engine(name), ReferenceModel(*case)
    for batch in packed():
        found = engine.target_logprobs(batch)
        expected = reference.target_logprobs(oracle.logits(batch), batch.targets, batch.mask)
        assert difference(found, expected) < TOLERANCE
        assert_complete(engine, batch, found)


@pytest.mark.parametrize("name", backends.NAMES)
def test_every_kind_of_adapter_is_applied(case: Case, name: str) -> None:
    engine, base = case.engine(name), backends.load(name)(case.directory)
    for batch in packed():
        found = engine.target_logprobs(batch)
        assert difference(found, of_logits(engine, batch)) < TOLERANCE
        assert_complete(engine, batch, found)
        assert difference(found, base.target_logprobs(batch)) > 1e-2


@pytest.mark.parametrize("architecture", BUILDERS)
def test_heads_that_cap_and_scale_are_the_models_own_in_both_backends(architecture: str, tmp_path: Path) -> None:
    case = adapted(BUILDERS[architecture](tmp_path), "dora", ["self_attn.*"])
    engines = [case.engine(name) for name in backends.NAMES]
    for batch in packed():
        mlx, torch = (engine.target_logprobs(batch) for engine in engines)
        for engine, found in zip(engines, (mlx, torch), strict=True):
            assert difference(found, of_logits(engine, batch)) < TOLERANCE
            assert_complete(engine, batch, found)
        assert difference(mlx, torch) < TOLERANCE


@pytest.mark.parametrize("name", backends.NAMES)
def test_a_target_knows_nothing_of_the_other_segments_of_its_row(case: Case, name: str) -> None:
    engine = case.engine(name)
    texts = segments(12, 17, 9, 30, 5)
    found = np.concatenate([engine.target_logprobs(batch)[batch.mask] for batch in packed()])
    alone = [engine.target_logprobs(assemble([[text]], len(text.tokens)))[0, :-1] for text in texts]
    assert difference(found, np.concatenate(alone)) < TOLERANCE


@pytest.mark.parametrize("name", backends.NAMES)
def test_each_row_gets_its_own_whatever_the_number_of_its_targets(case: Case, name: str) -> None:
    texts = segments(3, 25, 2, 30, 11, 19, 28)
    for number, text in enumerate(texts):
        text.supervised[: 2 * number] = False  # the first two texts of seven, and the third, end up with few or none
    engine, batch = case.engine(name), assemble([[text] for text in texts], ROW)
    counts = batch.mask.sum(axis=1).tolist()
    assert counts == [2, 23, 0, 24, 3, 9, 16]
    found = engine.target_logprobs(batch)
    assert difference(found, of_logits(engine, batch)) < TOLERANCE
    assert_complete(engine, batch, found)


@pytest.mark.parametrize("name", backends.NAMES)
def test_without_targets_all_is_zero(case: Case, name: str) -> None:
    (silent,) = segments(9)
    silent.supervised[:] = False
    found = case.engine(name).target_logprobs(assemble([[silent]], ROW))
    assert found.shape == (1, ROW)
    assert not found.any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", backends.NAMES)
def test_of_a_half_precision_base_they_are_summed_up_in_float32(name: str, dtype: str, tmp_path: Path) -> None:
    case = adapted(tiny.tiny_llama(tmp_path), "dora", ["all-linear"])
    engine, exact = case.engine(name, dtype=dtype), case.engine(name)
    for batch in packed():
        found = engine.target_logprobs(batch)
        assert found.dtype == np.float32
        # Of the very same half-precision logits; the error against float32 is that of the model itself.
        assert difference(found, of_logits(engine, batch)) < (1e-5 if name == "torch" else 2e-2)
        assert difference(found, exact.target_logprobs(batch)) < 5e-2


@pytest.mark.parametrize("name", backends.NAMES)
def test_dropout_drops_nothing_and_training_shows_at_once(name: str, tmp_path: Path) -> None:
    directory = tiny.tiny_llama(tmp_path)
    dropping, plain = (adapted(directory, "dora", ["all-linear"], dropout=share).engine(name) for share in (0.5, 0.0))
    batch = packed()[0]
    dropping.gradients([batch])
    before = dropping.target_logprobs(batch)
    np.testing.assert_array_equal(before, plain.target_logprobs(batch))
    dropping.step([batch], 1e-2)
    after = dropping.target_logprobs(batch)
    assert difference(after, before) > 1e-3
    assert difference(after, of_logits(dropping, batch)) < TOLERANCE
