"""What a training will take: the prediction against the real engine, the limits, and the refusal."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from chrysalis_mlx.backends.mlx import loss
from chrysalis_mlx.blueprint.schema import AdapterSection, Blueprint, TrainingSection
from chrysalis_mlx.errors import BlueprintError, ModelError, TrainingError
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.training import memory
from chrysalis_mlx.training.memory import Memory, Shape, predict
from chrysalis_mlx.training.plan import Base, make_plan, measure, require_fit, usable_memory
from tests import tiny
from tests.models.published import PUBLISHED

ROOT = Path(__file__).parents[2]
MILLION = 10**6
BLUEPRINT = Blueprint(
    name="planned",
    adapter=AdapterSection(rank=4),
    training=TrainingSection(row_length=128, batch_size=2, steps=10, gradient_accumulation=3),
)


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Base:
    return Base.of(tiny_model, ModelDirectory.open(tiny_model).config)


def published(source: str) -> Base:
    return Base.of(Path("nowhere"), PUBLISHED[source][0])


def test_the_prediction_is_within_15_percent_of_what_the_engine_takes() -> None:
    shapes = ["weights", "activations", "head-short", "dora-wide", "checkpointing"]
    command = [sys.executable, str(ROOT / "scripts/bench_plan.py"), "--json", *shapes]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = {row["shape"]: row["predicted"] / row["measured"] for row in map(json.loads, done.stdout.splitlines())}
    assert found == {shape: pytest.approx(1.0, abs=0.15) for shape in shapes}


@pytest.mark.parametrize("vocabulary", [512, 4096, 49152, 151936, 262144])
def test_the_chunks_of_the_loss_are_the_engines(vocabulary: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for device, on_cpu in (("cpu", True), ("gpu", False)):
        monkeypatch.setattr(loss, "on_cpu", lambda on_cpu=on_cpu: on_cpu)
        assert memory.chunk_size(vocabulary, device) == loss.chunk_size(vocabulary)  # type: ignore[arg-type]


def test_the_peak_counts_what_is_there_at_one_moment() -> None:
    parts = {"weights": 100, "adapter": 20, "optimizer": 3, "activations": 50, "head": 9, "layer": 7}
    assert Memory(**parts, update=0).peak == 182
    assert Memory(**(parts | {"layer": 10}), update=59).peak == 183
    assert Memory(**parts, update=60).peak == 183


def test_every_part_follows_its_formula() -> None:
    qwen = published("Qwen/Qwen3-0.6B")
    shape, section = qwen.shape, TrainingSection(row_length=1024, batch_size=2)
    tokens, H, A, K, W = 2048, 1024, 16 * 128, 8 * 128, 3072
    spec = qwen.spec(AdapterSection(rank=16))
    per_layer = 16 * (4 * H + A + K + K + A + 3 * (H + W))
    assert spec.parameter_count() == 28 * per_layer

    found = predict(shape, spec, section, weights=77, device="gpu", size=2)
    assert (found.weights, found.adapter, found.optimizer) == (77, 28 * per_layer * 8, 28 * per_layer * 8)
    assert found.update == 28 * per_layer * 12
    width = 4 * H + 3 * A + 2 * K + 3 * W + 7 * 16
    assert found.activations == 28 * tokens * (2 * width + 4 * 16)
    assert found.head == 5 * memory.chunk_size(151936, "gpu") * 151936 * 4

    dora = predict(shape, qwen.spec(AdapterSection("dora", 16)), section, weights=77, device="gpu", size=2)
    assert dora.activations - found.activations == 28 * tokens * 2 * (A + 2 * K + 2 * H + 2 * W)
    again = replace(section, gradient_checkpointing=True)
    assert predict(shape, spec, again, weights=0, device="gpu", size=2).activations == 28 * tokens * 2 * H
    last = qwen.spec(AdapterSection(rank=16, layers=4))
    assert predict(shape, last, section, weights=0, device="gpu", size=2).activations * 7 == found.activations
    first = qwen.spec(AdapterSection(rank=16, layers=1, side="first", modules=("q_proj",)))
    kept = predict(shape, first, section, weights=0, device="gpu", size=2).activations
    assert kept == tokens * (28 * (2 * (width - A - W - 7 * 16) + 4 * 16) + 2 * 16)


@pytest.mark.parametrize(
    ("optimizer", "slots"), [("adamw", 2), ("adam", 2), ("lion", 1), ("muon", 1), ("adafactor", 0.05)]
)
def test_the_optimizer_remembers_so_many_arrays(base: Base, optimizer: str, slots: float) -> None:
    spec = base.spec(AdapterSection())
    section = TrainingSection(optimizer=optimizer)  # type: ignore[arg-type]
    assert base.memory(spec, section, "cpu").optimizer == round(spec.parameter_count() * 4 * slots)


def test_lanes_hold_their_rows_and_a_third_more_of_what_is_computed(base: Base) -> None:
    spec, section = base.spec(AdapterSection()), TrainingSection(row_length=256)
    one, two, four = (
        predict(base.shape, spec, replace(section, batch_size=rows), weights=0, device="cpu", size=4, lanes=2)
        for rows in (1, 2, 4)
    )
    assert [part.activations for part in (two, four)] == [2 * one.activations, 4 * one.activations]
    assert two.layer == pytest.approx(one.layer * 4 / 3, abs=1)
    assert four.layer == pytest.approx(one.layer * 8 / 3, abs=2)


def test_a_base_is_the_same_from_its_config_as_from_its_weights(base: Base, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((base.directory / "config.json").read_text())
    alone = Base.locate(str(tmp_path))
    assert (base.is_here, alone.is_here) == (True, False)
    assert alone == replace(base, directory=tmp_path, is_here=False, linears=alone.linears)
    assert dict(alone.linears) == dict(base.linears)
    assert base.bytes_per_number("auto", "cpu") == base.bytes_per_number("auto", "gpu") == 4  # it is stored in float32
    assert published("Qwen/Qwen3-0.6B").bytes_per_number("auto", "gpu") == 2


def test_quantized_weights_count_as_they_are_packed(tmp_path: Path) -> None:
    model = tiny.tiny_llama(tmp_path / "model", hidden=128, intermediate=256)
    packed = tiny.quantized(model, tmp_path / "packed", group_size=64)
    config = json.loads((packed / "config.json").read_text())
    here = Base.of(packed, config)
    assert here.packed == (packed / "model.safetensors").stat().st_size
    (tmp_path / "config.json").write_text(json.dumps(config))
    elsewhere = Base.locate(str(tmp_path))
    assert elsewhere.packed == round(here.parameters * (4 + 0.5) / 8)
    assert base_memory(here) == here.packed
    assert published("mlx-community/Qwen3-4B-4bit").packed == round(4_022_468_096 * 4.5 / 8)


def base_memory(base: Base) -> int:
    return base.memory(base.spec(AdapterSection()), TrainingSection(), "gpu").weights


def test_phi3_has_its_own_linear_layers() -> None:
    linears = published("mlx-community/Phi-3-mini-4k-instruct-4bit").linears
    assert linears["model.layers.31.self_attn.qkv_proj"] == (9216, 3072)
    assert linears["model.layers.0.mlp.gate_up_proj"] == (16384, 3072)
    assert len(linears) == 32 * 4


def test_a_config_without_its_numbers() -> None:
    with pytest.raises(ModelError, match="num_attention_heads"):
        Shape.of({"model_type": "llama", "hidden_size": 64})


def test_the_masters_of_a_full_fine_tuning_stand_in_place_of_the_weights(base: Base) -> None:
    spec, section = base.spec(AdapterSection("full")), TrainingSection()
    trained = spec.parameter_count() * 4
    found = base.memory(spec, section, "cpu")
    assert found.weights == base.parameters * 4 - trained
    assert (found.adapter, found.optimizer) == (2 * trained, 2 * trained)
    assert make_plan(base, replace(BLUEPRINT, adapter=AdapterSection("full")), "cpu", 10**9).fit.rank is None


def test_a_part_of_the_memory_may_be_used() -> None:
    assert usable_memory(12 * 10**9, "gpu") == 8 * 10**9
    assert usable_memory(12 * 10**9, "cpu") == 9 * 10**9


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_largest_settings_fit_and_the_next_do_not(device: memory.Device) -> None:
    qwen = published("Qwen/Qwen3-0.6B")
    machine = 32 * 10**9 if device == "cpu" else 16 * 10**9
    plan = make_plan(qwen, BLUEPRINT, device, machine)
    assert plan.fits
    assert plan.fit.checkpointing

    def peak(rank: int = 4, **training: int) -> int:
        section = replace(BLUEPRINT.training, **training)  # type: ignore[arg-type]
        return qwen.memory(qwen.spec(replace(BLUEPRINT.adapter, rank=rank)), section, device).peak

    fit = plan.fit
    assert fit.row_length is not None
    assert fit.batch_size is not None
    assert fit.rank is not None
    assert fit.row_length % 64 == 0
    assert peak(row_length=fit.row_length) <= plan.usable < peak(row_length=fit.row_length + 64)
    assert peak(batch_size=fit.batch_size) <= plan.usable < peak(batch_size=fit.batch_size + 1)
    assert peak(rank=fit.rank) <= plan.usable
    assert fit.rank == qwen.shape.hidden or plan.usable < peak(rank=fit.rank + 1)


def test_no_rows_are_longer_than_the_context(base: Base) -> None:
    assert make_plan(base, BLUEPRINT, "cpu", 10**12).fit.row_length == base.shape.context == 512
    too_long = replace(BLUEPRINT, training=replace(BLUEPRINT.training, row_length=513))
    with pytest.raises(BlueprintError, match=r"training\.row_length: 513; the model's context has 512"):
        make_plan(base, too_long, "cpu", 10**12)


def test_a_training_that_does_not_fit_is_refused_with_what_would() -> None:
    base = published("Qwen/Qwen3-0.6B")
    large = replace(BLUEPRINT, training=replace(BLUEPRINT.training, batch_size=4, row_length=1024))
    needed = base.memory(base.spec(large.adapter), large.training, "cpu").peak
    require_fit(base, large, "cpu", needed * 4 // 3 + 4)  # three quarters of it are enough
    with pytest.raises(TrainingError) as caught:
        require_fit(base, large, "cpu", needed)
    plan = make_plan(base, large, "cpu", needed)
    assert caught.value.fix == (
        f"in a new run set training.batch_size to at most {plan.fit.batch_size}, or training.row_length to at most "
        f"{plan.fit.row_length}, or training.gradient_checkpointing to true; with --force it begins all the same"
    )
    assert plan.fit.batch_size in range(1, 4)
    assert plan.fit.row_length in range(64, 1024, 64)
    assert f"would take {needed / 1e9:.2f} GB of memory (weights 2.38 GB, adapter " in str(caught.value)


def test_a_model_that_is_too_large_whatever_is_set(base: Base) -> None:
    with pytest.raises(TrainingError, match="take a smaller or a quantized model"):
        require_fit(base, BLUEPRINT, "cpu", 1000)


def test_the_time_is_that_of_a_real_step_for_all_tokens(base: Base) -> None:
    speed = measure(base, BLUEPRINT, "mlx")
    assert speed.tokens_per_second > 1000
    assert speed.seconds == 10 * 3 * 2 * 128 / speed.tokens_per_second


def test_the_readme_holds_the_table_that_the_script_prints() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/plan_table.py")], check=True, capture_output=True, text=True
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, rest = readme.partition("<!-- made by scripts/plan_table -->\n")
    assert rest.partition("<!-- end -->\n")[0] == done.stdout
    assert done.stdout.count("\n") == 9
