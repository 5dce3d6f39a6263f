"""reference.py, MLX and torch compute the same: logits, loss and every adapter gradient, LoRA and DoRA."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.merge import MergedSource
from chrysalis_mlx.backends import reference
from chrysalis_mlx.backends.base import OptimizerSettings
from chrysalis_mlx.batches.packing import PADDING, Batch
from chrysalis_mlx.models.checkpoint import write_checkpoint
from chrysalis_mlx.models.directory import ModelDirectory
from tests import tiny
from tests.backends.cases import TOLERANCE, Case, adapted, alone, difference, packed
from tests.backends.reference_model import ReferenceModel

Kind = Literal["lora", "dora"]
BUILDERS: dict[str, Callable[[Path], None]] = {
    "llama": lambda directory: tiny.tiny_llama(directory, bias=True),
    "llama-untied": lambda directory: tiny.tiny_llama(directory, tie=False),
    "qwen3": lambda directory: tiny.tiny_qwen3(directory),
}


@pytest.fixture(scope="module", params=[f"{model}-{kind}" for model in BUILDERS for kind in ("lora", "dora")])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    model, _, kind = request.param.rpartition("-")
    directory = tmp_path_factory.mktemp(request.param)
    BUILDERS[model](directory)
    return adapted(directory, kind, ["all-linear"])


@pytest.mark.parametrize("name", backends.NAMES)
def test_logits_loss_and_every_gradient_equal_the_reference(case: Case, name: str) -> None:
    engine, oracle, batches = case.engine(name), ReferenceModel(*case), packed()
    for batch in batches:
        real = batch.segments != PADDING
        assert difference(engine.logits(batch)[real], oracle.logits(batch)[real]) < TOLERANCE
    result, gradients = engine.gradients(batches)
    loss, expected = oracle.gradients(batches)
    assert result.loss == pytest.approx(loss, rel=TOLERANCE)
    assert result.targets == sum(int(batch.mask.sum()) for batch in batches) == 68
    assert gradients.keys() == expected.keys() == case.arrays.keys()
    for key, gradient in gradients.items():
        assert np.abs(expected[key]).max() > 0, key
        assert difference(gradient, expected[key]) < TOLERANCE, key
    norm = np.sqrt(sum(np.square(gradient).sum() for gradient in expected.values()))
    assert result.grad_norm == pytest.approx(norm, rel=TOLERANCE)


def test_five_optimizer_steps_have_the_same_losses_and_end_in_the_same_adapter(case: Case) -> None:
    optimizer = OptimizerSettings(weight_decay=0.1, max_grad_norm=0.5)
    engines = [case.engine(name, optimizer=optimizer) for name in backends.NAMES]
    rates = (1e-3, 2e-3, 3e-3, 2e-3, 1e-3)
    losses = [[engine.step(packed(), rate).loss for rate in rates] for engine in engines]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert losses[0][-1] < losses[0][0]
    ours, theirs = (engine.adapter() for engine in engines)
    for key, array in ours.items():
        # Adam divides by the gradient's own size: where that is rounding noise the two may part by a step.
        assert np.quantile(np.abs(array - theirs[key]), 0.99) < 1e-4, key


def test_the_packed_loss_and_gradients_equal_those_of_the_segments_one_by_one(case: Case) -> None:
    for name in backends.NAMES:
        engine = case.engine(name)
        together, gradients = engine.gradients(packed())
        apart, expected = engine.gradients(alone())
        assert together.targets == apart.targets
        assert together.loss == pytest.approx(apart.loss, rel=TOLERANCE)
        for key, gradient in gradients.items():
            assert difference(gradient, expected[key]) < TOLERANCE, (name, key)


def test_accumulation_is_weighted_by_tokens(case: Case) -> None:
    first, second = packed()
    whole = Batch(
        *(np.concatenate([getattr(first, f.name), getattr(second, f.name)]) for f in dataclasses.fields(Batch))
    )
    for name in backends.NAMES:
        engine = case.engine(name)
        accumulated, gradients = engine.gradients([first, second])
        at_once, expected = engine.gradients([whole])
        assert accumulated.loss == pytest.approx(at_once.loss, rel=TOLERANCE)
        mean_of_means = sum(engine.loss(batch)[0] / batch.target_count for batch in (first, second)) / 2
        assert abs(accumulated.loss - mean_of_means) > 2 * TOLERANCE * at_once.loss
        for key, gradient in gradients.items():
            assert difference(gradient, expected[key]) < TOLERANCE, (name, key)


def test_fused_logits_equal_adapter_logits(case: Case, tmp_path: Path) -> None:
    model = ModelDirectory.open(case.directory)
    source = MergedSource(model.checkpoint(), case.spec, case.arrays)
    for file in case.directory.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    write_checkpoint(tmp_path / "model.safetensors", {n: source.shape(n) for n in source.names}, source.read)
    for name in backends.NAMES:
        for batch in packed():
            real = batch.segments != PADDING
            trained, fused = case.engine(name).logits(batch)[real], backends.load(name)(tmp_path).logits(batch)[real]
            assert np.abs(trained - fused).max() < 1e-4
            assert np.abs(trained - backends.load(name)(case.directory).logits(batch)[real]).max() > 1e-2


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_any_subset_of_linear_layers_can_be_adapted(kind: Kind, tmp_path: Path) -> None:
    tiny.tiny_llama(tmp_path, bias=True)
    case = adapted(tmp_path, kind, ["v_proj", "mlp.*_proj"], layers=1)
    assert {module.split(".", 3)[2] for module in case.spec.modules} == {"1"}
    assert case.spec.keys == ("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.v_proj")
    _, expected = ReferenceModel(*case).gradients(packed())
    for name in backends.NAMES:
        _, gradients = case.engine(name).gradients(packed())
        assert gradients.keys() == expected.keys()
        for key, gradient in gradients.items():
            assert difference(gradient, expected[key]) < TOLERANCE, (name, key)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_every_module_can_have_a_rank_and_an_alpha_of_its_own(kind: Kind, rslora: bool, tmp_path: Path) -> None:
    tiny.tiny_llama(tmp_path, bias=True, layers=3)
    own: dict[str, Any] = {"ranks": {"q_proj": 2, "mlp.*": 6}, "alphas": {"v_proj": 3.0}, "rslora": rslora}
    case = adapted(tmp_path, kind, ["q_proj", "v_proj", "down_proj"], layers=2, side="first", **own)
    assert case.spec.layer_indices == [0, 1]
    shapes = {name.removeprefix("model.layers.1."): array.shape for name, array in case.arrays.items()}
    assert [shapes[f"{key}.A"][0] for key in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")] == [2, 4, 6]
    scales = [case.spec.modules[f"model.layers.0.{key}"].scale for key in ("self_attn.q_proj", "self_attn.v_proj")]
    assert scales == pytest.approx([12 / 2**0.5, 3 / 2] if rslora else [6.0, 0.75])
    loss, expected = ReferenceModel(*case).gradients(packed())
    for name in backends.NAMES:
        result, gradients = case.engine(name).gradients(packed())
        assert result.loss == pytest.approx(loss, rel=TOLERANCE)
        assert gradients.keys() == expected.keys()
        for key, gradient in gradients.items():
            assert difference(gradient, expected[key]) < TOLERANCE, (name, key)


def test_the_factored_norm_is_the_norm_of_the_adapted_weight() -> None:
    random = np.random.default_rng(2)
    W, A, B = (random.normal(size=shape) for shape in ((24, 16), (3, 16), (24, 3)))
    naive = np.linalg.norm(W + 0.7 * B @ A, axis=1)
    np.testing.assert_allclose(reference.adapted_norm(W, A, B, 0.7), naive, rtol=1e-12)


def test_each_backend_goes_on_from_the_others_state(case: Case) -> None:
    mlx, torch = (case.engine(name) for name in backends.NAMES)
    for engine in (mlx, torch):
        engine.step(packed(), 1e-3)
    arrays, state = mlx.adapter(), mlx.optimizer_state()
    assert state.keys() == torch.optimizer_state().keys()
    assert state["step"].tolist() == [1.0]
    torch.restore(arrays, state)
    assert torch.step(packed(), 1e-3).loss == pytest.approx(mlx.step(packed(), 1e-3).loss, rel=1e-5)
    assert torch.optimizer_state()["step"].tolist() == mlx.optimizer_state()["step"].tolist() == [2.0]


def test_the_reference_gradients_are_those_of_finite_differences(case: Case) -> None:
    oracle, batches = ReferenceModel(*case), packed()
    _, gradients = oracle.gradients(batches)
    random, checked = np.random.default_rng(1), 0
    for key in random.permutation(sorted(key for key in gradients if case.spec.kind == "lora" or key.endswith(".m"))):
        at = tuple(random.integers(0, size) for size in gradients[key].shape)
        losses = []
        for change in (1e-5, -1e-5):
            moved = {name: array.astype(np.float64) for name, array in case.arrays.items()}
            moved[key][at] += change
            other = ReferenceModel(case.directory, case.spec, case.arrays)
            other.arrays = moved
            losses.append(other.gradients(batches)[0])
        assert gradients[key][at] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-4, abs=1e-8)
        checked += 1
        if checked == 6:
            break
    assert checked == 6
