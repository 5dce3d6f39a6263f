"""The gate, in real llama.cpp: a sound file passes, and each fault is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chrysalis_mlx.backends import load
from chrysalis_mlx.export.gate.budgets import budget_of, over_budget
from chrysalis_mlx.export.gate.divergence import measure
from chrysalis_mlx.export.gate.reference import Reference, held_out_segments, make_reference, sample_lines, sample_text
from chrysalis_mlx.export.gate.verify import Verification, verify_gguf
from chrysalis_mlx.gguf.architectures import permute
from chrysalis_mlx.gguf.quantize import TYPES
from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.models.directory import ModelDirectory
from tests import tiny
from tests.gguf.parity import export

END = "<|done|>"  # llama.cpp knows <|im_end|> by its text, and stops there whatever a file says


@dataclass(frozen=True)
class Model:
    directory: Path
    reference: Reference

    def copy(self, path: Path) -> Path:
        return Path(shutil.copytree(self.directory, path))


def reference_of(directory: Path, *, positions: int = 24, text: str | None = None) -> Reference:
    model = ModelDirectory.open(directory)
    text = text or sample_text()
    return make_reference(
        model,
        load("torch")(directory),
        held_out_segments(text, model.tokenizer, 96),
        sample_lines([text, tiny.TEXT], 20),
        positions=positions,
        row_length=96,
    )


def verify(directory: Path, path: Path, reference: Reference, type_name: str = "F32") -> Verification:
    return verify_gguf(export(directory, path, type_name).path, type_name, reference, threads=1)


def rename(directory: Path, old: str, new: str) -> None:
    """Another text for a token, everywhere."""
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        path = directory / file
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def set_template(directory: Path, template: str) -> None:
    edit(directory / "tokenizer_config.json", lambda settings: settings.update(chat_template=template))


@contextmanager
def patched(file: Path) -> Iterator[gguf.GGUFReader]:
    """The bytes of a GGUF, to change in place."""
    reader = gguf.GGUFReader(file, "r+")
    yield reader
    reader.data.flush()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    directory = tiny.tiny_llama(tmp_path_factory.mktemp("verify") / "model", pre="qwen2")
    rename(directory, tiny.IM_END, END)
    return Model(directory, reference_of(directory))


def test_a_sound_file_passes_and_tells_all_of_it(model: Model, tmp_path: Path) -> None:
    found = verify(model.directory, tmp_path / "model.gguf", model.reference)
    assert found.failures == ()
    told = found.as_dict()
    assert json.loads(json.dumps(told)) == told
    assert told["verified"] is True
    assert told["lines"] == told["lines_equal"] == 20
    assert told["hard_strings"] == told["hard_strings_equal"] > 100
    assert told["positions"] == 24
    assert 0 <= told["kl"] <= told["kl_max"] < 1e-9
    assert told["kl_whole_vocabulary"] < 1e-9
    assert told["top1"] == 1
    assert told["perplexity"] == pytest.approx(told["reference_perplexity"], rel=1e-5)
    assert told["prompts"] == ["one turn", "several turns", "a system prompt", "a system prompt and several turns"]
    assert told["prompts_left_out"] == {}
    named = ["tokenizer", "generation_config.json", "chat template"]
    assert told["ends"] == [{"id": 2, "text": END, "named_by": named, "stops": True}]
    assert told["answer"]["finish"] in ("eos", "limit")
    assert told["notes"] == []


def test_texts_as_long_as_the_context_of_the_model_are_compared(tmp_path: Path) -> None:
    """llama.cpp has no room for the last token of one."""
    directory = tiny.tiny_llama(tmp_path / "model", max_position_embeddings=96)
    reference = reference_of(directory, positions=400)
    assert max(len(position.context) for position in reference.positions) == 94
    assert verify(directory, tmp_path / "model.gguf", reference).failures == ()


def test_the_perplexity_is_of_the_tokens_that_follow(model: Model, tmp_path: Path) -> None:
    """Of each target, also where it is improbable or half a character."""
    directory = model.directory
    reference = reference_of(directory, text="蝶が窓の外に止まっています。 🦋 " + sample_text()[:200])
    targets = [position.target for position in reference.positions]
    surprise = [-position.log_p[position.target] for position in reference.positions]
    likely = [int((position.log_p > position.log_p[position.target]).sum()) for position in reference.positions]
    assert max(likely) > 300
    assert any("�" in reference.tokenizer.decode([target]) for target in targets)
    with LlamaServer(export(directory, tmp_path / "model.gguf").path, context=128, threads=1, precise=True) as server:
        found = measure(server, reference.positions)
    assert found.perplexity == pytest.approx(np.exp(np.mean(surprise)), rel=1e-5)
    assert found.reference_perplexity == pytest.approx(np.exp(np.mean(surprise)), rel=1e-6)
    assert found.perplexity_error < 1e-5


def test_another_template_in_the_file_is_named(model: Model, tmp_path: Path) -> None:
    directory = model.copy(tmp_path / "model")
    other = tiny.CHATML.replace(tiny.IM_END, END).replace("message['content']", "message['content'] | trim")
    set_template(directory, other)
    found = verify(directory, tmp_path / "model.gguf", model.reference)
    assert len(found.failures) == 4
    assert found.failures[0] == (
        "the prompt of one turn differs at character 17: '<|im_start|>user\\nDoes white space count?\\n\\nYes: "
        "\\t“two  spaces' in llama.cpp, '<|im_start|>user\\n  Does white space count?\\n\\nYes: \\t“two  spac' "
        "in the training template"
    )


def test_a_file_without_the_template_is_named(model: Model, tmp_path: Path) -> None:
    directory = model.copy(tmp_path / "model")
    edit(directory / "tokenizer_config.json", lambda settings: settings.pop("chat_template"))
    found = verify(directory, tmp_path / "model.gguf", model.reference)
    assert len(found.failures) == 4
    assert all(failure.startswith("the prompt of ") and "<|im_end|>" in failure for failure in found.failures)


def test_swapped_tokens_are_named_with_both_lists(model: Model, tmp_path: Path) -> None:
    directory = model.copy(tmp_path / "model")
    reference = replace(model.reference, lines=("Zinc & Quartz", "sky"))

    def swap(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        vocabulary["Z"], vocabulary["Q"] = vocabulary["Q"], vocabulary["Z"]

    edit(directory / "tokenizer.json", swap)
    found = verify(directory, tmp_path / "model.gguf", reference)
    ours = ModelDirectory.open(directory).tokenizer.encode("Zinc & Quartz")
    trained = reference.tokenizer.encode("Zinc & Quartz")
    assert ours != trained
    assert found.failures[0] == (
        f"1 of 2 corpus lines have other token ids: 'Zinc & Quartz' has the token ids {ours} in llama.cpp "
        f"and {trained} in the tokenizer"
    )
    assert found.failures[1].startswith(
        f"{found.hard_strings.texts - found.hard_strings.equal} of {found.hard_strings.texts} hard strings"
    )


def test_rows_in_the_wrong_order_are_too_far_away_for_types_of_four_bits_and_more(model: Model, tmp_path: Path) -> None:
    """The rows of q and k as a file has them that was not permuted, or was twice.

    Two random layers lose little by it, 1.3 nats: no more than a sound file may lose in two or three bits.
    """
    directory = model.copy(tmp_path / "model")
    weights = load_file(directory / "model.safetensors")
    for name, values in weights.items():
        if "q_proj" in name or "k_proj" in name:
            weights[name] = permute(values, 4 if "q_proj" in name else 2).copy()
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    found = verify(directory, tmp_path / "model.gguf", model.reference)
    assert [failure.split()[0] for failure in found.failures] == ["KL", "top-1", "perplexity"]
    assert found.lines.equal == 20
    for type_name in set(TYPES) - {"Q3_K_S", "IQ3_M", "Q2_K", "IQ2_M"}:
        assert any(failure.startswith("KL") for failure in over_budget(budget_of(type_name), found.distance))


@pytest.mark.parametrize("fault", ["rope", "norm"])
def test_other_faults_in_the_numbers_are_too_far_away(fault: str, model: Model, tmp_path: Path) -> None:
    directory = model.copy(tmp_path / "model")
    weights = load_file(directory / "model.safetensors")
    if fault == "rope":
        rope = {"rope_theta": 300.0, "rope_type": "default"}
        edit(directory / "config.json", lambda config: config.update(rope_parameters=rope))
    else:
        weights = {name: values + 1 if "norm" in name else values for name, values in weights.items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    found = verify(directory, tmp_path / "model.gguf", model.reference)
    assert over_budget(budget_of("Q4_K_M"), found.distance)[0].startswith("KL ")


def test_values_that_are_not_numbers_are_no_small_distance(model: Model, tmp_path: Path) -> None:
    file = export(model.directory, tmp_path / "model.gguf").path
    with patched(file) as reader:
        norm = next(tensor for tensor in reader.tensors if tensor.name == "output_norm.weight")
        norm.data[3] = np.nan
    found = verify_gguf(file, "F32", model.reference, threads=1)
    assert found.failures[0] == "KL nan is above the budget of 0.0001"
    assert found.failures[-1].startswith("perplexity nan is nan times")
    assert found.as_dict()["kl"] is None


def test_an_end_token_that_is_none_in_the_file_is_named(model: Model, tmp_path: Path) -> None:
    file = export(model.directory, tmp_path / "model.gguf").path
    with patched(file) as reader:
        for key in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"):
            if key in reader.fields:
                assert reader.fields[key].parts[-1][0] == 2
                reader.fields[key].parts[-1][0] = 0
    found = verify_gguf(file, "F32", model.reference, threads=1)
    assert found.failures == (
        f"llama.cpp goes on after '{END}' (2), an end token by tokenizer and generation_config.json and chat template",
    )
    assert [end["stops"] for end in found.as_dict()["ends"]] == [False]


def test_a_special_token_that_is_a_plain_one_in_the_file_is_named(model: Model, tmp_path: Path) -> None:
    file = export(model.directory, tmp_path / "model.gguf").path
    with patched(file) as reader:
        types = reader.fields["tokenizer.ggml.token_type"]
        types.parts[types.data[2]][0] = gguf.TokenType.NORMAL
    found = verify_gguf(file, "F32", model.reference, threads=1)
    assert len(found.failures) == 5
    assert f"hard strings have other token ids: '{END}' has the token ids [" in found.failures[0]
    assert found.failures[0].endswith(" in llama.cpp and [2] in the tokenizer")
    assert found.failures[1].startswith("the prompt of one turn has the token ids [")
    assert ", from token 61 on" in found.failures[1]


def test_what_the_training_template_refuses_is_left_out(tmp_path: Path) -> None:
    """As Gemma's: no system prompt."""
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    directory = tiny.tiny_llama(tmp_path / "model")
    set_template(directory, refusing + tiny.CHATML)
    found = verify(directory, tmp_path / "model.gguf", reference_of(directory, positions=2))
    assert found.failures == ()
    assert found.prompts is not None
    assert found.prompts.compared == ("one turn", "several turns")
    refusal = "the model's chat template refuses this conversation: no system role"
    assert found.prompts.left_out == {"a system prompt": refusal, "a system prompt and several turns": refusal}


