"""The adapter alone: beside its base in real llama.cpp, and read back from each form."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from chrysalis_mlx.adapters.foreign import open_adapter
from chrysalis_mlx.adapters.merge import MergedSource
from chrysalis_mlx.adapters.spec import AdapterSpec, Array, initialize, resolve_adapter
from chrysalis_mlx.errors import ExportError, ModelError
from chrysalis_mlx.export.adapter import AdapterFiles, Stored, write_adapter_alone, write_adapter_gguf
from chrysalis_mlx.gguf import architectures
from chrysalis_mlx.gguf.keys import read_keys
from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.models.directory import ModelDirectory
from tests import tiny
from tests.gguf.parity import TOKENS, adapted_logprobs, export, llamacpp_logprobs, transformers_logprobs
from tests.mixture import restacked

Arrays = dict[str, Array]

OPTIONS: dict[str, dict[str, Any]] = {
    "one-scale": {},
    "own-scales": {"ranks": {"q_proj": 2, "mlp.*": 6}, "alphas": {"down_proj": 3.0, "v_proj": 0.0, "k_proj": 40.0}},
    "rslora": {"rslora": True, "ranks": {"self_attn.*": 9}},
}


def trained(model: ModelDirectory, kind: str = "lora", **options: Any) -> tuple[AdapterSpec, Arrays]:
    """An adapter as training might have left it: B is not zero."""
    options = {"layers": "all", "patterns": ["all-linear"], **options}
    weights = model.layer_weights() if kind == "full" else None
    spec = resolve_adapter(kind, 4, 12.0, linears=model.layer_linears(), weights=weights, **options)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    arrays = initialize(spec, model.checkpoint(), seed=2)
    for name, array in arrays.items():
        arrays[name] = array + np.float32(0.1) * rng.standard_normal(array.shape).astype(np.float32)
    return spec, arrays


def write_gguf_of(
    path: Path, model: ModelDirectory, spec: AdapterSpec, arrays: Mapping[str, Array], **options: Any
) -> Path:
    family = architectures.for_config(model.plain_config)
    write_adapter_gguf(path, family, model.checkpoint().names, spec, arrays, **options)
    return path


def in_llamacpp(base: Path, adapter: Path | None = None) -> npt.NDArray[np.float64]:
    with LlamaServer(base, context=64, threads=1, precise=True, lora=adapter) as server:
        return llamacpp_logprobs(server, TOKENS, 512)


def kl(expected: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> float:
    return float((np.exp(expected) * (expected - found)).sum(axis=1).max())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Family to its directory and its F32 GGUF: rows of q and k interleaved, not interleaved, with experts."""
    root = tmp_path_factory.mktemp("models")
    made = {
        "llama": tiny.tiny_llama(root / "llama", bias=True),
        "untied": tiny.tiny_llama(root / "untied", tie=False, layers=1),
        "qwen3": tiny.tiny_qwen3(root / "qwen3"),
        "qwen3-moe": tiny.tiny_qwen3_moe(root / "qwen3-moe"),
    }
    return {name: (path, export(path, root / f"{name}.gguf").path) for name, path in made.items()}


@pytest.mark.parametrize(
    ("family", "name", "dtype", "limit"),
    [
        ("llama", "one-scale", "F32", 1e-3),
        ("llama", "own-scales", "F32", 1e-3),
        ("llama", "rslora", "F32", 1e-3),
        ("qwen3", "one-scale", "F32", 1e-3),
        ("qwen3", "own-scales", "F32", 1e-3),
        ("qwen3-moe", "own-scales", "F32", 1e-3),
        ("llama", "own-scales", "F16", 2e-2),
    ],
)
def test_llamacpp_computes_with_it_what_peft_does(
    models: dict[str, tuple[Path, Path]], tmp_path: Path, family: str, name: str, dtype: Stored, limit: float
) -> None:
    directory, base = models[family]
    model = ModelDirectory.open(directory)
    spec, arrays = trained(model, **OPTIONS[name])
    file = write_gguf_of(tmp_path / "adapter.gguf", model, spec, arrays, dtype=dtype)
    expected = adapted_logprobs(directory, (spec, arrays), TOKENS, tmp_path / "peft")
    found = in_llamacpp(base, file)
    assert kl(expected, transformers_logprobs(directory, TOKENS)) > 0.05
    assert np.abs(found - expected).max() <= limit
    assert not list(tmp_path.glob("*.partial"))


