"""Writing a GGUF: metadata, plan, streaming and refusals."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf.architectures import SUPPORTED
from chrysalis_mlx.gguf.writer import plan_gguf, write_gguf
from chrysalis_mlx.models.checkpoint import Checkpoint, write_checkpoint
from tests import tiny
from tests.gguf.parity import export, read_config


class Recording:
    """A source that counts the rows that are read."""

    def __init__(self, source: Checkpoint) -> None:
        self.source, self.names, self.reads = source, source.names, Counter[str]()
        self.slices: list[int] = []

    def shape(self, name: str) -> tuple[int, ...]:
        return self.source.shape(name)

    def read(self, name: str) -> np.ndarray:
        raise AssertionError(f"{name} is read as a whole")

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        found = self.source.rows(name, start, stop)
        self.reads[name] += stop - start
        self.slices.append(found.size)
        return found


def write(path: Path, directory: Path, config: dict[str, Any], type_name: str = "F16", source: Any = None) -> None:
    write_gguf({type_name: path}, source or Checkpoint.open(directory), config, directory)


def fields(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_the_metadata_say_what_the_config_says(model_directory: Callable[[str], Path], tmp_path: Path) -> None:
    directory = model_directory("llama-head-dim")
    extra = {"general.name": "Tiny", "chrysalis.seed": 7, "chrysalis.loss": 0.5, "chrysalis.offset": -3}
    export(directory, tmp_path / "model.gguf", "Q8_0", metadata=extra)
    found = fields(tmp_path / "model.gguf")
    expected = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.file_type": 7,
        "general.quantization_version": 2,
        "llama.block_count": 2,
        "llama.context_length": 512,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 128,
        "llama.vocab_size": 512,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 32,
        "llama.attention.value_length": 32,
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        "llama.rope.dimension_count": 32,
        "llama.rope.freq_base": 500000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": tiny.CHATML,
        **extra,
    }
    assert {key: found[key] for key in expected} == expected


def test_rope_theta_is_found_at_both_places(model_directory: Callable[[str], Path], tmp_path: Path) -> None:
    directory = model_directory("llama")
    nested = read_config(directory)
    flat = {key: value for key, value in nested.items() if key != "rope_parameters"} | {"rope_theta": 12345.0}
    nested["rope_parameters"] = {"rope_type": "default", "rope_theta": 54321.0}
    for config, theta in ((nested, 54321.0), (flat, 12345.0), ({**flat, "rope_scaling": None}, 12345.0)):
        write(tmp_path / "model.gguf", directory, config)
        assert fields(tmp_path / "model.gguf")["llama.rope.freq_base"] == theta


def test_q4_k_m_reports_true_types_and_bits(tmp_path: Path) -> None:
    directory = tiny.tiny_llama(tmp_path / "model", hidden=256, intermediate=320, layers=8, tie=False)
    seen: list[int] = []
    written = export(directory, tmp_path / "model.gguf", "Q4_K_M", progress=seen.append)
    tensors = gguf.GGUFReader(tmp_path / "model.gguf").tensors
    # 320 is no multiple of 256, so ffn_down falls back: four layers with more bits, four without.
    assert written.tensor_types == {"F32": 17, "Q4_K": 8 * 5 + 4 + 1, "Q5_0": 4, "Q6_K": 4 + 1, "Q8_0": 4}
    assert written.tensor_types == dict(sorted(Counter(tensor.tensor_type.name for tensor in tensors).items()))
    bits = sum(int(tensor.n_bytes) for tensor in tensors) * 8 / sum(int(tensor.n_elements) for tensor in tensors)
    assert written.bits_per_weight == pytest.approx(bits)
    assert written.bytes == (tmp_path / "model.gguf").stat().st_size
    assert sum(seen) == sum(int(tensor.n_elements) for tensor in tensors)


def test_tied_embeddings_have_no_output(model_directory: Callable[[str], Path], tmp_path: Path) -> None:
    for name, has_output in (("llama", False), ("llama-untied", True)):
        export(model_directory(name), tmp_path / name, "F16")
        names = [tensor.name for tensor in gguf.GGUFReader(tmp_path / name).tensors]
        assert ("output.weight" in names) is has_output


def test_a_copy_of_the_tied_head_is_left_out(model_directory: Callable[[str], Path], tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(model_directory("llama"), directory)
    source = Checkpoint.open(model_directory("llama"))
    tensors = {name: source.read(name) for name in source.names}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_checkpoint(
        directory / "model.safetensors", {name: value.shape for name, value in tensors.items()}, tensors.__getitem__
    )
    export(model_directory("llama"), tmp_path / "a.gguf")
    export(directory, tmp_path / "b.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_every_row_is_read_once_for_all_files_and_few_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chrysalis_mlx.gguf.stream._SLICE", 1 << 14)
    directory = tiny.tiny_llama(tmp_path / "model", hidden=256, intermediate=512, layers=12)
    source = Recording(Checkpoint.open(directory))
    export(directory, tmp_path / "warm.gguf", "Q4_K_M")  # imports and caches
    paths = {name: tmp_path / f"{name}.gguf" for name in ("F16", "Q4_K_M", "Q8_0")}
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    written = write_gguf(paths, source, read_config(directory), directory)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    rows = {name: int(np.prod(source.shape(name)[:-1])) for name in source.names}
    assert source.reads == Counter(rows)
    assert max(source.slices) <= 1 << 14
    assert sum(written[name].bytes for name in paths) > 15e6
    assert peak < 3e6  # the vocabulary and a few slices
    export(directory, tmp_path / "alone.gguf", "Q4_K_M")
    assert (
        paths["Q4_K_M"].read_bytes() == (tmp_path / "alone.gguf").read_bytes() == (tmp_path / "warm.gguf").read_bytes()
    )


def test_slices_end_with_heads_matrices_and_tensors(
    model_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("llama-bias", "llama3-rope", "qwen3"):
        export(model_directory(name), tmp_path / "whole.gguf", "Q8_0")
        monkeypatch.setattr("chrysalis_mlx.gguf.stream._SLICE", 1 << 10)
        export(model_directory(name), tmp_path / "sliced.gguf", "Q8_0")
        monkeypatch.undo()
        assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "sliced.gguf").read_bytes()


def test_a_disk_without_room_is_told_before_anything_is_written(
    model_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(ExportError, match=r"the export takes 0.00 GB, and 0.00 GB of the disk are free"):
        export(model_directory("llama"), tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


def test_what_files_will_take_is_known_before_their_types_are_chosen(
    model_directory: Callable[[str], Path],
) -> None:
    directory = model_directory("llama")
    plan = plan_gguf(Checkpoint.open(directory), read_config(directory), directory)
    types = ["F16", "Q8_0", "Q4_K_M"]
    chosen = plan.choose(types, None)
    assert plan.bytes_of(types, importance=False) == sum(chosen.tensor_bytes(name) for name in types)


def test_the_same_input_gives_the_same_bytes(model_directory: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(model_directory("qwen3"), tmp_path / name, "Q8_0")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture GPT2LMHeadModel"),
        ({"architectures": None, "model_type": "gemma"}, "architecture gemma"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "rope_scaling = yarn"),
        (
            {"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2}},
            "rope_scaling = linear",
        ),
        ({"rope_parameters": None}, "no rope_theta"),
        ({"hidden_act": "gelu"}, "hidden_act = gelu"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"quantization": {"bits": 4}}, "quantized already"),
        ({"num_local_experts": 8}, "num_local_experts = 8"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types = sliding_attention"),
        ({"rms_norm_eps": None}, "lacks a usable value"),
        ({"num_hidden_layers": 3}, r"the weights lack model.layers.2(.|\n)* and 4 more"),
        ({"num_hidden_layers": 1}, r"no place for model.layers.1"),
        ({"attention_bias": True}, r"the weights lack model.layers.0.self_attn.q_proj.bias"),
        ({"tie_word_embeddings": False}, r"the weights lack lm_head.weight"),
        ({"intermediate_size": 96}, r"mlp.gate_proj.weight has the shape \(128, 64\), config.json says \(96, 64\)"),
        ({"vocab_size": 511}, "ids up to 511, the model 511 embeddings"),
        ({"vocab_size": 600}, r"embed_tokens.weight has the shape \(512, 64\), config.json says \(600, 64\)"),
    ],
)
def test_what_the_rules_do_not_cover_is_refused(
    model_directory: Callable[[str], Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    directory = model_directory("llama")
    config = {**read_config(directory), **changes}
    with pytest.raises(ExportError, match=message):
        write(tmp_path / "model.gguf", directory, config)
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mistral", {"sliding_window": 128}, "sliding_window = 128"),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 128}, "sliding_window = 128"),
        ("qwen3", {"attention_bias": True}, "attention_bias = True"),
        ("qwen2", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_scaling = llama3"),
    ],
)
def test_families_refuse_what_is_theirs(
    model_directory: Callable[[str], Path], tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    directory = model_directory(name)
    config = {**read_config(directory), **changes}
    with pytest.raises(ExportError, match=message):
        write(tmp_path / "model.gguf", directory, config)


def test_windows_that_never_act_are_no_obstacle(model_directory: Callable[[str], Path], tmp_path: Path) -> None:
    for name, changes in (("mistral", {"sliding_window": 512}), ("qwen3", {"sliding_window": 128})):
        directory = model_directory(name)
        config = {**read_config(directory), **changes}
        write(tmp_path / name, directory, config, "F32")
        export(directory, tmp_path / "plain")
        assert (tmp_path / name).read_bytes() == (tmp_path / "plain").read_bytes()


def test_the_error_lists_what_is_supported(model_directory: Callable[[str], Path], tmp_path: Path) -> None:
    directory = model_directory("llama")
    config = {**read_config(directory), "architectures": ["Nonsense"]}
    with pytest.raises(ExportError) as caught:
        write(tmp_path / "x", directory, config)
    assert caught.value.fix == f"supported are {', '.join(SUPPORTED)}"


def test_the_architecture_cannot_be_overridden(model_directory: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not metadata that can be chosen"):
        export(model_directory("llama"), tmp_path / "x", metadata={"general.architecture": "qwen3"})


def test_a_quantized_mlx_model_is_recognized(model_directory: Callable[[str], Path], tmp_path: Path) -> None:
    directory = model_directory("llama")
    config = json.loads(json.dumps(read_config(directory)))
    source = Recording(Checkpoint.open(directory))
    source.names = [*source.names, "model.layers.0.mlp.up_proj.scales"]
    with pytest.raises(ExportError, match=r"no place for model.layers.0.mlp.up_proj.scales(.|\n)*not quantized"):
        write(tmp_path / "x", directory, config, source=source)