def test_a_template_that_drops_the_system_prompt_is_not_compared_on_it(tmp_path: Path) -> None:
    dropping = tiny.CHATML.replace("in messages %}", "in messages if message['role'] != 'system' %}")
    directory = tiny.tiny_llama(tmp_path / "model")
    set_template(directory, dropping)
    found = verify(directory, tmp_path / "model.gguf", reference_of(directory, positions=2))
    assert found.failures == ()
    assert found.as_dict()["prompts_left_out"] == dict.fromkeys(
        ("a system prompt", "a system prompt and several turns"), "the model's chat template shows no system prompt"
    )


@pytest.mark.parametrize(
    ("start", "note"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "the template shows today's date"),
        ("{{ date_string | default('26 Jul 2024') }}", "the template shows today's date"),
        (
            "{% if enable_thinking is defined %}Think.{% endif %}",
            "llama.cpp tells the template enable_thinking = true, the corpus was made without",
        ),
    ],
)
def test_what_llamacpp_tells_every_template_is_noted(start: str, note: str, tmp_path: Path) -> None:
    directory = tiny.tiny_llama(tmp_path / "model")
    set_template(directory, start + tiny.CHATML)
    found = verify(directory, tmp_path / "model.gguf", reference_of(directory, positions=2))
    assert found.failures == ()
    assert found.notes == (note,)