def test_an_output_head_of_its_own_may_be_adapted(models: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    directory, base = models["untied"]
    model = ModelDirectory.open(directory)
    linears = {**model.layer_linears(), "lm_head": (512, 64)}
    spec, _ = trained(model)
    module = dataclasses.replace(next(iter(spec.modules.values())), out=512, into=64)
    spec = dataclasses.replace(spec, modules={name: spec.modules.get(name, module) for name in linears})
    rng = np.random.default_rng(5)
    arrays = {n: 0.1 * rng.standard_normal(shape).astype(np.float32) for n, shape in spec.shapes().items()}
    file = write_gguf_of(tmp_path / "adapter.gguf", model, spec, arrays)
    expected = adapted_logprobs(directory, (spec, arrays), TOKENS, tmp_path / "peft")
    assert kl(expected, transformers_logprobs(directory, TOKENS)) > 0.05
    assert np.abs(in_llamacpp(base, file) - expected).max() <= 1e-3


def test_what_the_file_says(models: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    model = ModelDirectory.open(models["llama"][0])
    spec, arrays = trained(model, patterns=["q_proj", "v_proj"], layers=1)
    file = write_gguf_of(
        tmp_path / "adapter.gguf", model, spec, arrays, metadata={"general.name": "tiny", "chrysalis.training.steps": 3}
    )
    keys = read_keys(file)
    assert keys["general.type"] == "adapter"
    assert keys["general.architecture"] == "llama"
    assert keys["adapter.type"] == "lora"
    assert keys["adapter.lora.alpha"] == 12.0
    assert keys["general.name"] == "tiny"
    assert keys["chrysalis.training.steps"] == 3
    held = {tensor.name: tensor.data for tensor in gguf.GGUFReader(file).tensors}
    assert sorted(held) == [f"blk.1.attn_{x}.weight.lora_{part}" for x in "qv" for part in "ab"]
    q, v = (f"model.layers.1.self_attn.{name}" for name in ("q_proj", "v_proj"))
    assert np.array_equal(held["blk.1.attn_v.weight.lora_b"], arrays[f"{v}.B"])  # bit for bit: no scale was folded
    assert np.array_equal(held["blk.1.attn_q.weight.lora_a"], arrays[f"{q}.A"])
    assert np.array_equal(held["blk.1.attn_q.weight.lora_b"], architectures.permute(arrays[f"{q}.B"], 4))


def test_an_adapter_of_scale_zero_does_nothing(models: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    """llama.cpp reads an alpha of 0 as a scale of 1."""
    directory, base = models["llama"]
    model = ModelDirectory.open(directory)
    spec, arrays = trained(model, alphas={"*": 0.0})
    file = write_gguf_of(tmp_path / "adapter.gguf", model, spec, arrays)
    assert np.abs(in_llamacpp(base, file) - transformers_logprobs(directory, TOKENS)).max() <= 1e-3


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("dora", "its magnitudes rescale the base's rows"),
        ("full", "replaces weights (model.layers.0.input_layernorm.weight)"),
    ],
)
def test_what_is_no_sum_says_why_it_must_be_fused(
    models: dict[str, tuple[Path, Path]], tmp_path: Path, kind: str, said: str
) -> None:
    model = ModelDirectory.open(models["llama"][0])
    with pytest.raises(ExportError, match=rf"{re.escape(said)}(.|\n)*fuse it into the model"):
        write_gguf_of(tmp_path / "adapter.gguf", model, *trained(model, kind))
    assert list(tmp_path.iterdir()) == []


def test_an_adapted_embedding_must_be_fused(models: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    model = ModelDirectory.open(models["llama"][0])
    spec, arrays = trained(model, patterns=["q_proj"])
    module = dataclasses.replace(next(iter(spec.modules.values())), out=512, into=64)
    spec = dataclasses.replace(spec, modules={**spec.modules, "model.embed_tokens": module})
    arrays |= {
        "model.embed_tokens.A": np.ones((4, 64), np.float32),
        "model.embed_tokens.B": np.ones((512, 4), np.float32),
    }
    with pytest.raises(ExportError, match=r"beside token_embd\.weight, for which a GGUF of an adapter has no place"):
        write_gguf_of(tmp_path / "adapter.gguf", model, spec, arrays)
    done = write_adapter_alone(tmp_path, model, spec, arrays, "some/model")
    assert set(done.written) == {"mlx"}
    assert "output head too" in done.left_out["peft"]


def test_a_module_without_a_place_is_named(models: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    model = ModelDirectory.open(models["llama"][0])
    spec, arrays = trained(model, patterns=["q_proj"])
    module = next(iter(spec.modules.values()))
    spec = dataclasses.replace(spec, modules={**spec.modules, "model.layers.0.self_attn.x_proj": module})
    with pytest.raises(ExportError, match=r"beside model\.layers\.0\.self_attn\.x_proj, for which"):
        write_gguf_of(tmp_path / "adapter.gguf", model, spec, arrays)


def test_a_value_too_large_for_f16_leaves_no_file(models: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    model = ModelDirectory.open(models["llama"][0])
    spec, arrays = trained(model, patterns=["q_proj"])
    arrays["model.layers.0.self_attn.q_proj.A"][0, 0] = 1e6
    with pytest.raises(ModelError, match=r"attn_q\.weight has values up to 1e\+06, too large for float16"):
        write_gguf_of(tmp_path / "adapter.gguf", model, spec, arrays, dtype="F16")
    assert list(tmp_path.iterdir()) == []


def merged(model: ModelDirectory, spec: AdapterSpec, arrays: Mapping[str, Array]) -> dict[str, Array]:
    source = MergedSource(model.checkpoint(), spec, arrays)
    return {name: source.read(name) for name in source.names}


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("name", OPTIONS)
def test_each_form_is_read_back_to_the_same_model(
    models: dict[str, tuple[Path, Path]], tmp_path: Path, kind: str, name: str
) -> None:
    model = ModelDirectory.open(models["llama"][0])
    spec, arrays = trained(model, kind, **OPTIONS[name])
    done = write_adapter_alone(tmp_path, model, spec, arrays, "some/model")
    forms = {"peft", "mlx"} | ({"gguf"} if kind == "lora" else set())
    assert done.written == {form: tmp_path / ("adapter.gguf" if form == "gguf" else form) for form in forms}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in done.written.values())
    assert done.left_out.keys() == {"gguf", "peft", "mlx"} - forms
    expected = merged(model, spec, arrays)
    for form in ("peft", "mlx"):
        back = merged(model, *open_adapter(done.written[form], model))
        assert all(np.allclose(back[weight], values, rtol=1e-6, atol=1e-6) for weight, values in expected.items())
        assert form == "mlx" or all(np.array_equal(back[weight], values) for weight, values in expected.items())
    if "gguf" in forms:
        back = merged(model, *from_gguf(done, spec, model))
        assert all(np.allclose(back[weight], values, rtol=1e-6, atol=1e-6) for weight, values in expected.items())


def from_gguf(done: AdapterFiles, spec: AdapterSpec, model: ModelDirectory) -> tuple[AdapterSpec, Arrays]:
    """The file's matrices by our names, with the scale that llama.cpp computes."""
    reader = gguf.GGUFReader(done.written["gguf"])
    alpha = float(reader.fields["adapter.lora.alpha"].contents())
    held = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    arrays, modules = {}, {}
    for tensor in architectures.for_config(model.plain_config).tensors(model.checkpoint().names):
        if f"{tensor.name}.lora_a" in held:
            module = tensor.parts[0].source.removesuffix(".weight")
            A, B = held[f"{tensor.name}.lora_a"], held[f"{tensor.name}.lora_b"]
            arrays[f"{module}.A"] = A
            arrays[f"{module}.B"] = architectures.unpermute(B, tensor.heads) if tensor.heads else B
            modules[module] = dataclasses.replace(spec.modules[module], rank=len(A), scale=alpha / len(A))
    assert modules.keys() == spec.modules.keys()
    return dataclasses.replace(spec, modules=modules), arrays


def test_of_a_full_fine_tuning_only_mlx_lm_has_a_form(models: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    model = ModelDirectory.open(models["llama"][0])
    write_adapter_alone(tmp_path, model, *trained(model), "some/model")
    spec, arrays = trained(model, "full", layers=1)
    done = write_adapter_alone(tmp_path, model, spec, arrays, "some/model")
    assert [path.name for path in tmp_path.iterdir()] == ["mlx"]  # what an earlier adapter left is gone
    assert set(done.written) == {"mlx"}
    assert "low-rank updates only" in done.left_out["peft"]
    assert "replaces weights" in done.left_out["gguf"]
    back = merged(model, *open_adapter(done.written["mlx"], model))
    assert all(np.array_equal(back[name], values) for name, values in merged(model, spec, arrays).items())


@pytest.mark.parametrize("form", ["switch", "fused"])
def test_beside_stacked_experts_the_file_is_the_same(
    models: dict[str, tuple[Path, Path]], tmp_path: Path, form: str
) -> None:
    directory = models["qwen3-moe"][0]
    model = ModelDirectory.open(directory)
    spec, arrays = trained(model, **OPTIONS["own-scales"])
    expected = write_gguf_of(tmp_path / "single.gguf", model, spec, arrays)
    stacked = ModelDirectory.open(restacked(directory, form, tmp_path / form))
    file = write_gguf_of(tmp_path / "stacked.gguf", stacked, spec, arrays)
    assert file.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("form", ["single", "switch"])
def test_experts_have_a_form_in_gguf_and_of_mlx_lm(
    models: dict[str, tuple[Path, Path]], tmp_path: Path, form: str
) -> None:
    directory = models["qwen3-moe"][0]
    model = ModelDirectory.open(directory if form == "single" else restacked(directory, form, tmp_path / "model"))
    spec, arrays = trained(ModelDirectory.open(directory), **OPTIONS["own-scales"])
    done = write_adapter_alone(tmp_path / "out", model, spec, arrays, "some/model")
    assert set(done.written) == {"gguf", "mlx"}
    assert done.left_out["peft"] == (
        "PEFT adapts linear layers, and model.layers.0.mlp.experts.0.down_proj is none in transformers"
    )
    experts = {tensor.name: tensor.data.shape for tensor in gguf.GGUFReader(done.written["gguf"]).tensors}
    assert experts["blk.0.ffn_gate_exps.weight.lora_a"] == (6, 6, 64)
    assert experts["blk.0.ffn_gate_exps.weight.lora_b"] == (6, 48, 6)
    expected, back = merged(model, spec, arrays), merged(model, *open_adapter(done.written["mlx"], model))
    assert all(np.allclose(back[weight], values, rtol=1e-6, atol=1e-6) for weight, values in expected.items())


@pytest.mark.parametrize(
    ("kind", "patterns", "said"),
    [
        ("lora", ["experts.[0-4].up_proj"], "mlx-lm adapts all experts of a layer as one, not some, as here model.la"),
        ("dora", ["up_proj"], "mlx-lm has no DoRA beside experts, as here beside model.layers.0.mlp.experts.0.up_proj"),
    ],
)
def test_what_mlx_lm_cannot_put_beside_experts(
    models: dict[str, tuple[Path, Path]], tmp_path: Path, kind: str, patterns: list[str], said: str
) -> None:
    model = ModelDirectory.open(models["qwen3-moe"][0])
    spec, arrays = trained(model, kind, patterns=[f"mlp.{name}" if "experts" in name else name for name in patterns])
    done = write_adapter_alone(tmp_path, model, spec, arrays, "some/model")
    assert done.left_out["mlx"].startswith(said)
    assert set(done.written) == ({"gguf"} if kind == "lora" else set())
