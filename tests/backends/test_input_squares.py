"""What goes into the linear layers: both engines against hooks on transformers' modules in float64, text by text."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.utils
import numpy as np
import numpy.typing as npt
import pytest
import torch
from mlx_lm.models.switch_layers import QuantizedSwitchLinear
from torch import nn

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.spec import Kind
from chrysalis_mlx.backends.base import InputSquares
from chrysalis_mlx.backends.mlx.engine import Engine as MLXEngine
from chrysalis_mlx.backends.torch.model import load_model
from chrysalis_mlx.batches.packing import Batch, assemble
from chrysalis_mlx.models.directory import ModelDirectory
from tests import tiny
from tests.backends.cases import ROW, TOLERANCE, Case, adapted, alone, assert_same, packed, segments

ENGINES = ("mlx", "torch")
LENGTHS = (12, 17, 9, 30, 5)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def quantized_llama(directory: Path) -> Path:
    source = tiny.tiny_llama(directory.with_name("source"), bias=True)
    return tiny.quantized(source, directory, own={"model.layers.0.mlp.up_proj": False})


CASES: dict[str, tuple[Callable[[Path], Path], Kind]] = {
    "llama": (partial(tiny.tiny_llama, bias=True), "lora"),
    "qwen3": (tiny.tiny_qwen3, "dora"),
    "gemma3": (tiny.tiny_gemma3, "lora"),
    "phi3": (tiny.tiny_phi3, "lora"),
    "whole-weights": (tiny.tiny_qwen2, "full"),
    "four-bit": (quantized_llama, "lora"),
    "four-bit-dora": (quantized_llama, "dora"),
}


def mixture(directory: Path) -> Path:
    """Experts in the first and the third layer, in rows that can be quantized."""
    tiny.tiny_qwen3_moe(directory, layers=3, moe_intermediate_size=96, mlp_only_layers=[1])
    file = directory / "config.json"
    # What published models say and mlx-lm reads, where transformers 5 has other names.
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_experts": 6, "rope_theta": 1e4}))
    return directory


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    build, kind = CASES[request.param]
    return adapted(build(tmp_path_factory.mktemp(request.param) / "model"), kind, ["all-linear"])


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return adapted(mixture(tmp_path_factory.mktemp("moe") / "model"), "lora", ATTENTION)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return adapted(tiny.tiny_llama(tmp_path_factory.mktemp("llama") / "model"), "lora", ["all-linear"])


class Reference:
    """transformers' model in float64 with the adapter in its weights, and what went into its linear layers."""

    def __init__(self, case: Case) -> None:
        model: Any = load_model(case.directory, "float32")[0].double()
        model.config._experts_implementation = "eager"  # the other ones cannot compute in float64
        self.model = model
        self.sums: dict[str, Any] = defaultdict(float)
        self.counts: dict[str, Any] = defaultdict(float)
        weights = {name: parameter.data for name, parameter in self.model.named_parameters()}
        arrays = {name: torch.from_numpy(array).double() for name, array in case.arrays.items()}
        for name in case.spec.weights:
            weights[name].copy_(arrays[name])
        for name, own in case.spec.modules.items():
            weight = weights[f"{name}.weight"]
            weight += own.scale * arrays[f"{name}.B"] @ arrays[f"{name}.A"]
            if case.spec.kind == "dora":
                weight *= (arrays[f"{name}.m"] / weight.norm(dim=1))[:, None]
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Linear) and ".layers." in name:
                module.register_forward_pre_hook(partial(self.see, name))
            elif name.endswith(".mlp.experts"):
                module.register_forward_pre_hook(partial(self.see_experts, name, ModelDirectory.open(case.directory)))

    def see(self, name: str, _: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0].reshape(-1, inputs[0].shape[-1])
        self.sums[name] += (x**2).sum(0)[None].numpy()
        self.counts[name] += np.array([len(x)])

    def see_experts(self, name: str, directory: ModelDirectory, _: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        """Token by token, by the weights in the file."""
        weights, experts = directory.checkpoint(), directory.config["num_experts"]
        for x, chosen in zip(inputs[0], inputs[1], strict=True):
            for expert in chosen.tolist():
                gate, up = (
                    torch.from_numpy(weights.read(f"{name}.{expert}.{kind}_proj.weight")).double() @ x
                    for kind in ("gate", "up")
                )
                for kind, into in (("gate", x), ("up", x), ("down", nn.functional.silu(gate) * up)):
                    rows, counts = np.zeros((experts, len(into))), np.zeros(experts)
                    rows[expert], counts[expert] = into.numpy() ** 2, 1
                    self.sums[f"{name}.{kind}_proj"] += rows
                    self.counts[f"{name}.{kind}_proj"] += counts

    def squares(self, batches: list[Batch]) -> Mapping[str, InputSquares]:
        with torch.no_grad():
            for batch in batches:
                self.model(input_ids=torch.from_numpy(batch.tokens).long())
        return {name: InputSquares(sums, self.counts[name]) for name, sums in self.sums.items()}


def assert_close(found: Mapping[str, InputSquares], expected: Mapping[str, InputSquares]) -> None:
    assert found.keys() == expected.keys()
    for name, entry in found.items():
        assert entry.sums.dtype == entry.counts.dtype == np.float32
        np.testing.assert_array_equal(entry.counts, expected[name].counts, err_msg=name)
        assert entry.sums.shape == expected[name].sums.shape
        largest = np.abs(expected[name].sums).max()
        np.testing.assert_allclose(entry.sums, expected[name].sums, rtol=1e-4, atol=TOLERANCE * largest, err_msg=name)


@pytest.mark.parametrize("backend", ENGINES)
def test_packed_rows_give_what_hooks_see_of_the_texts_alone(case: Case, backend: str) -> None:
    found = case.engine(backend).input_squares(packed())
    assert_close(found, Reference(case).squares(alone()))
    assert found.keys() == ModelDirectory.open(case.directory).layer_linears().keys()
    assert all(entry.counts.tolist() == [sum(LENGTHS)] for entry in found.values())


def test_the_adapter_counts(case: Case) -> None:
    with_adapter = case.engine("mlx").input_squares(packed())
    base = backends.load("mlx")(case.directory).input_squares(packed())
    last = max(name for name in base if name.endswith(".mlp.down_proj"))
    assert np.abs(with_adapter[last].sums / base[last].sums - 1).max() > 0.1


@pytest.mark.parametrize("backend", ENGINES)
def test_padding_does_not_count_wherever_it_is(llama: Case, backend: str) -> None:
    a, b = segments(12, 9)
    engine = llama.engine(backend)
    full = assemble([[a, b]], 21)
    expected = engine.input_squares([full])
    padded = assemble([[a, b]], ROW)
    padded.tokens[padded.segments == 0] = 77
    fields = ((full.tokens, 5), (full.targets, 5), (full.mask, False), (full.segments, 0))
    between = Batch(*(np.insert(values, [12] * 3, value, axis=1) for values, value in fields))
    nothing = Batch(*(np.zeros((2, 4), kind) for kind in (np.int32, np.int32, np.bool_, np.int32)))
    for batches in ([padded], [between], [nothing, full]):
        assert_close(engine.input_squares(iter(batches)), expected)
    assert engine.input_squares([nothing]) == {}


@pytest.mark.parametrize("backend", ENGINES)
def test_every_expert_counts_the_tokens_that_are_routed_to_it(moe: Case, backend: str) -> None:
    found = moe.engine(backend).input_squares(packed())
    routers = [name for name in found if name.endswith(".mlp.gate")]
    assert routers == ["model.layers.0.mlp.gate", "model.layers.2.mlp.gate"]
    for router in routers:
        entry = found.pop(router)
        assert entry.counts.tolist() == [sum(LENGTHS)]
        np.testing.assert_allclose(entry.sums[0] * 2, found[f"{router[:-4]}experts.up_proj"].sums.sum(0), rtol=1e-5)
    assert_close(found, Reference(moe).squares(alone()))
    for layer in (0, 2):
        entry = found[f"model.layers.{layer}.mlp.experts.down_proj"]
        assert entry.sums.shape == (6, 96)
        assert entry.counts.sum() == 2 * sum(LENGTHS)
        assert len(set(entry.counts.tolist())) > 2


def test_experts_that_no_token_comes_to_have_zeros(moe: Case) -> None:
    (text,) = segments(3)
    expected = Reference(moe).squares([assemble([[text]], 3)])
    for backend in ENGINES:
        found = moe.engine(backend).input_squares([assemble([[text]], ROW)])
        assert (found["model.layers.0.mlp.experts.up_proj"].counts == 0).any()
        assert_close({name: entry for name, entry in found.items() if name in expected}, expected)


def test_quantized_experts_are_seen_through(moe: Case, tmp_path: Path) -> None:
    quantized = tiny.quantized(moe.directory, tmp_path / "model")
    model, config = mlx_lm.utils.load_model(quantized)
    assert sum(isinstance(module, QuantizedSwitchLinear) for module in model.modules()) == 2 * 3
    shutil.copytree(quantized, tmp_path / "plain", ignore=shutil.ignore_patterns("model*.safetensors*"))
    mlx_lm.utils.save_model(tmp_path / "plain", mlx_lm.utils.dequantize_model(model))
    mlx_lm.utils.save_config({**config, "quantization": None}, tmp_path / "plain" / "config.json")
    found, expected = (MLXEngine(path).input_squares(packed()) for path in (quantized, tmp_path / "plain"))
    assert_close(found, expected)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_engine_is_afterwards_as_it_was(llama: Case, backend: str, checkpointing: bool) -> None:
    options = {"gradient_checkpointing": checkpointing}
    untouched, engine = llama.engine(backend, **options), llama.engine(backend, **options)
    kinds = [type(module) for module in modules(engine)]
    engine.input_squares(packed())

    def interrupted() -> Iterator[Batch]:
        yield packed()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.input_squares(interrupted())
    assert [type(module) for module in modules(engine)] == kinds
    assert not any(getattr(module, "_forward_pre_hooks", None) for module in modules(engine))
    np.testing.assert_array_equal(engine.logits(packed()[0]), untouched.logits(packed()[0]))
    for _ in range(2):
        assert engine.step(packed(), 1e-2).loss == untouched.step(packed(), 1e-2).loss
    assert_same(engine.adapter(), untouched.adapter())
    assert_close(engine.input_squares(packed()), untouched.input_squares(packed()))


def modules(engine: Any) -> list[Any]:
    """All modules of an engine's model, in an order that stays."""
    model = engine._model
    return list(model.modules()) if isinstance(model, nn.Module) else list(model.module.modules())


@pytest.mark.parametrize("backend", ENGINES)
def test_many_tokens_are_summed_without_loss(llama: Case, backend: str) -> None:
    texts = segments(*[ROW] * 40)
    rows = [assemble([[text] for text in texts[start : start + 8]], ROW) for start in range(0, 40, 8)]
    engine = llama.engine(backend)
    found = engine.input_squares(rows)
    expected: dict[str, npt.NDArray[np.float64]] = defaultdict(lambda: np.zeros(1))
    for text in texts:
        for name, entry in engine.input_squares([assemble([[text]], ROW)]).items():
            expected[name] = expected[name] + entry.sums
    for name, entry in found.items():
        assert entry.counts.tolist() == [40 * ROW]
        np.testing.assert_allclose(entry.sums, expected[name], rtol=1e-6)


def test_mlx_keeps_the_inputs_of_one_layer_at_a_time(tmp_path: Path) -> None:
    row = assemble([segments(256)], 256)
    peaks = []
    for layers in (8, 24):
        engine = MLXEngine(tiny.tiny_llama(tmp_path / str(layers), layers=layers))
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        engine.input_squares([row])
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] < 1.5 * peaks[0]