@pytest.mark.parametrize("in_template", [True, False])
def test_one_bos_token_is_before_a_prompt(in_template: bool, tmp_path: Path) -> None:
    """llama.cpp takes the template's away, and puts its own before every text."""
    directory = tiny.tiny_llama(tmp_path / "model", pre="spm")
    set_template(directory, ("{{ bos_token }}" if in_template else "") + tiny.CHATML)
    reference = reference_of(directory, positions=2)
    found = verify(directory, tmp_path / "model.gguf", reference)
    assert found.failures == ()
    noted = "llama.cpp puts '<s>' before a conversation, the training template does not"
    assert (noted in found.notes) is not in_template


def test_a_model_without_a_template_is_noted(tmp_path: Path) -> None:
    directory = tiny.tiny_llama(tmp_path / "model")
    edit(directory / "tokenizer_config.json", lambda settings: settings.pop("chat_template"))
    found = verify(directory, tmp_path / "model.gguf", reference_of(directory, positions=2))
    assert found.failures == ()
    assert found.notes == ("the model has no chat template",)
    told = found.as_dict()
    assert told["prompts"] is None
    assert told["answer"] is None


def test_texts_that_llamacpp_cannot_tokenize_alike_are_left_out_and_counted(tmp_path: Path) -> None:
    """SentencePiece puts a space at the start of a text only."""
    directory = tiny.tiny_llama(tmp_path / "model", pre="spm")
    reference = reference_of(directory, positions=2)
    assert len(reference.notes) == 1
    assert reference.notes[0].endswith(
        " hard strings are not compared: the tokenizer puts a space at the start of a text only, llama.cpp before "
        "every piece of text between special tokens"
    )
    found = verify(directory, tmp_path / "model.gguf", reference)
    assert found.failures == ()
    assert reference.notes[0] in found.notes
    assert found.hard_strings.texts == len(reference.hard_strings) > 90


