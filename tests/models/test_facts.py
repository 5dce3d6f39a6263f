"""What is known of a model before its weights are here."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.facts import ModelFacts, read_facts, resolve_facts
from tests import tiny
from tests.gguf.parity import export
from tests.models.published import PUBLISHED, write_published
from tests.models.test_source import Hub, resolve

TINY = 106_816  # of tests.tiny.tiny_llama with tied embeddings


def test_a_directory_with_weights(tiny_model: Path) -> None:
    facts = resolve_facts(str(tiny_model))
    assert facts == ModelFacts(
        name="tiny-llama",
        model_type="llama",
        parameters=TINY,
        variant="instruct",
        context_length=512,
        bits=None,
        reasons=("0.1 million parameters, counted in its weights", "instruct: it has a chat template"),
    )
    assert facts.weight_bytes == 2 * TINY


def test_a_directory_without_weights_or_template(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model / "config.json", tmp_path)
    facts = read_facts(tmp_path, "tiny")
    assert (facts.parameters, facts.variant) == (TINY, "base")
    assert facts.reasons == (
        "0.1 million parameters, computed from its config.json",
        "base: it has no chat template",
    )


def test_a_gguf_is_read_at_its_header(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHRYSALIS_CACHE", str(tmp_path / "cache"))
    facts = resolve_facts(str(export(tiny_model, tmp_path / "tiny-base.Q8_0.gguf").path))
    assert (facts.name, facts.model_type, facts.parameters) == ("tiny-base.Q8_0", "llama", TINY)
    assert (facts.variant, facts.context_length, facts.bits) == ("base", 512, None)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "has_template", "variant", "why"),
    [
        ("Qwen3-0.6B-Base", True, "base", "its name says 'base'"),
        ("gemma-3-1b-pt", False, "base", "its name says 'pt'"),
        ("gemma-3-1b-it", False, "instruct", "its name says 'it'"),
        ("SmolLM2-135M-Instruct.Q4_1", False, "instruct", "its name says 'instruct'"),
        ("Phi-3-mini-4k-instruct-4bit", False, "instruct", "its name says 'instruct'"),
        ("Base-model-Chat", False, "instruct", "its name says 'chat'"),
        ("italian-1b", False, "base", "it has no chat template"),
        ("Qwen3-0.6B", True, "instruct", "it has a chat template"),
    ],
)
def test_base_or_instruct(
    tiny_model: Path, tmp_path: Path, name: str, has_template: bool, variant: str, why: str
) -> None:
    shutil.copy(tiny_model / "config.json", tmp_path)
    if has_template:
        (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    facts = read_facts(tmp_path, name)
    assert (facts.variant, facts.reasons[1]) == (variant, f"{variant}: {why}")


def test_a_quantized_model(tmp_path: Path) -> None:
    source = "mlx-community/Qwen3-4B-4bit"
    facts = resolve_facts(str(write_published(tmp_path / "Qwen3-4B-4bit", source)))
    assert (facts.name, facts.bits, facts.variant) == ("Qwen3-4B-4bit", 4, "instruct")
    assert facts.weight_bytes == PUBLISHED[source][1] // 2


def test_a_directory_that_mlx_lm_quantized(tiny_model: Path, tmp_path: Path) -> None:
    directory = tiny.quantized(tiny_model, tmp_path / "tiny-3bit", bits=3)
    original, facts = resolve_facts(str(tiny_model)), resolve_facts(str(directory))
    assert (facts.parameters, facts.bits, facts.variant) == (original.parameters, 3, original.variant)
    assert facts.weight_bytes == original.parameters * 3 // 8


def test_the_language_model_of_a_larger_one(tmp_path: Path) -> None:
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "model_type": "gemma3_text"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    facts = read_facts(tmp_path, "gemma-3-4b-it")
    assert (facts.model_type, facts.context_length) == ("gemma3_text", 131_072)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "the model directory has no config.json"),
        ("{", "config.json is not valid JSON"),
        ("[]", "config.json is not a JSON object"),
        ('{"model_type": "rwkv"}', r"cannot be computed from config.json(.|\n)*where: .*config.json"),
    ],
)
def test_a_directory_that_says_too_little(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=words):
        read_facts(tmp_path, "x")


def test_of_a_hub_id_only_small_files_are_downloaded(tiny_model: Path, tmp_path: Path) -> None:
    server = Hub(tiny_model)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        code = (
            "import sys; from chrysalis_mlx.models.facts import resolve_facts\n"
            "facts = resolve_facts('org/tiny'); print(facts.name, facts.parameters, facts.reasons[0])"
        )
        done = resolve(server, tmp_path, code=code)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert done.stdout == f"tiny {TINY} 0.1 million parameters, computed from its config.json\n", done.stderr
    fetched = {line.rsplit("/", 1)[1] for line in server.seen if line.startswith("GET /org/tiny/resolve/")}
    assert fetched == {"config.json", "tokenizer_config.json"}
