"""The torch engine by itself: its steps, its optimizers, dropout, checkpointing and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.spec import AdapterArrays
from chrysalis_mlx.backends.base import DEFAULT_OPTIMIZER, OptimizerName, OptimizerSettings, StepResult, World
from chrysalis_mlx.backends.torch.engine import Engine
from chrysalis_mlx.backends.torch.model import positions
from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.errors import BackendError, ModelError
from tests import tiny
from tests.backends.cases import TOLERANCE, Case, adapted, assert_goes_on_bit_for_bit, assert_same, difference, packed

OPTIMIZERS: tuple[OptimizerName, ...] = ("adamw", "adam", "adafactor", "muon")
SLOTS = {
    "adamw": {"exp_avg", "exp_avg_sq"},
    "adam": {"exp_avg", "exp_avg_sq"},
    "adafactor": {"row_var", "col_var", "variance"},
    "muon": {"momentum_buffer", "exp_avg", "exp_avg_sq"},
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_llama(tmp_path_factory.mktemp("torch") / "model", bias=True)


@pytest.fixture(scope="module")
def dora(directory: Path) -> Case:
    """DoRA with dropout."""
    return adapted(directory, "dora", ["all-linear"], dropout=0.3)


def engine_of(case: Case, **options: Any) -> Engine:
    engine = case.engine("torch", **options)
    assert isinstance(engine, Engine)
    return engine


def changed(found: AdapterArrays, before: AdapterArrays) -> bool:
    return any(not np.array_equal(array, before[name]) for name, array in found.items())


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_run_goes_on_bit_for_bit(directory: Path, kind: Any, name: OptimizerName) -> None:
    case = adapted(directory, kind, ["all-linear"], dropout=0.3)
    assert_goes_on_bit_for_bit(case, "torch", name, SLOTS[name])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(dora: Case, name: OptimizerName) -> None:
    engine = engine_of(dora, optimizer=OptimizerSettings(name))
    before = sum(engine.loss(batch)[0] for batch in packed())
    for _ in range(8):
        engine.step(packed(), 1e-2)
    assert sum(engine.loss(batch)[0] for batch in packed()) < 0.9 * before


def test_lion_is_refused_with_what_there_is(dora: Case) -> None:
    with pytest.raises(BackendError, match="torch has no optimizer lion") as caught:
        engine_of(dora, optimizer=OptimizerSettings("lion"))
    assert "adamw, adam, adafactor or muon" in str(caught.value)


def test_a_step_without_batches_decays_matrices_alone_and_b_by_its_own_rate(dora: Case) -> None:
    engine = engine_of(dora, optimizer=OptimizerSettings(weight_decay=0.5, b_ratio=4.0))
    result = engine.step([], 0.1)
    assert result == StepResult(0.0, 0, 0.0, True)
    factors = {"A": 1 - 0.1 * 0.5, "B": 1 - 4 * 0.1 * 0.5, "m": 1.0}
    for name, array in engine.adapter().items():
        np.testing.assert_allclose(array, dora.arrays[name] * factors[name[-1]], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("limit", [0.0, 0.25, 1e6])
def test_the_gradient_is_clipped_by_its_global_norm(dora: Case, limit: float) -> None:
    engine = engine_of(dora, optimizer=OptimizerSettings(max_grad_norm=limit))
    result, gradients = engine.gradients(packed())
    norm = np.sqrt(sum(np.square(gradient.astype(np.float64)).sum() for gradient in gradients.values()))
    assert result.grad_norm == pytest.approx(norm, rel=TOLERANCE)
    assert norm > 0.25
    assert engine.step(packed(), 1e-3) == result
    clip = limit / norm if 0 < limit < norm else 1.0
    state = engine.optimizer_state()
    for name, gradient in gradients.items():
        assert difference(state[f"exp_avg.{name}"], 0.1 * clip * gradient) < 1e-4, name


def test_a_step_that_is_not_accepted_changes_nothing(dora: Case) -> None:
    engine, other = engine_of(dora), engine_of(dora)
    engine.step(packed(), 1e-3)
    adapter, state = engine.adapter(), engine.optimizer_state()
    asked: list[StepResult] = []
    refused = engine.step(packed(), 1e-3, lambda result: asked.append(result) is not None)
    assert [refused.loss, refused.targets, refused.applied] == [asked[0].loss, 68, False]
    assert_same(engine.adapter(), adapter)
    assert_same(engine.optimizer_state(), state)
    other.step(packed(), 1e-3)
    assert engine.step(packed(), 1e-3) == other.step(packed(), 1e-3)


def test_dropout_follows_from_seed_step_and_micro_batch_alone(dora: Case) -> None:
    first = packed()[0]
    engine = engine_of(dora, seed=1)
    before = torch.random.get_rng_state()
    result, gradients = engine.gradients([first])
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    again, same = engine.gradients([first])
    assert again == result
    assert_same(same, gradients)
    assert engine_of(dora, seed=2).gradients([first])[0].loss != result.loss
    twice = engine.gradients([first, first])[0].loss
    assert twice != result.loss
    assert abs(twice - result.loss) < 0.2 * result.loss
    engine.step([], 0.0)  # nothing is learned, and the step is counted
    assert engine.gradients([first])[0].loss != result.loss


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_dropout_is_of_the_low_rank_path_alone_and_of_training_alone(directory: Path, kind: Any) -> None:
    case, plain = (adapted(directory, kind, ["all-linear"], dropout=share) for share in (0.5, 0.0))
    engine, without = engine_of(case), engine_of(plain)
    for batch in packed():
        np.testing.assert_array_equal(engine.logits(batch), without.logits(batch))
        assert engine.loss(batch) == without.loss(batch)
    assert engine.gradients(packed())[0].loss != without.gradients(packed())[0].loss
    # With B = 0 the low-rank path gives nothing, whatever it sees; DoRA's m is still not the norm of W.
    silent = {name: array * (0 if name.endswith(".B") else 1) for name, array in case.arrays.items()}
    results = [e.gradients(packed())[0].loss for e in (engine_of(c._replace(arrays=silent)) for c in (case, plain))]
    assert results[0] == pytest.approx(results[1], rel=1e-6)


@pytest.mark.parametrize("kind", ["dora", "full"])
def test_checkpointing_changes_no_bit_and_keeps_less(directory: Path, kind: Any) -> None:
    case = adapted(directory, kind, ["all-linear"], dropout=0.3)
    results, kept = [], []
    for checkpointing in (False, True):
        engine = engine_of(case, gradient_checkpointing=checkpointing, seed=3)
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            results.append(engine.gradients(packed()))
        kept.append(sum(sizes))
    assert results[0][0] == results[1][0]
    assert_same(results[1][1], results[0][1])
    assert kept[1] < kept[0] / 5


def test_full_fine_tuning_has_the_gradients_of_the_plain_model(directory: Path) -> None:
    case = adapted(directory, "full", [], layers=1)
    assert all(name.startswith("model.layers.1.") for name in case.arrays)
    batch = packed()[0]
    _, gradients = engine_of(case).gradients([batch])
    model = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in case.arrays.items()}, strict=False)
    total = torch.zeros(())
    for row in range(2):
        for segment in range(1, batch.segments[row].max() + 1):
            tokens = torch.from_numpy(batch.tokens[row][batch.segments[row] == segment]).long()
            logits = model(tokens[None]).logits[0, :-1]
            total = total + torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="sum")
    (total / batch.target_count).backward()
    weights = dict(model.named_parameters())
    assert gradients.keys() == case.arrays.keys()
    for name, gradient in gradients.items():
        assert difference(gradient, weights[name].grad.numpy()) < TOLERANCE, name


def test_whole_weights_are_trained_in_float32_only(directory: Path) -> None:
    case = adapted(directory, "full", [])
    with pytest.raises(BackendError, match="float32 only"):
        engine_of(case, dtype="bfloat16")


def test_a_bfloat16_base_keeps_float32_masters(dora: Case) -> None:
    engine, exact = engine_of(dora, dtype="bfloat16"), engine_of(dora)
    assert engine.dtype == "bfloat16"
    assert_same(engine.adapter(), dora.arrays)
    assert engine.gradients(packed())[0].loss == pytest.approx(exact.gradients(packed())[0].loss, rel=0.02)


def test_a_weight_that_is_missing_is_named(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"the weights lack model\.layers\.1\.mlp\.up_proj\.weight"):
        Engine(tmp_path / "model")


def test_positions_begin_again_in_every_segment_and_padding_goes_on() -> None:
    numbers = np.array([[1, 1, 1, 2, 3, 3, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0], [0] * 8], np.int32)
    assert positions(numbers).tolist() == [[0, 1, 2, 0, 0, 1, 2, 3], list(range(8)), list(range(8))]


def test_it_is_alone_in_its_world_and_a_base_without_adapter_is_measured(directory: Path) -> None:
    assert Engine.world() == World(0, 1)
    engine = backends.load("torch")(directory, optimizer=DEFAULT_OPTIMIZER)
    assert engine.total([1.5, 2.0]) == [1.5, 2.0]
    batch: Batch = packed()[0]
    total, count = engine.loss(batch)
    assert count == batch.target_count == 35
    assert 1.0 < total / count < 20.0
    assert engine.adapter() == {}
