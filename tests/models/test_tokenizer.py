"""Token ids, against transformers and sentencepiece."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models import tokenizer as module
from chrysalis_mlx.models.chat import ChatTemplate
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


SPLIT = ["<s>a b</s>c d</s> e", "x</s>", "</s>x", "🦋東 </s> 京\n\nq", "", "\n</s>\n", "a</s></s>b", "<s></s>"]


def test_sentencepiece_reads_special_tokens_in_a_text_as_transformers_does(tmp_path: Path) -> None:
    directory = tiny.sentencepiece(tmp_path)
    ours, theirs = Tokenizer.open(directory), transformers.AutoTokenizer.from_pretrained(directory)
    expected = theirs(SPLIT, add_special_tokens=False)["input_ids"]
    assert ours.encode_batch(SPLIT, special=False) == expected
    assert ours.encode_batch(SPLIT) == [[1, *ids] for ids in expected]
    assert ours.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2}


def test_sentencepiece_knows_the_tokens_that_its_settings_add(tmp_path: Path) -> None:
    directory = tiny.sentencepiece(tmp_path)
    settings(directory, added_tokens_decoder={"512": {"content": "<|im_end|>", "special": True}})
    ours = Tokenizer.open(directory)
    assert ours.encode("a<|im_end|>", special=False) == [*ours.encode("a", special=False), 512]
    assert ours.token_id("<|im_end|>") == 512
    text = "<|im_end|>\n the wings 🦋<|im_end|> a  b"
    assert ours.decode(ours.encode(text)) == text
    assert ours.decode([*ours.encode("a b"), 600]) == "a b"  # an embedding may have rows that no token belongs to


SPANS = [
    "a 🦋東 x\n\n<|im_end|>\n e\u0301 ",
    "  two  ",
    "\r\n\t",
    "</s>\n東京</s>🐛",
    "",
    "é" * 3,
    *tiny.TEXT.splitlines(),
]


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "qwen2", "llama-bpe", "spm"])
def test_spans_are_the_characters_of_each_token(tmp_path: Path, pre: str) -> None:
    directory = tiny.sentencepiece(tmp_path) if pre == "spm" else tiny.byte_level_bpe(tmp_path, pre)
    tokenizer = Tokenizer.open(directory)
    encoded = tokenizer.encode_spans(SPANS, special=False)
    assert [one.ids.tolist() for one in encoded] == tokenizer.encode_batch(SPANS, special=False)
    for text, one in zip(SPANS, encoded, strict=True):
        covered = {at for start, end in one.spans.tolist() for at in range(start, end)}
        composed = text.index("\u0301") if "\u0301" in text and pre == "qwen2" else None  # NFC makes one of two
        assert covered == set(range(len(text))) - {composed}
        assert all(start < end for start, end in one.spans.tolist())
        assert (one.spans[1:, 0] >= one.spans[:-1, 0]).all()
        assert one.spans.shape == (len(one.ids), 2)


def test_spans_keep_white_space_whatever_the_file_says_of_trimming(tmp_path: Path) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    before = Tokenizer.open(directory).encode_spans(SPANS)
    file = directory / "tokenizer.json"
    trimming = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": trimming}))
    after = Tokenizer.open(directory).encode_spans(SPANS)
    assert [one.spans.tolist() for one in after] == [one.spans.tolist() for one in before]
    assert [one.ids.tolist() for one in after] == [one.ids.tolist() for one in before]


def test_many_texts_are_encoded_as_one_is(tokenizer: Tokenizer) -> None:
    texts = [f"caterpillar {number}" for number in range(1100)]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert [one.ids.tolist() for one in tokenizer.encode_spans(texts)] == tokenizer.encode_batch(texts)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"],
            ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
        ),
        (["<fim_prefix>", "<fim_suffix>", "<fim_middle>"], ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")),
        (
            ["<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"],
            ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
        ),
        (["▁<PRE>", "▁<SUF>", "▁<MID>"], ("▁<PRE>", "▁<SUF>", "▁<MID>")),
        (["<fim_prefix>", "<fim_suffix>"], None),
        ([], None),
    ],
)
def test_the_tokens_to_fill_in_the_middle(tmp_path: Path, names: list[str], expected: tuple[str, ...] | None) -> None:
    file = tiny.byte_level_bpe(tmp_path) / "tokenizer.json"
    content = json.loads(file.read_text())
    like = content["added_tokens"][0] | {"special": False}
    content["added_tokens"] += [like | {"id": 512 + n, "content": name} for n, name in enumerate(names)]
    file.write_text(json.dumps(content))
    tokenizer = Tokenizer.open(tmp_path)
    found = tokenizer.fim
    assert (found and (found.prefix, found.suffix, found.middle)) == expected
    assert tokenizer.encode("".join(names)) == [512 + n for n in range(len(names))]


def test_counting_is_the_length_of_what_is_encoded(
    tokenizer: Tokenizer, spm_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["", "one", "two\nlines\n", *("a line of words\n" * n for n in range(20)), "x" * 999]
    for one in (tokenizer, spm_tokenizer):
        expected = [len(ids) for ids in one.encode_batch(texts, special=False)]
        assert one.count_batch(texts) == expected
        assert one.count_batch([]) == []
        at_once: list[int] = []
        encode = one._engine.encode

        def counting(block: Any, special: bool, encode: Any = encode, at_once: list[int] = at_once) -> Any:
            at_once.append(sum(map(len, block)))
            return encode(block, special)

        monkeypatch.setattr(one._engine, "encode", counting)
        monkeypatch.setattr(module, "_CHARACTERS", 64)
        for found, exact in zip(one.count_batch(texts), expected, strict=True):
            assert abs(found - exact) <= exact // 8 + 1
        assert max(at_once) <= 64
        monkeypatch.undo()


def test_turn_tokens_are_those_that_the_chat_template_knows(tokenizer: Tokenizer) -> None:
    assert tokenizer.chat
    assert set(tokenizer.turn_tokens) == {"<|im_start|>", "<|im_end|>", "<|endoftext|>"}  # the last one pads
    engine = types.SimpleNamespace(special_tokens={"\n\n": 5, "<table>": 6, "<|im_end|>": 1, "<bos>": 2})
    source = "{{ bos_token }}\n\n{{ messages[0].content }}<|im_end|>"
    gemma = Tokenizer(engine, 1, ChatTemplate(source, {"bos_token": "<bos>"}))  # type: ignore[arg-type]
    assert gemma.turn_tokens == ("<|im_end|>", "<bos>")
    assert Tokenizer(engine, 1).turn_tokens == ()  # type: ignore[arg-type]
