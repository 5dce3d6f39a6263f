"""Adapters that mlx-lm and PEFT trained: merged, the model computes what theirs does."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import mlx_lm.lora
import numpy as np
import numpy.typing as npt
import peft
import pytest
import torch
import transformers
from mlx.utils import tree_flatten, tree_unflatten
from safetensors.numpy import load_file, save_file

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.files import save_mlx, save_peft
from chrysalis_mlx.adapters.foreign import StoredArrays, named_base, open_adapter
from chrysalis_mlx.adapters.foreign_mlx import MLX_FILES
from chrysalis_mlx.adapters.foreign_peft import PEFT_FILE
from chrysalis_mlx.adapters.merge import MergedSource
from chrysalis_mlx.adapters.spec import AdapterSpec
from chrysalis_mlx.batches.packing import assemble
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.errors import ExportError, ModelError
from chrysalis_mlx.export.fuse import write_fused
from chrysalis_mlx.models.directory import ModelDirectory
from tests import tiny
from tests.mixture import EXPERTS, PROJECTIONS, mixture, restacked

TOKENS = np.random.default_rng(0).integers(3, 512, 24)

Logits = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_llama(tmp_path_factory.mktemp("base") / "model", bias=True)


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_llama(tmp_path_factory.mktemp("untied") / "model", tie=False, layers=1)


@pytest.fixture(scope="module")
def four_bit(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.quantized(base, tmp_path_factory.mktemp("quantized") / "model")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mlx_lm.lora trains on."""
    directory = tmp_path_factory.mktemp("texts")
    rows = "".join(json.dumps({"text": line}) + "\n" for line in tiny.TEXT.splitlines())
    for side in ("train", "valid"):
        (directory / f"{side}.jsonl").write_text(rows)
    return directory


