"""Every row of the table splits in llama.cpp as tokenizer.json splits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from chrysalis_mlx.errors import ExportError, ModelError
from chrysalis_mlx.gguf.vocabulary import pretokenizers
from chrysalis_mlx.gguf.vocabulary.hard_strings import HARD_STRINGS, special_token_strings
from chrysalis_mlx.gguf.vocabulary.pretokenizer_hashes import NAMES, fingerprint
from chrysalis_mlx.gguf.vocabulary.vocabulary import Vocabulary
from chrysalis_mlx.llamacpp.server import LlamaServer
from tests import tiny, vocabularies

SMOLLM2 = os.environ.get("CHRYSALIS_SMOLLM2_GGUF")
ROWS = [rule.name for rule in pretokenizers.TABLE]


def read(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    return content


def no_encode(text: str) -> list[int]:
    raise AssertionError("the hash is not needed where the structure says it")


@pytest.mark.parametrize("pre", ROWS)
def test_token_ids_of_hard_strings_are_equal(tmp_path: Path, pre: str) -> None:
    directory = vocabularies.byte_level_bpe(tmp_path / "tokenizer", pre)
    vocabulary = Vocabulary.from_directory(directory, {"vocab_size": 1200})
    assert vocabulary.pre == pre
    reference = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    rule = pretokenizers.named(pre)
    theirs = tokenizers.Tokenizer.from_str(
        json.dumps(read(directory) | {"normalizer": None, "pre_tokenizer": rule.in_llamacpp or rule.pre_tokenizer})
    )
    texts = [*HARD_STRINGS, *special_token_strings([tiny.IM_START, tiny.IM_END, tiny.END_OF_TEXT])]
    agreed = [text for text in texts if vocabulary.agreement.agrees(text)]
    with LlamaServer(vocabularies.write_gguf(tmp_path / "v.gguf", vocabulary), context=64, threads=1) as server:
        ids = {text: server.tokenize(text, parse_special=True) for text in texts}
        assert server.log() == ""  # llama.cpp warns here when it does not know the pre-tokenizer
    for text in agreed:
        assert ids[text] == reference.encode(text).ids, text
    for text in texts:  # where they differ it is as the table says: in the normal form and in the rule
        assert ids[text] == theirs.encode(text).ids, text
    limits = 3 if rule.normalizer else 9 if rule.in_llamacpp else 0
    assert len(texts) - len(agreed) == limits
    assert bool(vocabulary.agreement.limits) == bool(limits)


def test_the_hard_strings_tell_the_rules_apart() -> None:
    rules = {json.dumps(rule.pre_tokenizer): rule for rule in pretokenizers.TABLE}
    splits = {
        tuple(piece for text in HARD_STRINGS for piece, _ in split.pre_tokenize_str(text))
        for split in (vocabularies.pre_tokenizer(rule.pre_tokenizer) for rule in rules.values())
    }
    assert len(splits) == len(rules) == 8


def test_all_spellings_of_a_rule_split_the_same() -> None:
    spelled = [(rule, spelling) for rule in pretokenizers.TABLE for spelling in rule.spellings]
    assert len(spelled) == 10
    for rule, spelling in spelled:
        first, second = (vocabularies.pre_tokenizer(step) for step in (rule.pre_tokenizer, spelling))
        for text in (*HARD_STRINGS, vocabularies.TEXT):
            assert first.pre_tokenize_str(text) == second.pre_tokenize_str(text), text


@pytest.mark.parametrize("pre", ROWS)
def test_a_rule_is_found_again(tmp_path: Path, pre: str) -> None:
    rule = pretokenizers.named(pre)
    assert rule.name == pre
    assert all(pretokenizers.named(name) is rule for name in rule.aliases)
    model = {"type": "BPE", "ignore_merges": rule.ignore_merges}
    for spelling in (rule.pre_tokenizer, *rule.spellings):
        content = {"normalizer": rule.normalizer, "pre_tokenizer": spelling, "model": model}
        found = pretokenizers.find(content, no_encode)
        assert (found.name, found.nfc) == (pre, rule.normalizer is not None)


def test_a_normalizer_changes_the_texts_and_not_the_rule() -> None:
    rule = pretokenizers.named("qwen2")
    content = {"pre_tokenizer": rule.pre_tokenizer, "model": {"type": "BPE"}}
    assert pretokenizers.find(content, no_encode) == pretokenizers.Found("qwen2", False)
    rule = pretokenizers.named("dbrx")
    content = {"normalizer": {"type": "NFC"}, "pre_tokenizer": rule.pre_tokenizer, "model": {"type": "BPE"}}
    assert pretokenizers.find(content, no_encode) == pretokenizers.Found("dbrx", True)


def test_what_says_the_same_is_the_same() -> None:
    terse: dict[str, Any] = {
        "normalizer": {"type": "Sequence", "normalizers": []},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}],
        },
        "model": {"type": "BPE"},
    }
    assert pretokenizers.find(terse, no_encode).name == "gpt-2"


def test_a_published_vocabulary_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = vocabularies.byte_level_bpe(tmp_path, "smollm")
    content = read(directory)
    # The same in words of its own, which the table does not know.
    digits = {"type": "Split", "pattern": {"Regex": r"\p{N}"}, "behavior": "Isolated", "invert": False}
    content["pre_tokenizer"]["pretokenizers"][0] = digits
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
    tokenizer.save(str(directory / "tokenizer.json"))
    found = fingerprint(lambda text: list(tokenizer.encode(text).ids))
    with pytest.raises(ExportError, match=rf"hash {found} is of no published vocabulary(.|\n)*known are gpt-2"):
        Vocabulary.from_directory(directory, {"vocab_size": 1200})
    monkeypatch.setitem(NAMES, found, "starcoder")
    assert Vocabulary.from_directory(directory, {"vocab_size": 1200}).pre == "starcoder"


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
    assert pretokenizers.find(gpt2, no_encode).name == "gpt-2"
    said = r"no llama.cpp pre-tokenizer(.|\n)*normalizer .*pre_tokenizer .*hash [0-9a-f]{64} (.|\n)*known are gpt-2"
    with pytest.raises(ExportError, match=said):
        pretokenizers.find({**gpt2, **change}, lambda text: [1, 2, 3])


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ModelError, match="pre-tokenizer falcon"):
        pretokenizers.named("falcon")


@pytest.mark.slow
@pytest.mark.skipif(SMOLLM2 is None, reason="CHRYSALIS_SMOLLM2_GGUF names no file; scripts/test --slow fetches it")
def test_the_hash_of_smollm2_is_the_published_one(tmp_path: Path) -> None:
    from chrysalis_mlx.gguf.reader import GGUFModel
    from chrysalis_mlx.gguf.vocabulary import bpe

    bpe.write(GGUFModel.open(Path(str(SMOLLM2))).vocabulary, tmp_path)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert NAMES[fingerprint(lambda text: list(tokenizer.encode(text).ids))] == "smollm"
