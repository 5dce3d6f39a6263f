"""Every row of the table splits in llama.cpp as tokenizer.json splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from chrysalis_mlx.errors import ExportError, ModelError
from chrysalis_mlx.export.llamacpp import LlamaServer
from chrysalis_mlx.gguf import pretokenizers
from tests import tiny
from tests.gguf.parity import export

HARD = [
    "",
    " ",
    "Hello world",
    " leading and trailing  ",
    "a  b   c    d\t\te\n\nf \n g\r\nh\r",
    "it's they're I'LL We'Ve DON'T o'clock 'tis 's",
    "1 12 123 1234 12345 1234567 3.14159 1e-5 0x1F 10,000",
    "x1y22z333 v2.0.1 2024-05-17T08:09:10Z",
    "½ Ⅳ ² ١٢٣ ४५६ 一二三 ①②",
    "Größe naïve café Ñandú ŒUVRE ß ﬁ",
    "東京は日本の首都です。你好，世界！안녕하세요",
    "Привет, мир! שלום עולם مرحبا بالعالم नमस्ते",
    "🦋🐛 👩‍👩‍👧‍👦 🇩🇪 é̂",
    "def f(x: int = 3) -> str:\n    return f'{x!r}'  # noqa\n\n\nclass A:\n\tpass",
    '<html><p class="x">&nbsp;</p></html> // ==> !== ... --- ###',
    "path/to/file_name.ext C:\\Users\\x https://example.org/?q=1&r=%20",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "no<|im_end|>space <|endoftext|> between<|im_end|><|im_end|>",
    "<|im_sta <|im_start |> |im_end|>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\u00a0non\u00a0breaking\u2003em\u200bzero\ufeffbom\x07bell\x7f",
    "CamelCaseAndSNAKE_CASE_AND-kebab-case",
    tiny.TEXT,
]


@pytest.mark.parametrize("pre", [rule.name for rule in pretokenizers.TABLE])
def test_token_ids_of_hard_strings_are_equal(tmp_path: Path, pre: str) -> None:
    directory = tiny.tiny_llama(tmp_path / "model", pre=pre)
    written = export(directory, tmp_path / "model.gguf")
    reference = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    with LlamaServer(written.path, context=64, threads=1) as server:
        for text in HARD:
            assert server.tokenize(text, parse_special=True) == reference.encode(text).ids, text
        assert server.log() == ""  # llama.cpp warns here when it does not know the pre-tokenizer


def test_the_hard_strings_tell_the_rules_apart() -> None:
    splits = {
        rule.name: [piece for text in HARD for piece, _ in tiny.pre_tokenizer(rule.name).pre_tokenize_str(text)]
        for rule in pretokenizers.TABLE
    }
    assert len({tuple(split) for split in splits.values()}) == len(pretokenizers.TABLE)


@pytest.mark.parametrize("pre", [rule.name for rule in pretokenizers.TABLE])
def test_a_rule_is_found_again(tmp_path: Path, pre: str) -> None:
    tokenizer = json.loads((tiny.byte_level_bpe(tmp_path, pre) / "tokenizer.json").read_text(encoding="utf-8"))
    assert pretokenizers.find(tokenizer).name == pre
    assert pretokenizers.named(pre).name == pre


def test_what_says_the_same_is_the_same() -> None:
    terse: dict[str, Any] = {
        "normalizer": {"type": "Sequence", "normalizers": []},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}],
        },
        "model": {"type": "BPE"},
    }
    assert pretokenizers.find(terse).name == "gpt-2"


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFKC"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "use_regex": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}},
        {"pre_tokenizer": None},
        {"model": {"type": "BPE", "ignore_merges": True}},
    ],
)
def test_an_unknown_rule_is_named(change: dict[str, Any]) -> None:
    gpt2 = {"normalizer": None, "pre_tokenizer": pretokenizers.named("gpt-2").pre_tokenizer, "model": {"type": "BPE"}}
    assert pretokenizers.find(gpt2).name == "gpt-2"
    with pytest.raises(ExportError, match=r"no llama.cpp pre-tokenizer(.|\n)*known are gpt-2"):
        pretokenizers.find({**gpt2, **change})


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ModelError, match="pre-tokenizer falcon"):
        pretokenizers.named("falcon")
