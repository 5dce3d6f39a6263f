"""The rules of every family, against gguf's names, both forms of config.json, and what llama.cpp cannot do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf import architectures
from chrysalis_mlx.gguf.architectures import FAMILIES, Part, permute, unpermute
from chrysalis_mlx.gguf.writer import write_gguf
from chrysalis_mlx.models.checkpoint import Checkpoint, write_checkpoint
from tests.gguf.conftest import EXPORTED
from tests.gguf.parity import export, read_config

Directory = Callable[[str], Path]


def values_of(source: Checkpoint, part: Part) -> np.ndarray:
    return source.rows(part.source, part.start, part.stop)


def rewritten(directory: Path, tensors: dict[str, np.ndarray]) -> Path:
    shapes = {name: values.shape for name, values in tensors.items()}
    directory.mkdir()
    write_checkpoint(directory / "model.safetensors", shapes, tensors.__getitem__)
    return directory


@pytest.mark.parametrize("name", list(EXPORTED))
def test_names_are_those_of_the_gguf_package(model_directory: Directory, name: str) -> None:
    directory = model_directory(name)
    family = architectures.for_config(read_config(directory))
    arch = {stored: key for key, stored in gguf.MODEL_ARCH_NAMES.items()}[family.gguf]
    table = gguf.get_tensor_name_map(arch, family.layers)
    allowed = {gguf.TENSOR_NAMES[kind] for kind in gguf.MODEL_TENSORS[arch]}
    tensors = family.tensors(Checkpoint.open(directory).names)
    for tensor in tensors:
        assert re.sub(r"^blk\.\d+", "blk.{bid}", tensor.name).removesuffix(".weight").removesuffix(".bias") in allowed
        for part in tensor.parts:
            source = re.sub(r"experts\.\d+\.", "experts.", part.source)
            if (tensor.name, part.source) != ("output.weight", "model.embed_tokens.weight"):
                assert table.get_name(source, try_suffixes=(".weight", ".bias")) == tensor.name
    assert len({tensor.name for tensor in tensors}) == len(tensors)


@pytest.mark.parametrize("name", list(EXPORTED))
def test_every_row_of_the_checkpoint_has_one_place(model_directory: Directory, name: str) -> None:
    directory = model_directory(name)
    source = Checkpoint.open(directory)
    family = architectures.for_config(read_config(directory))
    tensors = family.tensors(source.names)
    rows = {held: np.zeros(int(np.prod(source.shape(held)[:-1])), int) for held in source.names}
    for tensor in tensors:
        if tensor.name == "output.weight" and family.tied:
            continue  # OLMo 2's copy of the embedding
        for part in tensor.parts:
            rows[part.source][part.start : part.stop] += 1
        if tensor.parts:
            assert sum(part.stop - part.start for part in tensor.parts) == np.prod(tensor.shape[:-1], dtype=int)
    assert all((counts == 1).all() for counts in rows.values())
    assert family.source_shapes(tensors) == {held: source.shape(held) for held in source.names}


def old_form(config: dict[str, Any]) -> dict[str, Any]:
    """config.json as transformers 4 wrote it."""
    rope = dict(config.get("rope_parameters") or {})
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "layer_types")}
    if "full_attention" in rope:
        local = rope["sliding_attention"]["rope_theta"]
        rope, old = dict(rope["full_attention"]), old | {"rope_local_base_freq": local}
    if "rope_theta" in rope:
        old["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        old["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    scaled = rope.pop("rope_type", "default")
    return old if scaled == "default" else old | {"rope_scaling": {"type": scaled, **rope}}


@pytest.mark.parametrize("name", [name for name in EXPORTED if not name.endswith("2-pattern")])
def test_both_forms_of_config_give_the_same_keys(model_directory: Directory, name: str) -> None:
    import transformers

    published = read_config(model_directory(name))
    modern = json.loads(transformers.AutoConfig.from_pretrained(model_directory(name)).to_json_string(use_diff=False))
    old = old_form(published)
    assert "rope_parameters" in modern
    assert "rope_parameters" not in old
    expected = architectures.for_config(published).metadata()
    assert architectures.for_config(modern | {"architectures": published["architectures"]}).metadata() == expected
    assert architectures.for_config(old).metadata() == expected


def test_what_gemma_3_says_of_its_windows_and_bases(model_directory: Directory) -> None:
    keys = architectures.for_config(read_config(model_directory("gemma3"))).keys()
    assert keys["attention.sliding_window"] == 8
    assert keys["rope.freq_base"] == 1e6
    for absent in (
        "attention.sliding_window_pattern",
        "rope.freq_base_swa",
        "rope.scaling.type",
        "rope.scaling.factor",
    ):
        assert absent not in keys  # older readers take the published values by themselves
    keys = architectures.for_config(read_config(model_directory("gemma3-linear"))).keys()
    assert keys["rope.freq_base_swa"] == 3e4
    assert (keys["rope.scaling.type"], keys["rope.scaling.factor"]) == ("linear", 8.0)
    assert keys["attention.sliding_window_pattern"] == [True, False, True]


def test_phi_3_has_the_context_in_which_its_window_never_acts(model_directory: Directory) -> None:
    config = read_config(model_directory("phi3-window"))
    keys = architectures.for_config(config).keys()
    assert (keys["context_length"], keys["attention.sliding_window"]) == (300, 0)
    keys = architectures.for_config({**config, "sliding_window": 262144}).keys()
    assert keys["context_length"] == 512


def test_phi_3_says_how_its_factors_are_used(model_directory: Directory) -> None:
    family = architectures.for_config(read_config(model_directory("phi3-long")))
    assert family.keys()["rope.scaling.original_context_length"] == 32
    assert family.keys()["rope.scaling.attn_factor"] == pytest.approx((1 + np.log(512 / 32) / np.log(32)) ** 0.5)
    values = {tensor.name: tensor.values for tensor in family.computed()}
    assert values["rope_factors_long.weight"][-1] == 20  # type: ignore[index]
    assert values["rope_factors_short.weight"][-1] == np.float32(1.7)  # type: ignore[index]
    given = architectures.for_config(
        {**family.config, "rope_parameters": {**family.rope, "rope_type": "su", "attention_factor": 1.5}}
    )
    assert given.keys()["rope.scaling.attn_factor"] == 1.5


def test_experts_are_found_in_all_three_ways(model_directory: Directory, tmp_path: Path) -> None:
    directory = model_directory("qwen3-moe")
    source, config = Checkpoint.open(directory), read_config(directory)
    single = {name: source.read(name) for name in source.names}
    rest = {name: values for name, values in single.items() if ".experts." not in name}
    fused, switch = dict(rest), dict(rest)
    for layer in range(2):
        prefix = f"model.layers.{layer}.mlp."
        stacked = {
            part: np.stack([single[f"{prefix}experts.{n}.{part}.weight"] for n in range(6)])
            for part in ("gate_proj", "up_proj", "down_proj")
        }
        switch |= {f"{prefix}switch_mlp.{part}.weight": values for part, values in stacked.items()}
        fused[f"{prefix}experts.gate_up_proj"] = np.concatenate([stacked["gate_proj"], stacked["up_proj"]], axis=1)
        fused[f"{prefix}experts.down_proj"] = stacked["down_proj"]
    expected = export(directory, tmp_path / "single.gguf").path.read_bytes()
    family = architectures.for_config(config)
    for name, tensors in (("fused", fused), ("switch", switch)):
        held = Checkpoint.open(rewritten(tmp_path / name, tensors))
        write_gguf({"F32": tmp_path / "model.gguf"}, held, config, directory)
        assert (tmp_path / "model.gguf").read_bytes() == expected
        assert family.source_shapes(family.tensors(held.names)) == {key: held.shape(key) for key in held.names}
    held = Checkpoint.open(tmp_path / "fused")
    with pytest.raises(ExportError, match=r"down_proj has the shape \(6, 64, 48\), config.json says \(6, 64, 40"):
        write_gguf({"F32": tmp_path / "x.gguf"}, held, {**config, "moe_intermediate_size": 40}, directory)


def test_what_published_checkpoints_carry_besides_is_left_out(model_directory: Directory, tmp_path: Path) -> None:
    directory = model_directory("gemma2")
    source, config = Checkpoint.open(directory), read_config(directory)
    tensors = {name: source.read(name) for name in source.names}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    held = Checkpoint.open(rewritten(tmp_path / "more", tensors))
    write_gguf({"F32": tmp_path / "model.gguf"}, held, config, directory)
    assert (tmp_path / "model.gguf").read_bytes() == export(directory, tmp_path / "plain.gguf").path.read_bytes()


def test_a_model_that_sees_is_refused_with_the_way_out(model_directory: Directory) -> None:
    text = read_config(model_directory("gemma3"))
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    with pytest.raises(ExportError, match="Gemma3ForConditionalGeneration is a language model with a tower") as caught:
        architectures.for_config(config)
    assert "Gemma3ForCausalLM" in str(caught.value.fix)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}},
        "LlamaForCausalLM .* rope_scaling = dyn",
    ),
    ("mistral", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_scaling = llama3"),
    ("mistral", {"sliding_window": 64}, "sliding_window = 64"),
    ("mistral", {"attention_bias": True}, "attention_bias = True"),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 64}, "sliding_window = 64"),
    ("qwen3-moe", {"mlp_only_layers": [0]}, r"mlp_only_layers = \[0\]"),
    ("qwen3-moe", {"decoder_sparse_step": 2}, "decoder_sparse_step = 2"),
    ("qwen3-moe", {"norm_topk_prob": False}, "norm_topk_prob = False"),
    ("qwen3-moe", {"attention_bias": True}, "attention_bias = True"),
    ("gemma2", {"query_pre_attn_scalar": 24}, "query_pre_attn_scalar = 24, only 16"),
    ("gemma2-27b", {"query_pre_attn_scalar": 32}, "query_pre_attn_scalar = 32, only 16"),
    ("gemma2", {"attn_logit_softcapping": None}, "attn_logit_softcapping = None"),
    ("gemma2", {"final_logit_softcapping": None}, "final_logit_softcapping = None"),
    ("gemma2", {"hidden_activation": "gelu"}, "hidden_act = gelu"),
    ("gemma2", {"tie_word_embeddings": False}, "tie_word_embeddings = False"),
    ("gemma2", {"sliding_window": None}, "sliding_window = None"),
    ("gemma2", {"layer_types": ["chunked_attention"] * 2}, "layer_types = chunked_attention"),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention = True"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0"),
    ("gemma3", {"query_pre_attn_scalar": 24}, "query_pre_attn_scalar = 24, only 16"),
    (
        "gemma3",
        {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2, "rope_theta": 1e4}}},
        "rope_parameters.sliding_attention = linear",
    ),
    ("gemma3", {"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "rope_scaling = yarn"),
    ("phi3", {"head_dim": 32}, "head_dim = 32"),
    ("phi3", {"attention_bias": True}, "attention_bias = True"),
    ("phi3", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2}}, "rope_scaling = linear"),
    ("phi3-long", {"head_dim": 16, "num_attention_heads": 2}, "head_dim = 16"),
    ("phi3-long", {"num_attention_heads": 2}, "8 factors for 32 rotary dimensions"),
    ("olmo2", {"attention_bias": True}, "attention_bias = True"),
    ("olmo2", {"head_dim": 32}, "head_dim = 32"),
    ("granite", {"residual_multiplier": 0.0}, "residual_multiplier = 0.0"),
    ("granite", {"position_embedding_type": "nope"}, "position_embedding_type = nope"),
    ("smollm3", {"no_rope_layers": [1, 1, 0, 1]}, r"no_rope_layers = \[1, 1, 0, 1\]"),
    ("smollm3", {"no_rope_layers": None, "no_rope_layer_interval": 3}, "no_rope_layer_interval = 3"),
    ("smollm3", {"use_sliding_window": True, "sliding_window": 64}, "sliding_window = 64"),
    ("smollm3", {"attention_bias": True}, "attention_bias = True"),
    ("smollm3", {"mlp_bias": True}, "mlp_bias = True"),
    ("cohere2", {"attention_bias": True}, "attention_bias = True"),
    ("cohere2", {"tie_word_embeddings": False}, "tie_word_embeddings = False"),
    ("cohere2", {"sliding_window": None}, "sliding_window = None"),
    ("cohere2", {"logit_scale": 0.0}, "logit_scale = 0.0"),
    ("cohere2", {"use_qk_norm": True}, "use_qk_norm = True"),
    ("cohere2", {"layer_norm_eps": None}, "lacks a usable value"),
]


@pytest.mark.parametrize(("name", "changes", "message"), REFUSED)
def test_what_llamacpp_would_compute_otherwise_is_refused(
    model_directory: Directory, name: str, changes: dict[str, Any], message: str
) -> None:
    config = {**read_config(model_directory(name)), **changes}
    with pytest.raises(ExportError, match=message):
        architectures.for_config(config)


def test_every_family_refuses_something() -> None:
    named = {name for name, _, _ in REFUSED}
    stems = [family.model_type.removesuffix("_text").replace("_", "-") for family in FAMILIES]
    assert [stem for stem in stems if not any(name.startswith(stem) for name in named)] == []


def test_traits_say_what_the_quantizer_asks(model_directory: Directory) -> None:
    llama, qwen2, moe, olmo2 = (
        read_config(model_directory(name)) for name in ("llama", "qwen2", "qwen3-moe", "olmo2-tied")
    )
    traits = architectures.for_config(moe).traits
    assert (traits.layers, traits.gqa, traits.experts, traits.tied, traits.wide) == (2, 2, 6, False, False)
    assert architectures.for_config(llama).traits.tied
    assert not architectures.for_config(olmo2).traits.tied  # its file has an output head
    deep = {"num_hidden_layers": 80}
    assert architectures.for_config({**llama, **deep}).traits.wide
    assert not architectures.for_config({**llama, **deep, "num_key_value_heads": 4}).traits.wide
    assert architectures.for_config({**qwen2, **deep, "num_key_value_heads": 4}).traits.wide
    assert not architectures.for_config({**olmo2, **deep}).traits.wide


def test_defaults_of_the_classes_are_known() -> None:
    """Keys that published configs leave out, because the class has them."""
    common = {
        "num_hidden_layers": 7, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 9,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "layer_norm_eps": 1e-5,
    }  # fmt: skip

    def family(name: str, **keys: Any) -> Any:
        return architectures.for_config({**common, "architectures": [f"{name}ForCausalLM"], **keys})

    gemma = family("Gemma3", model_type="gemma3_text")
    assert (gemma.head_dim, gemma.tied, gemma.rope_theta) == (256, True, 1e6)
    cohere = family("Cohere2", rope_theta=5e4)
    assert (cohere.tied, cohere.keys()["logit_scale"]) == (True, 0.0625)
    assert cohere.keys()["attention.sliding_window"] == 4096
    assert family("SmolLM3", model_type="smollm3", rope_theta=5e6).tied
    assert family("Granite", rope_theta=1e4).keys()["attention.scale"] == 1.0


def test_rows_come_back_from_their_interleaving() -> None:
    values = np.arange(16, dtype=np.float32).reshape(8, 2)
    assert permute(values, 2)[:, 0].tolist() == [0, 4, 2, 6, 8, 12, 10, 14]
    np.testing.assert_array_equal(unpermute(permute(values, 2), 2), values)
