"""The MLX engine by itself: its optimizers, dropout, checkpointing, lanes, heads and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from chrysalis_mlx.backends.base import OptimizerName, OptimizerSettings, StepResult, World
from chrysalis_mlx.backends.mlx import attention, rows
from chrysalis_mlx.backends.mlx.engine import Engine
from chrysalis_mlx.batches.packing import Batch, assemble
from chrysalis_mlx.errors import BackendError, ModelError
from tests import tiny
from tests.backends.cases import (
    ROW,
    TOLERANCE,
    Case,
    adapted,
    assert_goes_on_bit_for_bit,
    assert_same,
    difference,
    packed,
    segments,
)

OPTIMIZERS: tuple[OptimizerName, ...] = ("adamw", "adam", "adafactor", "lion", "muon")
SLOTS = {
    "adamw": {"exp_avg", "exp_avg_sq"},
    "adam": {"exp_avg", "exp_avg_sq"},
    "adafactor": {"exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_sq"},
    "lion": {"m"},
    "muon": {"v", "exp_avg", "exp_avg_sq"},
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_llama(tmp_path_factory.mktemp("mlx") / "model", bias=True)


def engine_of(case: Case, **options: Any) -> Engine:
    engine = case.engine("mlx", **options)
    assert isinstance(engine, Engine)
    return engine


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_run_goes_on_bit_for_bit(directory: Path, kind: Any, name: OptimizerName) -> None:
    case = adapted(directory, kind, ["all-linear"], **({} if kind == "full" else {"dropout": 0.3}))
    assert_goes_on_bit_for_bit(case, "mlx", name, SLOTS[name])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(directory: Path, name: OptimizerName) -> None:
    engine = engine_of(adapted(directory, "lora", ["all-linear"]), optimizer=OptimizerSettings(name))
    rate = {"lion": 1e-3, "muon": 1e-2, "adafactor": 1e-1}.get(name, 1e-2)
    losses = [engine.step(packed(), rate).loss for _ in range(8)]
    assert losses[-1] < losses[0] - 0.5


def test_weights_of_one_dimension_do_not_decay_and_b_has_its_own_rate(directory: Path) -> None:
    case = adapted(directory, "dora", ["q_proj"], layers=1)
    plain, decayed, faster = (
        engine_of(case, optimizer=OptimizerSettings(**options))
        for options in ({}, {"weight_decay": 0.5}, {"b_ratio": 3.0})
    )
    for engine in (plain, decayed, faster):
        engine.step(packed(), 1e-2)
    expected = plain.adapter()
    for name, before in case.arrays.items():
        moved = expected[name] - before
        shrunk = 0.0 if name.endswith(".m") else 0.5 * 1e-2 * before
        np.testing.assert_allclose(decayed.adapter()[name], expected[name] - shrunk, atol=1e-6)
        ratio = 3.0 if name.endswith(".B") else 1.0
        np.testing.assert_allclose(faster.adapter()[name] - before, ratio * moved, atol=1e-6)


def test_a_refused_step_changes_nothing(directory: Path) -> None:
    engine = engine_of(adapted(directory, "lora", ["all-linear"], dropout=0.2))
    engine.step(packed(), 1e-3)
    arrays, state, asked = engine.adapter(), engine.optimizer_state(), []

    def refuse(result: StepResult) -> bool:
        asked.append(result)
        return False

    result = engine.step(packed(), 1e-3, refuse)
    assert not result.applied
    assert [(one.loss, one.targets, one.applied) for one in asked] == [(result.loss, 68, True)]
    assert_same(engine.adapter(), arrays)
    assert_same(engine.optimizer_state(), state)
    assert engine.step(packed(), 1e-3).loss == result.loss


def part(batch: Batch, row: int) -> Batch:
    return Batch(*(getattr(batch, field.name)[row : row + 1] for field in fields(Batch)))


def test_dropout_depends_on_the_seed_the_step_and_the_micro_batch(directory: Path) -> None:
    case = adapted(directory, "lora", ["all-linear"], dropout=0.5)
    losses = [engine_of(case, seed=seed).gradients([packed()[0]])[0].loss for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    double = assemble([[segments(30)[0]], [segments(30)[0]]], ROW)
    gradients = [engine_of(case, seed=1).gradients([batch])[0].loss for batch in (double, part(double, 0))]
    assert abs(gradients[0] - gradients[1]) > 1e-4  # and so does the second row of equal ones
    engine = engine_of(case, seed=1)
    twice = engine.gradients([packed()[0], packed()[0]])[0].loss
    assert abs(twice - losses[0]) > 1e-4  # the second micro-batch drops other inputs
    engine.step([packed()[0]], 0.0)
    assert engine.gradients([packed()[0]])[0].loss != losses[0]
    without = engine_of(adapted(directory, "lora", ["all-linear"]))
    for batch in packed():  # measuring drops nothing
        assert engine.loss(batch) == without.loss(batch)


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_checkpointed_layers_have_the_same_gradients(directory: Path, kind: Any) -> None:
    case = adapted(directory, kind, ["all-linear"], **({} if kind == "full" else {"dropout": 0.3}))
    expected_result, expected = engine_of(case, seed=3).gradients(packed())
    result, gradients = engine_of(case, seed=3, gradient_checkpointing=True).gradients(packed())
    assert result.loss == pytest.approx(expected_result.loss, rel=1e-6)
    for name, gradient in gradients.items():
        assert difference(gradient, expected[name]) < TOLERANCE, name


def test_checkpointing_saves_memory(tmp_path: Path) -> None:
    case = adapted(tiny.tiny_llama(tmp_path, layers=32, intermediate=256), "lora", ["all-linear"])
    batch = assemble([segments(500)], 512)
    peaks = []
    for checkpointing in (False, True):
        engine = engine_of(case, gradient_checkpointing=checkpointing)
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        engine.gradients([batch])
        peaks.append(engine.peak_memory() - before)
    assert peaks[1] < 0.7 * peaks[0]


@pytest.mark.parametrize(("layers", "side", "pulled"), [(1, "last", 1), (2, "last", 2), (1, "first", 4)])
def test_nothing_is_back_propagated_below_the_lowest_adapted_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: int, side: Any, pulled: int
) -> None:
    rules, calls = attention._rules, []

    def counting(*arguments: Any) -> Any:
        forward, backward = rules(*arguments)
        return forward, lambda *arrays: calls.append(1) or backward(*arrays)

    monkeypatch.setattr(attention, "_rules", counting)
    case = adapted(tiny.tiny_llama(tmp_path, layers=4), "lora", ["all-linear"], layers=layers, side=side)
    engine_of(case).gradients([assemble([segments(30)], ROW)])
    assert len(calls) == pulled


def test_the_number_of_lanes_changes_only_the_rounding(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = adapted(directory, "dora", ["all-linear"])
    results = []
    for count in (1, 2, 3):
        lanes = rows._lanes()[:1] + [rows._Lane() for _ in range(count - 1)]
        monkeypatch.setattr(rows, "_lanes", lambda lanes=lanes: lanes)
        results.append(engine_of(case).gradients(packed()))
    for result, gradients in results[1:]:
        assert result.loss == pytest.approx(results[0][0].loss, rel=1e-6)
        for name, gradient in gradients.items():
            assert difference(gradient, results[0][1][name]) < TOLERANCE


def test_an_error_in_a_lane_comes_out(directory: Path) -> None:
    def fail(_: rows.Rows, lane: int) -> mx.array:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        rows.in_lanes(packed()[0], 16, fail)


def test_the_program_ends_well_while_lanes_are_at_work() -> None:
    program = (
        "from chrysalis_mlx import backends; backends.load('mlx')\n"
        "import mlx.core as mx\n"
        "from chrysalis_mlx.backends.mlx import rows\n"
        "def work():\n"
        "    for _ in range(200):\n"
        "        mx.eval(mx.ones((200, 200)) @ mx.ones((200, 200)))\n"
        "for lane in rows._lanes():\n"
        "    lane.submit(work)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_targets_and_no_batches_give_no_gradient(directory: Path) -> None:
    engine = engine_of(adapted(directory, "lora", ["q_proj"]))
    (silent,) = segments(9)
    silent.supervised[:] = False
    for batches in ([], [assemble([[silent]], ROW)]):
        result, gradients = engine.gradients(batches)
        assert (result.loss, result.targets, result.grad_norm) == (0.0, 0, 0.0)
        assert not any(gradient.any() for gradient in gradients.values())


def test_one_process_is_a_world_of_its_own(directory: Path) -> None:
    assert Engine.world() == World(0, 1)
    assert engine_of(adapted(directory, "lora", ["q_proj"])).total([0.1, 2.0**40 + 1]) == [0.1, 2.0**40 + 1]


def test_rows_beyond_a_window_that_mlx_lm_does_not_have_are_refused(tmp_path: Path) -> None:
    engine = engine_of(adapted(tiny.tiny_gemma2(tmp_path, sliding_window=16), "lora", ["q_proj"]))
    with pytest.raises(ModelError, match=r"rows of 32 tokens exceed the model's sliding window of 16(.|\n)*--backend"):
        engine.loss(packed()[0])
    batch = assemble([segments(12)], 16)
    assert engine.loss(batch)[1] == 11


def test_a_module_that_mlx_does_not_have_is_named(directory: Path) -> None:
    case = adapted(directory, "lora", ["q_proj"])
    name, own = next(iter(case.spec.modules.items()))
    other = name.replace("q_proj", "r_proj")
    arrays = {key.replace(name, other): array for key, array in case.arrays.items()}
    spec = type(case.spec)("lora", 4, 12.0, {other: own})
    with pytest.raises(BackendError, match=r"layers\.0\.self_attn\.r_proj is NoneType, not a linear layer"):
        Engine(directory, spec, arrays)


def test_an_engine_computes_with_its_own_weights_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """What was compiled for an engine that is gone must serve no other one, and must not keep its weights."""
    cases = [adapted(tiny.tiny_llama(tmp_path / str(seed), seed=seed), "lora", ["all-linear"]) for seed in range(3)]
    held = []
    for number in range(12):
        engine = engine_of(cases[number % 3])
        expected = sum(engine.loss(batch)[0] for batch in packed()) / 68  # this is not compiled
        assert engine.gradients(packed())[0].loss == pytest.approx(expected, rel=1e-5)
        del engine
        rows.in_lanes(packed()[0], 16, lambda one, _: one.weights)  # the lanes have done what they were told before
        held.append(mx.get_active_memory())
    assert max(held[3:]) <= max(held[:3]) + 1000
