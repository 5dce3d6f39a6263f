"""Token ids, against transformers and sentencepiece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny

LINES = [*tiny.TEXT.splitlines(), "", " ", "\t\ttabs", "a  b", "<|im_start|>user\nhi<|im_end|>", "\r\n", "é\u0301"]


def settings(directory: Path, **changes: Any) -> None:
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("pre", ["smollm", "qwen2", "llama-bpe"])
def test_byte_level_ids_are_those_of_transformers(tmp_path: Path, pre: str) -> None:
    directory = tiny.byte_level_bpe(tmp_path, pre)
    ours, theirs = Tokenizer.open(directory), transformers.AutoTokenizer.from_pretrained(directory)
    encoded = ours.encode_batch(LINES)
    assert encoded == [theirs.encode(line) for line in LINES] == [ours.encode(line) for line in LINES]
    assert [ours.decode(ids) for ids in encoded[:10]] == LINES[:10]
    assert ours.eos_id == theirs.eos_token_id == 2
    assert (ours.token_id("<|im_start|>"), ours.token_id("nowhere")) == (1, None)


@pytest.mark.parametrize("add_bos", [True, False])
def test_sentencepiece_ids_are_those_of_the_library(tmp_path: Path, add_bos: bool) -> None:
    directory = tiny.sentencepiece(tmp_path)
    settings(directory, add_bos_token=add_bos)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    ours = Tokenizer.open(directory)
    for line in tiny.TEXT.splitlines():
        assert ours.encode(line) == [1] * add_bos + theirs.encode(line)
        assert ours.decode(theirs.encode(line)) == line
    assert (ours.eos_id, ours.token_id("</s>"), ours.token_id("nowhere")) == (2, 2, None)


def test_truncation_and_padding_saved_in_the_file_are_not_applied(tmp_path: Path) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    expected = Tokenizer.open(directory).encode_batch(["a caterpillar of 5 instars", "wings"])
    file = directory / "tokenizer.json"
    content = json.loads(file.read_text())
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }
    file.write_text(json.dumps(content))
    assert Tokenizer.open(directory).encode_batch(["a caterpillar of 5 instars", "wings"]) == expected
    assert len(expected[0]) > 2


@pytest.mark.parametrize(
    ("token", "config", "expected"),
    [
        ("<|endoftext|>", {}, 0),
        ({"content": "<|im_start|>"}, {"eos_token_id": 2}, 1),
        (None, {"eos_token_id": 7}, 7),
        (None, {"eos_token_id": [5, 6]}, 5),
        ("not in the vocabulary", {"eos_token_id": 7}, 7),
        (None, {"eos_token_id": 0}, 0),
    ],
)
def test_the_end_token_is_the_tokenizers_else_the_models(
    tmp_path: Path, token: object, config: dict[str, object], expected: int
) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    settings(directory, eos_token=token)
    (directory / "config.json").write_text(json.dumps(config))
    assert Tokenizer.open(directory).eos_id == expected


def test_no_end_token_anywhere_is_an_error(tmp_path: Path) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    settings(directory, eos_token=None)
    with pytest.raises(ModelError, match=r"names no end-of-text token(.|\n)*add its eos_token"):
        Tokenizer.open(directory)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer.model"])
def test_a_damaged_tokenizer_is_an_error(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(b"\x00damaged")
    with pytest.raises(ModelError, match=r"the tokenizer cannot be read(.|\n)*copy it again"):
        Tokenizer.open(tmp_path)


def test_damaged_settings_are_an_error(tmp_path: Path) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    (directory / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer_config.json is not valid JSON"):
        Tokenizer.open(directory)