def by_mlx_lm(model: Path, texts: Path, directory: Path, kind: str, **parameters: Any) -> Path:
    """What `mlx_lm.lora` of a few large steps leaves in a directory: the CLI's own code, in this process."""
    args: dict[str, Any] = mlx_lm.lora.CONFIG_DEFAULTS | {
        "model": str(model),
        "train": True,
        "data": str(texts),
        "fine_tune_type": kind,
        "num_layers": parameters.pop("num_layers", -1),
        "iters": 4,
        "batch_size": 2,
        "learning_rate": 3e-2,
        "val_batches": 0,
        "steps_per_eval": 1000,
        "adapter_path": str(directory),
        "lora_parameters": {"rank": 3, "dropout": 0.0, "scale": 1.5} | parameters,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        mlx_lm.lora.run(mlx_lm.lora.types.SimpleNamespace(**args))
    return directory


def by_peft(model: Path, directory: Path, *, spread: float = 0.1, **settings: Any) -> tuple[Path, Logits]:
    """What PEFT saves of an adapter with trained weights, and its logits."""
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 12, "target_modules": "all-linear"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(transformers_model(model), peft.LoraConfig(**{**defaults, **settings}))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if parameter.requires_grad:
                    parameter.mul_(1.1) if "magnitude" in name else parameter.add_(spread * torch.randn_like(parameter))
        adapted.save_pretrained(directory)
    return directory, in_torch(adapted)


def transformers_model(directory: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def in_torch(model: Any) -> Logits:
    with torch.no_grad():
        logits: Logits = model.eval()(torch.from_numpy(TOKENS)[None]).logits[0].numpy()
    return logits


def in_mlx(directory: Path, adapter: Path | None = None) -> Logits:
    model, _ = mlx_lm.load(str(directory), adapter_path=adapter and str(adapter))  # type: ignore[misc]
    return np.array(model(mx.array(TOKENS)[None])[0])


def fused(model: Path, adapter: Path, directory: Path) -> Path:
    """The model with the adapter merged by us."""
    opened = ModelDirectory.open(model)
    write_fused(directory, MergedSource(opened.checkpoint(), *open_adapter(adapter, opened)), opened, "float32")
    return directory


def merged(model: Path, adapter: Path) -> dict[str, npt.NDArray[np.float32]]:
    opened = ModelDirectory.open(model)
    source = MergedSource(opened.checkpoint(), *open_adapter(adapter, opened))
    return {name: source.read(name) for name in source.names}


def assert_same(found: Logits, expected: Logits, without: Logits) -> None:
    assert np.abs(expected - without).max() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-4)


KEYS = {"keys": ["self_attn.q_proj", "mlp.down_proj", "lm_head", "model.embed_tokens"]}


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("parameters", [{}, {"num_layers": 1}], ids=["all", "one-layer"])
def test_an_adapter_trained_by_mlx_lm_on_a_quantized_base(
    four_bit: Path, texts: Path, tmp_path: Path, kind: str, parameters: dict[str, Any]
) -> None:
    adapter = by_mlx_lm(four_bit, texts, tmp_path / "adapter", kind, **parameters)
    assert named_base(adapter) == str(four_bit)
    expected = in_mlx(four_bit, adapter)
    spec, _ = open_adapter(adapter, ModelDirectory.open(four_bit))
    assert spec.kind == kind
    assert (spec.rank, spec.alpha) == (3, 4.5)
    assert len(spec.modules) == 7 * (1 if parameters else 2)
    assert_same(in_mlx(fused(four_bit, adapter, tmp_path / "fused")), expected, in_mlx(four_bit))


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("which", ["tied", "untied"])
def test_mlx_lm_beside_the_embedding_and_the_head(
    base: Path, untied: Path, texts: Path, tmp_path: Path, kind: str, which: str
) -> None:
    model = base if which == "tied" else untied
    adapter = by_mlx_lm(model, texts, tmp_path / "adapter", kind, **KEYS)
    spec, _ = open_adapter(adapter, ModelDirectory.open(model))
    assert {name for name in spec.modules if "layers" not in name} == (
        {"model.embed_tokens"} if which == "tied" else {"model.embed_tokens", "lm_head"}
    )
    assert_same(in_mlx(fused(model, adapter, tmp_path / "fused")), in_mlx(model, adapter), in_mlx(model))


def test_a_full_fine_tuning_of_mlx_lm(base: Path, texts: Path, tmp_path: Path) -> None:
    adapter = by_mlx_lm(base, texts, tmp_path / "adapter", "full", num_layers=1)
    spec, arrays = open_adapter(adapter, ModelDirectory.open(base))
    assert spec.kind == "full"
    assert spec.modules == {}
    assert set(spec.weights) == set(load_file(adapter / "adapters.safetensors"))
    assert list(arrays) == list(spec.shapes())
    expected = in_mlx(base, adapter)
    assert_same(in_mlx(fused(base, adapter, tmp_path / "fused")), expected, in_mlx(base))
    batch = assemble([[Segment(TOKENS.astype(np.int32), np.ones(len(TOKENS), np.bool_))]], len(TOKENS))
    for backend in ("mlx", "torch"):  # the weights come from the file, one at a time
        assert_same(
            backends.load(backend)(base, spec, arrays, dtype="float32").logits(batch)[0], expected, in_mlx(base)
        )


def rewritten(adapter: Path, change: Any) -> Path:
    """The same adapter with another config."""
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    return adapter


def test_bfloat16_adapters_are_read(base: Path, texts: Path, tmp_path: Path) -> None:
    adapter = by_mlx_lm(base, texts, tmp_path / "adapter", "lora")
    file = adapter / "adapters.safetensors"
    held = mx.load(str(file))
    assert isinstance(held, dict)
    mx.save_safetensors(str(file), {name: array.astype(mx.bfloat16) for name, array in held.items()})
    assert_same(in_mlx(fused(base, adapter, tmp_path / "fused")), in_mlx(base, adapter), in_mlx(base))


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_the_files_of_mlx_lm_s_first_year(base: Path, texts: Path, tmp_path: Path, dtype: Any) -> None:
    """adapters.npz instead of safetensors, lora_layers instead of num_layers, use_dora instead of fine_tune_type."""
    adapter = by_mlx_lm(base, texts, tmp_path / "adapter", "dora")
    held = mx.load(str(adapter / "adapters.safetensors"))
    assert isinstance(held, dict)
    held = {name: array.astype(dtype) for name, array in held.items()}
    # mlx-lm is to compute with the rounded numbers, not in that dtype.
    rounded = {name: array.astype(mx.float32) for name, array in held.items()}
    mx.save_safetensors(str(adapter / "adapters.safetensors"), rounded)
    expected = in_mlx(base, adapter)
    mx.savez(str(adapter / "adapters.npz"), **{name: mx.contiguous(array.T).T for name, array in held.items()})
    (adapter / "adapters.safetensors").unlink()

    def old(config: dict[str, Any]) -> None:
        config["lora_layers"] = config.pop("num_layers")
        config["use_dora"] = config.pop("fine_tune_type") == "dora"
        config["lora_parameters"]["alpha"] = 3.0

    assert_same(in_mlx(fused(base, rewritten(adapter, old), tmp_path / "fused")), expected, in_mlx(base))


def test_a_scale_that_two_versions_read_in_two_ways_is_refused(base: Path, texts: Path, tmp_path: Path) -> None:
    adapter = by_mlx_lm(base, texts, tmp_path / "adapter", "lora")

    def both(config: dict[str, Any]) -> None:
        config["lora_layers"] = config.pop("num_layers")
        config["lora_parameters"] |= {"scale": 10.0, "alpha": 16.0}

    with pytest.raises(ModelError, match=r"scale \* alpha / rank = 53.3333, from 0.14.2 on with 10\n"):
        open_adapter(rewritten(adapter, both), ModelDirectory.open(base))
    rewritten(adapter, lambda config: config.update(num_layers=2))  # later versions wrote alpha and did not read it
    spec, _ = open_adapter(adapter, ModelDirectory.open(base))
    assert {module.scale for module in spec.modules.values()} == {10.0}


SINGLE_EXPERTS = {f"experts.{expert}.{part}" for expert in range(EXPERTS) for part in PROJECTIONS}


@pytest.mark.parametrize("form", ["single", "switch", "4-bit"])
def test_mlx_lm_beside_experts(tmp_path: Path, texts: Path, form: str) -> None:
    """mlx-lm adapts all experts of a layer as one; the adapter is taken apart, however the model holds them."""
    model = mixture(tmp_path / "model", form)
    adapter = by_mlx_lm(model, texts, tmp_path / "adapter", "lora")
    spec, arrays = open_adapter(adapter, ModelDirectory.open(model))
    assert {name.split("mlp.")[-1] for name in spec.modules if ".mlp." in name} == {"gate"} | SINGLE_EXPERTS
    assert list(arrays) == list(spec.shapes())
    assert sum(bool(arrays[f"{name}.B"].any()) for name in spec.modules if ".experts." in name) >= 3 * 2
    expected, without = in_mlx(model, adapter), in_mlx(model)
    assert_same(in_mlx(fused(model, adapter, tmp_path / "fused")), expected, without)
    save_mlx(tmp_path / "again", spec, arrays, str(model), layers=1, experts=EXPERTS)
    assert_same(in_mlx(model, tmp_path / "again"), expected, without)


def theirs_fused(model: Path, adapter: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The weights that mlx-lm's own `fuse` makes."""
    loaded, _ = mlx_lm.load(str(model), adapter_path=str(adapter))  # type: ignore[misc]
    fuses = [(name, module.fuse(dequantize=True)) for name, module in loaded.named_modules() if hasattr(module, "fuse")]
    loaded.update_modules(tree_unflatten(fuses))
    return {name: np.array(array) for name, array in tree_flatten(loaded.parameters())}


@pytest.mark.parametrize("form", ["switch", "4-bit"])
def test_merged_experts_are_those_of_mlx_lm_s_own_fuse(tmp_path: Path, texts: Path, form: str) -> None:
    model = mixture(tmp_path / "model", form)
    adapter = by_mlx_lm(model, texts, tmp_path / "adapter", "lora", keys=["mlp.switch_mlp.up_proj"], num_layers=1)
    name = "model.layers.0.mlp.switch_mlp.up_proj.weight"
    found, expected = merged(model, adapter)[name], theirs_fused(model, adapter)[name]
    assert found.shape == expected.shape == (EXPERTS, 48, 64)
    assert np.abs(expected - ModelDirectory.open(model).checkpoint().read(name)).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_form_of_a_mixture_is_merged_alike(tmp_path: Path, texts: Path) -> None:
    model = mixture(tmp_path / "single")
    adapter = by_mlx_lm(model, texts, tmp_path / "adapter", "lora")
    expected = merged(model, adapter)
    for form in ("switch", "fused"):
        held = merged(restacked(model, form, tmp_path / form), adapter)
        single = fused(model, adapter, tmp_path / f"{form}-expected")
        wanted = load_file(restacked(single, form, single) / "model.safetensors")
        assert wanted.keys() == held.keys() != expected.keys()
        assert all(np.array_equal(held[name], values) for name, values in wanted.items())


def test_an_older_adapter_of_experts_is_read_alike(tmp_path: Path, texts: Path) -> None:
    """A matrix (experts · r, in) where there is a stack now."""
    model = mixture(tmp_path / "model")
    adapter = by_mlx_lm(model, texts, tmp_path / "adapter", "lora")
    expected = merged(model, adapter)
    file = adapter / "adapters.safetensors"
    held = load_file(file)
    save_file({n: a.reshape(-1, a.shape[-1]) if "switch" in n and "_a" in n else a for n, a in held.items()}, file)
    assert all(np.array_equal(values, expected[name]) for name, values in merged(model, adapter).items())


def test_experts_that_do_not_fit_are_told(tmp_path: Path, texts: Path) -> None:
    model = mixture(tmp_path / "model")
    adapter = by_mlx_lm(model, texts, tmp_path / "adapter", "lora")
    file = adapter / "adapters.safetensors"
    held = load_file(file)
    save_file({name: array[:5] if "switch" in name else array for name, array in held.items()}, file)
    with pytest.raises(ModelError, match="the model has more experts than the adapter's 5"):
        open_adapter(adapter, ModelDirectory.open(model))
    save_file({name: array[:, :3] if "switch" in name else array for name, array in held.items()}, file)
    with pytest.raises(ModelError, match=r"down_proj is \(64, 48\) in the model and \(3, 48\) in the adapter"):
        open_adapter(adapter, ModelDirectory.open(model))
    save_file({name: array[..., :2] if "lora_b" in name else array for name, array in held.items()}, file)
    with pytest.raises(ModelError, match=r"down_proj are \(6, 3, 48\) and \(6, 64, 2\): not of one rank"):
        open_adapter(adapter, ModelDirectory.open(model))
    rewritten(adapter, lambda config: config.update(fine_tune_type="dora"))
    magnitudes = {name.replace("lora_b", "m"): np.ones(2, np.float32) for name in held if "lora_b" in name}
    save_file(magnitudes | held, file)
    with pytest.raises(ModelError, match=r"has DoRA beside the experts of model\.layers\.0\.mlp\.switch_mlp"):
        open_adapter(adapter, ModelDirectory.open(model))
    rewritten(adapter, lambda config: config.update(fine_tune_type="lora"))
    save_file({name.replace("switch_mlp", "mixer"): array for name, array in held.items()}, file)
    with pytest.raises(ModelError, match=r"mlp\.mixer\.\w+ stands beside 6 stacked matrices that are no experts"):
        open_adapter(adapter, ModelDirectory.open(model))


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "some": {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\..*down_proj": 7},
        "alpha_pattern": {"model.layers.0.mlp.up_proj": 40, "v_proj": 1},
    },
    "rslora": {"use_rslora": True, "rank_pattern": {"k_proj": 9}},
    "dora": {"use_dora": True, "rank_pattern": {"o_proj": 1}},
    "fan_in_fan_out": {"fan_in_fan_out": True},
    "dropout": {"lora_dropout": 0.3},
    "bias-all": {"bias": "all"},
    "bias-own": {"bias": "lora_only", "target_modules": ["q_proj"]},
    "norms": {"target_modules": ["q_proj"], "modules_to_save": ["input_layernorm", "model.norm"]},
    "gaussian": {"init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_adapter_of_peft(base: Path, tmp_path: Path, name: str) -> None:
    adapter, expected = by_peft(base, tmp_path / "adapter", **SETTINGS[name])
    directory = fused(base, adapter, tmp_path / "fused")
    assert_same(in_torch(transformers_model(directory)), expected, in_torch(transformers_model(base)))
    spec, arrays = open_adapter(adapter, ModelDirectory.open(base))
    assert {n: arrays[n].shape for n in arrays} == spec.shapes()
    assert all(arrays[n].dtype == np.float32 for n in arrays)
    assert spec.dropout == SETTINGS[name].get("lora_dropout", 0.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
        {"target_modules": ["embed_tokens"], "modules_to_save": ["lm_head"]},
    ],
    ids=["adapted", "replaced", "mixed"],
)
def test_peft_beside_the_embedding_and_the_head(untied: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    adapter, expected = by_peft(untied, tmp_path / "adapter", **settings)
    directory = fused(untied, adapter, tmp_path / "fused")
    assert_same(in_torch(transformers_model(directory)), expected, in_torch(transformers_model(untied)))


def test_peft_beside_both_ends_of_one_table(base: Path, tmp_path: Path) -> None:
    adapter, expected = by_peft(
        base, tmp_path / "adapter", target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True
    )
    directory = fused(base, adapter, tmp_path / "fused")
    assert_same(in_torch(transformers_model(directory)), expected, in_torch(transformers_model(base)))


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
)
def test_peft_beside_one_end_of_one_table_is_refused(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    adapter, _ = by_peft(base, tmp_path / "adapter", **settings)
    with pytest.raises(ModelError, match=r"embed_tokens or lm_head alone(.|\n)*adapter_model(.|\n)*merge it with PEFT"):
        open_adapter(adapter, ModelDirectory.open(base))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"target_modules": ["q_proj"], "trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"target_modules": ["q_proj"], "lora_bias": True}, "lora_bias"),
        ({"target_modules": ["q_proj"], "init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"target_modules": ["q_proj"], "init_lora_weights": "olora"}, "init_lora_weights = 'olora'"),
        ({"target_modules": ["embed_tokens"], "use_dora": True}, "DoRA beside the embedding model.embed_tokens"),
        ({"target_modules": ["q_proj"], "alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"target_modules": ["q_proj"], "target_parameters": ["mlp.up_proj.weight"]}, "target_parameters"),
    ],
)
def test_what_peft_can_and_a_merge_cannot_is_refused_by_name(
    untied: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    adapter, _ = by_peft(untied, tmp_path / "adapter", **settings)
    with pytest.raises(ModelError, match=re.escape(said)):
        open_adapter(adapter, ModelDirectory.open(untied))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "LOHA"}, "PEFT's kind LOHA; only LORA"),
        ({"use_qalora": True}, "use_qalora (QA-LoRA), which is not supported"),
        ({"use_something": {"a": 1}}, "use_something (not known), which is not supported"),
        ({"r": 5}, "says rank 5 for model.layers.0.self_attn.q_proj, and its matrices are (4, 64) and (64, 4)"),
        ({"lora_alpha": None}, "lora_alpha = None, which is no number"),
        ({"rank_pattern": {"(": 3}}, "rank_pattern that cannot be read"),
        ({"use_dora": True}, "says use_dora, and its module model.layers.0.self_attn.q_proj has no magnitude"),
    ],
)
def test_a_config_that_contradicts_or_is_not_covered(
    base: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    adapter, _ = by_peft(base, tmp_path / "adapter", target_modules=["q_proj"])
    rewritten(adapter, lambda config: config.update(change))
    with pytest.raises(ModelError, match=re.escape(said)):
        open_adapter(adapter, ModelDirectory.open(base))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fine_tune_type": "dora"}, "says dora, and its module model.layers.1.mlp.down_proj lacks a magnitude (m)"),
        ({"fine_tune_type": "prompt"}, "fine_tune_type is 'prompt'"),
        ({"lora_parameters": {"rank": 3}}, "no lora_parameters.scale"),
        ({"lora_parameters": {"rank": 3, "scale": "big"}}, "scale = 'big', which is no number"),
        ({"lora_parameters": {"rank": 4, "scale": 1.0}}, "says rank 4, and its module"),
    ],
)
def test_a_config_of_mlx_lm_that_contradicts(
    base: Path, tmp_path: Path, texts: Path, change: dict[str, Any], said: str
) -> None:
    adapter = by_mlx_lm(base, texts, tmp_path / "adapter", "lora", num_layers=1)
    rewritten(adapter, lambda config: config.update(change))
    with pytest.raises(ModelError, match=re.escape(said)):
        open_adapter(adapter, ModelDirectory.open(base))


Saved = tuple[Path, Path, dict[str, npt.NDArray[np.float32]]]


@pytest.fixture(params=["mlx", "peft"])
def saved(request: pytest.FixtureRequest, base: Path, texts: Path, tmp_path: Path) -> Saved:
    """An adapter's directory, the file of its tensors, and them."""
    if request.param == "mlx":
        adapter = by_mlx_lm(base, texts, tmp_path / "adapter", "lora")
    else:
        adapter, _ = by_peft(base, tmp_path / "adapter")
    file = next(path for path in adapter.iterdir() if path.name in (*MLX_FILES, PEFT_FILE))
    return adapter, file, load_file(file)


def test_an_adapter_for_another_model_is_told_with_both_shapes(saved: Saved, tmp_path: Path) -> None:
    adapter, file, _ = saved
    other = ModelDirectory.open(tiny.tiny_llama(tmp_path / "other", hidden=96, heads=6, layers=1))
    with pytest.raises(ModelError) as error:
        open_adapter(adapter, other)
    assert "the adapter is for another model" in str(error.value)
    assert "model.layers.0.mlp.down_proj is (96, 128) in the model and (64, 128) in the adapter; " in str(error.value)
    assert "and 11 more" in str(error.value)
    assert str(file) in str(error.value)
    assert f"it says {named_base(adapter)}" in str(error.value)


def test_a_module_that_the_model_has_not_is_told(saved: Saved, tmp_path: Path) -> None:
    adapter, _, _ = saved
    one = ModelDirectory.open(tiny.tiny_llama(tmp_path / "other", layers=1))
    with pytest.raises(ModelError, match=r"model.layers.1.\S+, \(\d+, \d+\) in the adapter, is not in the model"):
        open_adapter(adapter, one)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_an_adapter_names_the_tensor(saved: Saved, base: Path, value: float) -> None:
    adapter, file, held = saved
    name = sorted(held)[3]
    held[name][-1, -1] = value
    save_file(held, file)
    with pytest.raises(ModelError, match=rf"tensor {re.escape(name)} holds NaN or infinity(.|\n)*train again"):
        open_adapter(adapter, ModelDirectory.open(base))


def test_nan_in_a_weight_that_is_replaced_names_the_tensor(base: Path, texts: Path, tmp_path: Path) -> None:
    adapter = by_mlx_lm(base, texts, tmp_path / "adapter", "full", num_layers=1)
    held = load_file(adapter / "adapters.safetensors")
    held["model.layers.1.mlp.up_proj.weight"][3, 3] = np.nan
    save_file(held, adapter / "adapters.safetensors")
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN"):
        open_adapter(adapter, ModelDirectory.open(base))


def test_no_tensor_is_left_out(saved: Saved, base: Path) -> None:
    adapter, file, held = saved
    prefix = "base_model.model." if file.name == PEFT_FILE else ""
    for name, said in (
        (f"{prefix}model.layers.0.self_attn.q_proj.lora_c", "lora_c is n"),
        (f"{prefix}score.weight", "score"),
    ):
        save_file({**held, name: np.zeros((2, 2), np.float32)}, file)
        with pytest.raises(ModelError, match=said):
            open_adapter(adapter, ModelDirectory.open(base))


def test_a_pair_of_which_one_is_missing(saved: Saved, base: Path) -> None:
    adapter, file, held = saved
    gone = sorted(held)[0]
    save_file({name: array for name, array in held.items() if name != gone}, file)
    with pytest.raises(ModelError, match=r"without the matrix A(.|\n)*incomplete"):
        open_adapter(adapter, ModelDirectory.open(base))


def test_missing_and_damaged_files(saved: Saved, base: Path, tmp_path: Path) -> None:
    adapter, file, _ = saved
    model = ModelDirectory.open(base)
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    with pytest.raises(ModelError, match="damaged or truncated"):
        open_adapter(adapter, model)
    file.unlink()
    with pytest.raises(ModelError, match=rf"no {file.name}"):
        open_adapter(adapter, model)
    config = adapter / "adapter_config.json"
    config.write_text("{")
    with pytest.raises(ModelError, match="config cannot be read"):
        open_adapter(adapter, model)
    config.write_text("[]")
    with pytest.raises(ModelError, match="not a JSON object"):
        open_adapter(adapter, model)
    config.unlink()
    with pytest.raises(ModelError, match=r"there is no adapter_config\.json"):
        open_adapter(adapter, model)
    with pytest.raises(ModelError, match="no such adapter directory"):
        open_adapter(tmp_path / "nothing", model)


def test_a_pickle_is_refused_by_name(base: Path, tmp_path: Path) -> None:
    adapter, _ = by_peft(base, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model.bin, a pickle(.|\n)*safe_serialization=True"):
        open_adapter(adapter, ModelDirectory.open(base))


def test_a_base_weight_beside_the_adapter_must_be_the_model_s(untied: Path, tmp_path: Path) -> None:
    adapter, _ = by_peft(untied, tmp_path / "adapter", target_modules=["lm_head"])
    file = adapter / "adapter_model.safetensors"
    held = load_file(file)
    held["base_model.model.lm_head.base_layer.weight"][7] += 1
    save_file(held, file)
    with pytest.raises(ModelError, match=r"copy of its base weight lm_head.weight, and this model's is another one"):
        open_adapter(adapter, ModelDirectory.open(untied))


def both_forms(directory: Path, spec: AdapterSpec, arrays: StoredArrays, base: Path) -> None:
    save_mlx(directory / "mlx", spec, arrays, str(base), layers=2)
    save_peft(directory / "peft", spec, arrays, str(base))


@pytest.mark.parametrize("name", ["plain", "patterns", "rslora", "dora"])
def test_what_we_write_is_read_back(base: Path, tmp_path: Path, name: str) -> None:
    adapter, _ = by_peft(base, tmp_path / "adapter", **SETTINGS[name])
    expected = merged(base, adapter)
    both_forms(tmp_path, *open_adapter(adapter, ModelDirectory.open(base)), base)
    for form in ("mlx", "peft"):
        back = merged(base, tmp_path / form)
        for weight, values in expected.items():
            exact = form == "peft" or name == "plain"
            assert np.array_equal(back[weight], values) if exact else np.allclose(back[weight], values, atol=1e-6)


def test_adapters_beside_the_embedding_and_the_head_are_read_back(untied: Path, texts: Path, tmp_path: Path) -> None:
    adapter = by_mlx_lm(untied, texts, tmp_path / "adapter", "lora", **KEYS)
    expected = merged(untied, adapter)
    both_forms(tmp_path, *open_adapter(adapter, ModelDirectory.open(untied)), untied)
    for form in ("mlx", "peft"):
        back = merged(untied, tmp_path / form)
        assert all(np.allclose(back[weight], values, atol=1e-6) for weight, values in expected.items())
    assert_same(in_mlx(untied, tmp_path / "mlx"), in_mlx(untied, adapter), in_mlx(untied))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.PeftModel.from_pretrained(transformers_model(untied), str(tmp_path / "peft"))
    assert_same(in_torch(theirs), in_mlx(untied, adapter), in_mlx(untied))


def test_weights_that_are_replaced_are_written_for_peft_and_refused_for_mlx_lm(base: Path, tmp_path: Path) -> None:
    adapter, logits = by_peft(base, tmp_path / "adapter", **SETTINGS["norms"])
    spec, arrays = open_adapter(adapter, ModelDirectory.open(base))
    save_peft(tmp_path / "peft", spec, arrays, str(base))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.PeftModel.from_pretrained(transformers_model(base), str(tmp_path / "peft"))
    assert_same(in_torch(theirs), logits, in_torch(transformers_model(base)))
    with pytest.raises(ExportError, match=r"low-rank updates alone, and this one replaces model\.layers\.0\.input"):
        save_mlx(tmp_path / "mlx", spec, arrays, str(base))
    adapter, _ = by_peft(base, tmp_path / "biases", **SETTINGS["bias-own"])
    spec, arrays = open_adapter(adapter, ModelDirectory.open(base))
    with pytest.raises(ExportError, match=r"not the bias alone of model\.layers\.0\.self_attn\.q_proj\.bias"):
        save_peft(tmp_path / "peft-biases", spec, arrays, str(base))


def test_of_a_run_s_adapter_the_exact_form_is_read(base: Path, tmp_path: Path) -> None:
    """adapters/ of a run: mlx-lm's files, and peft/ inside with each module's own rank."""
    adapter, _ = by_peft(base, tmp_path / "adapter", **SETTINGS["patterns"])
    spec, arrays = open_adapter(adapter, ModelDirectory.open(base))
    run = tmp_path / "run" / "adapters"
    save_mlx(run, spec, arrays, "some/model", layers=2)
    save_peft(run / "peft", spec, arrays, "some/model")
    back, again = open_adapter(run, ModelDirectory.open(base))
    assert back == spec
    assert {module.rank for module in back.modules.values()} == {2, 4, 7}
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    assert named_base(run) == "some/model"
    shutil.rmtree(run / "peft")
    filled, _ = open_adapter(run, ModelDirectory.open(base))
    assert {module.rank for module in filled.modules.values()} == {7}


def test_mlx_lm_s_parameters_are_all_there(four_bit: Path, texts: Path, tmp_path: Path) -> None:
    """The list of mlx-lm's own trained arrays is that of the spec, part for part."""
    adapter = by_mlx_lm(four_bit, texts, tmp_path / "adapter", "dora")
    model, _ = mlx_lm.load(str(four_bit), adapter_path=str(adapter))  # type: ignore[misc]
    theirs = {name for name, _ in tree_flatten(model.parameters()) if name.endswith(("lora_a", "lora_b", ".m"))}
    spec, _ = open_adapter(adapter, ModelDirectory.open(four_bit))
    parts = {"A": "lora_a", "B": "lora_b", "m": "m"}
    assert {f"{name[:-1]}{parts[name[-1]]}" for name in spec.shapes()} == theirs