def test_every_end_token_is_tried(tmp_path: Path) -> None:
    directory = tiny.tiny_llama(tmp_path / "model")
    edit(directory / "generation_config.json", lambda settings: settings.update(eos_token_id=[2, 0, 400]))
    reference = reference_of(directory, positions=2)
    assert [(end.id, end.named_by[0]) for end in reference.ends] == [
        (2, "tokenizer"),
        (0, "generation_config.json"),
        (400, "generation_config.json"),
    ]
    assert verify(directory, tmp_path / "model.gguf", reference).failures == ()


@pytest.mark.parametrize("type_name", [name for name in TYPES if name not in ("F32", "IQ2_M")])
def test_a_sound_file_of_every_type_is_within_its_budget(type_name: str, wide: Model, tmp_path: Path) -> None:
    file = export(wide.directory, tmp_path / "model.gguf", type_name).path
    with LlamaServer(file, context=128, threads=1, precise=True) as server:
        found = measure(server, wide.reference.positions)
    assert over_budget(budget_of(type_name), found) == []
    lossless = type_name in ("F16", "BF16", "Q8_0", "MXFP4")  # MXFP4 is of experts, and this model has none
    assert found.kl > (1e-7 if lossless else 1e-3)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Rows of 256 values, as K and IQ types need them."""
    directory = tiny.tiny_llama(tmp_path_factory.mktemp("wide") / "model", hidden=256, intermediate=256)
    return Model(directory, reference_of(directory, positions=32))
