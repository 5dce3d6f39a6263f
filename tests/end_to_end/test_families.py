"""Every family with a vocabulary of the kind that its models have, through the whole gate: one command, one proof."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import tiny, vocabularies
from tests.end_to_end.inputs import report
from tests.gguf.conftest import gemma2, gemma3

Build = Callable[..., Path]
SPACES = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]


def bpe(pre: str) -> Build:
    return partial(vocabularies.byte_level_bpe, pre=pre)


def without_model(directory: Path, *, gemma: bool = False) -> Path:
    """A SentencePiece vocabulary as tokenizer.json alone, as transformers 5 writes it."""
    source = vocabularies.sentencepiece(directory / "source", gemma=gemma)
    spaces: dict[str, Any] = SPACES[1] if gemma else {"type": "Sequence", "normalizers": SPACES}
    return vocabularies.as_tokenizer_json(source, directory, normalizer=spaces, pre_tokenizer=None)


FAMILIES: dict[str, tuple[Build, Build]] = {
    "llama 2": (tiny.tiny_llama, vocabularies.sentencepiece),
    "llama 2 without tokenizer.model": (tiny.tiny_llama, without_model),
    "llama 3": (tiny.tiny_llama, bpe("llama-bpe")),
    "smollm2": (tiny.tiny_llama, bpe("smollm")),
    "mistral": (tiny.tiny_mistral, vocabularies.sentencepiece),
    "mistral nemo": (tiny.tiny_mistral, bpe("tekken")),
    "qwen2": (tiny.tiny_qwen2, bpe("qwen2")),
    "qwen3": (tiny.tiny_qwen3, bpe("qwen2")),
    "qwen3-moe": (tiny.tiny_qwen3_moe, bpe("qwen2")),
    "gemma 2": (gemma2, partial(vocabularies.sentencepiece, gemma=True)),
    "gemma 3": (gemma3, partial(without_model, gemma=True)),
    "phi-3": (tiny.tiny_phi3, vocabularies.sentencepiece),
    "olmo 2": (tiny.tiny_olmo2, bpe("dbrx")),
    "granite": (tiny.tiny_granite, bpe("refact")),
    "smollm3": (tiny.tiny_smollm3, bpe("llama-bpe")),
    "cohere 2": (tiny.tiny_cohere2, bpe("command-r")),
}


def made(directory: Path, family: str) -> Path:
    """A tiny random model that has the vocabulary's size, its special ids and its files."""
    build, vocabulary = FAMILIES[family]
    files = vocabulary(directory / "vocabulary")
    settings = json.loads((files / "tokenizer_config.json").read_text(encoding="utf-8"))
    spm = "bos_token" in settings and settings["bos_token"] is not None
    gemma = settings.get("bos_token") == "<bos>"
    size = 1000 if spm else 1200
    model = build(directory / "model", vocab_size=size, max_position_embeddings=1024)
    for name in ("tokenizer.json", "tokenizer.model", "special_tokens_map.json", "chat_template.jinja"):
        (model / name).unlink(missing_ok=True)
    for file in files.glob("tokenizer*"):
        file.rename(model / file.name)
    ids = {"bos_token_id": (2 if gemma else 1) if spm else None, "eos_token_id": 1 if gemma else 2, "pad_token_id": 0}
    for name in ("config.json", "generation_config.json"):
        value = json.loads((model / name).read_text(encoding="utf-8")) | ids
        (model / name).write_text(json.dumps(value), encoding="utf-8")
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_with_its_own_kind_of_vocabulary_passes_the_gate(
    family: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = made(tmp_path, family)
    options = ["fuse", f"--model={model}", f"--output={tmp_path / 'out'}", "--quantize=F32", "--backend=torch"]
    entry = report(capfd, *options)["report"]["gguf"]["F32"]
    assert entry["verified"]
    assert entry["lines_equal"] == entry["lines"] > 50
    assert entry["hard_strings_equal"] == entry["hard_strings"] > 100
    assert entry["kl"] < 1e-5
    assert all(end["stops"] for end in entry["ends"])
