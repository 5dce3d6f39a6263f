"""Tokenizer directories -> GGUF vocabularies, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chrysalis_mlx.errors import ExportError, ModelError
from chrysalis_mlx.gguf.vocabulary import bpe
from chrysalis_mlx.gguf.vocabulary.hard_strings import HARD_STRINGS
from chrysalis_mlx.gguf.vocabulary.special_tokens import TokenType
from chrysalis_mlx.gguf.vocabulary.vocabulary import Vocabulary
from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny, vocabularies
from tests.gguf.parity import export, read_config

CONFIG = {"vocab_size": 512}

Opened = tuple[Vocabulary, LlamaServer, Tokenizer]


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; a key of the value ... is removed."""
    value = json.loads(path.read_text(encoding="utf-8"))
    value.update(changes)
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not ...}), encoding="utf-8")


def test_a_byte_level_vocabulary(tmp_path: Path) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    vocabulary = Vocabulary.from_directory(directory, {"vocab_size": 515})
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    assert vocabulary.tokens[:512] == [tokenizer.id_to_token(token) for token in range(512)]
    assert vocabulary.tokens[512:] == ["[PAD512]", "[PAD513]", "[PAD514]"]
    assert vocabulary.types[:3] == [TokenType.CONTROL] * 3
    assert set(vocabulary.types[3:512]) == {TokenType.NORMAL}
    assert vocabulary.types[512:] == [TokenType.UNUSED] * 3
    assert vocabulary.ids == {"eos": 2, "pad": 0}
    assert (vocabulary.add_bos, vocabulary.add_eos) == (False, False)
    assert vocabulary.pre == "smollm"
    assert vocabulary.chat_template == tiny.CHATML
    assert len(vocabulary.merges) == 512 - 3 - 256


@pytest.mark.parametrize("declared", [True, False, None])
def test_bos_is_added_where_the_tokenizer_adds_it(tmp_path: Path, declared: bool | None) -> None:
    """Whatever tokenizer_config.json declares: transformers does not look there beside a tokenizer.json."""
    directory = tiny.tiny_llama(tmp_path / "model", pre="llama-bpe")
    edit(
        directory / "tokenizer_config.json",
        bos_token=tiny.IM_START,
        add_bos_token=... if declared is None else declared,
    )
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{tiny.IM_START} $A", special_tokens=[(tiny.IM_START, 1)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    vocabulary = Vocabulary.from_directory(directory, CONFIG)
    assert (vocabulary.add_bos, vocabulary.add_eos, vocabulary.ids["bos"]) == (True, False, 1)
    reference = transformers.AutoTokenizer.from_pretrained(directory)
    with LlamaServer(export(directory, tmp_path / "model.gguf").path, context=64) as server:
        for text in ("Hello", "", "a\n"):
            assert server.tokenize(text, parse_special=True) == reference(text).input_ids
    bpe.write(vocabulary, _new(tmp_path / "again"))
    again = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "again")
    assert again("Hello").input_ids == reference("Hello").input_ids == [1, *reference("Hello").input_ids[1:]]
    assert again("a", "b").input_ids == [1, *again("a").input_ids[1:], 1, *again("b").input_ids[1:]]


def test_a_token_that_no_gguf_can_add_is_an_error(tmp_path: Path) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"$A {tiny.END_OF_TEXT}", special_tokens=[(tiny.END_OF_TEXT, 0)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    with pytest.raises(ExportError, match=r"adds the tokens \[0\], a GGUF can only add the eos token 2"):
        Vocabulary.from_directory(directory, CONFIG)


def test_user_defined_tokens_are_cut_out_of_plain_text(tmp_path: Path) -> None:
    directory = tiny.tiny_llama(tmp_path / "model", vocab_size=514)
    tiny.byte_level_bpe(directory)
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_tokens([tokenizers.AddedToken("<think>", special=False, normalized=False)])
    tokenizer.save(str(directory / "tokenizer.json"))
    text = "so<think> it is </think>"
    assert 512 in tokenizer.encode(text).ids
    with LlamaServer(export(directory, tmp_path / "model.gguf").path, context=64) as server:
        assert server.tokenize(text) == tokenizer.encode(text).ids


def test_sentencepiece_ids_are_equal_in_llamacpp(model_directory: Callable[[str], Path], tmp_path: Path) -> None:
    directory = model_directory("mistral")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    with LlamaServer(export(directory, tmp_path / "model.gguf").path, context=64) as server:
        for text in HARD_STRINGS:
            assert server.tokenize(text) == [1, *reference.encode(text)], text
        assert server.log() == ""


@pytest.fixture(scope="module", params=["qwen2", "sentencepiece"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """A vocabulary in llama.cpp and in its own library."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "qwen2":
        vocabularies.byte_level_bpe(directory, "qwen2")
    else:
        source = vocabularies.sentencepiece(tmp_path_factory.mktemp("model"))
        vocabularies.as_tokenizer_json(source, directory, normalizer=vocabularies.PREPEND, pre_tokenizer=None)
    vocabulary = Vocabulary.from_directory(directory, {"vocab_size": 1200})
    with LlamaServer(vocabularies.write_gguf(directory / "v.gguf", vocabulary), context=64, threads=1) as server:
        yield vocabulary, server, Tokenizer.open(directory)


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(
    st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"], exclude_characters="\0"), max_size=6),
            st.sampled_from(sorted(set("".join(HARD_STRINGS)))),
            st.sampled_from([" ", "  ", "\n", "\r\n", "\t", "<s>", "</s>", "<unk>", tiny.IM_START, tiny.IM_END]),
        ),
        max_size=12,
    ).map("".join)
)
def test_token_ids_of_any_text_are_equal(opened: Opened, text: str) -> None:
    vocabulary, server, tokenizer = opened
    assume(vocabulary.agreement.agrees(text))
    assert server.tokenize(text, parse_special=True) == tokenizer.encode(text)


def test_a_sentencepiece_vocabulary(tmp_path: Path) -> None:
    directory = tiny.sentencepiece(tmp_path)
    (directory / "added_tokens.json").write_text('{"<|im_start|>": 512, "<|im_end|>": 513}')
    vocabulary = Vocabulary.from_directory(directory, {"vocab_size": 515})
    assert vocabulary.types[:4] == [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, TokenType.BYTE]
    assert vocabulary.tokens[3:5] == ["<0x00>", "<0x01>"]
    assert vocabulary.tokens[512:] == ["<|im_start|>", "<|im_end|>", "[PAD514]"]
    assert vocabulary.types[511:] == [TokenType.NORMAL, TokenType.CONTROL, TokenType.CONTROL, TokenType.UNUSED]
    assert vocabulary.scores[512:] == [-1000.0] * 3
    assert vocabulary.ids == {"bos": 1, "eos": 2, "unk": 0, "eot": 513}
    assert (vocabulary.add_bos, vocabulary.add_eos, vocabulary.add_space_prefix) == (True, False, False)
    with pytest.raises(ModelError, match="of the kind llama"):
        bpe.write(vocabulary, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "unigram", "vocab_size": 350}, "not a BPE"),
        ({"normalization_rule_name": "nmt_nfkc"}, "rewrites characters"),
        ({"remove_extra_whitespaces": True}, "removes extra spaces"),
    ],
)
def test_sentencepiece_models_that_llamacpp_would_split_otherwise(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    trained = {
        "vocab_size": 512,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(tiny.TEXT.splitlines()),
        model_prefix=str(tmp_path / "tokenizer"),
        **{**trained, **options},
    )
    with pytest.raises(ExportError, match=message):
        Vocabulary.from_directory(tmp_path, CONFIG)


def test_a_rebuilt_tokenizer_is_the_same_tokenizer(tmp_path: Path) -> None:
    for pre in ("smollm", "qwen2"):
        directory = tiny.byte_level_bpe(tmp_path / pre, pre)
        vocabulary = Vocabulary.from_directory(directory, {"vocab_size": 520})
        bpe.write(vocabulary, _new(tmp_path / f"{pre}-again"))
        first, second = (
            transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / n) for n in (pre, f"{pre}-again")
        )
        for text in HARD_STRINGS:
            assert first(text).input_ids == second(text).input_ids, text
            assert first.decode(first(text).input_ids) == second.decode(second(text).input_ids)
        assert first.get_vocab() == second.get_vocab()
        messages = [{"role": "user", "content": "hi"}]
        assert first.apply_chat_template(messages, tokenize=False) == second.apply_chat_template(
            messages, tokenize=False
        )
        assert second.eos_token_id == 2
        assert Vocabulary.from_directory(tmp_path / f"{pre}-again", {"vocab_size": 520}) == vocabulary


def test_chat_templates_are_found_where_they_are(tmp_path: Path) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    edit(directory / "tokenizer_config.json", chat_template=named)
    assert Vocabulary.from_directory(directory, CONFIG).chat_template == "d"
    (directory / "chat_template.jinja").write_text("file\n")
    assert Vocabulary.from_directory(directory, CONFIG).chat_template == "file\n"
    (directory / "chat_template.jinja").unlink()
    edit(directory / "tokenizer_config.json", chat_template=...)
    assert Vocabulary.from_directory(directory, CONFIG).chat_template is None


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_chat_template_with_an_error_is_named(tmp_path: Path, place: str) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    broken = "{% for message in messages %}{{ message.content }}"
    if place == "chat_template.jinja":
        (directory / place).write_text(broken)
    else:
        edit(directory / place, chat_template=broken)
    with pytest.raises(ModelError, match=rf"chat template is not valid.*endfor(.|\n)*{place}"):
        Vocabulary.from_directory(directory, CONFIG)


def test_a_template_that_refuses_a_simple_conversation_is_none_with_an_error(tmp_path: Path) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    template = "{{ raise_exception('a system prompt is needed') }}"
    edit(directory / "tokenizer_config.json", chat_template=template)
    assert Vocabulary.from_directory(directory, CONFIG).chat_template == template


def test_tokenizers_that_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"a missing tokenizer\.model(.|\n)*copy tokenizer\.model or tokenizer\.json"):
        Vocabulary.from_directory(tmp_path, CONFIG)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GemmaTokenizer"}')
    with pytest.raises(ExportError, match=r"a missing tokenizer\.model.*for the GemmaTokenizer"):
        Vocabulary.from_directory(tmp_path, CONFIG)
    for kind in ("WordPiece", "Unigram", "WordLevel", "BPE"):
        (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": kind, "vocab": {}}}))
        with pytest.raises(ExportError, match=f"no tokenizer of the kind {kind}"):
            Vocabulary.from_directory(tmp_path, CONFIG)
    directory = tiny.byte_level_bpe(tmp_path)
    with pytest.raises(ExportError, match="ids up to 511, the model 500 embeddings"):
        Vocabulary.from_directory(directory, {"vocab_size": 500})
    tokenizer = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    for key, value in (("byte_fallback", True), ("end_of_word_suffix", "</w>")):
        edit(directory / "tokenizer.json", model={**tokenizer["model"], key: value})
        with pytest.raises(ExportError, match=f"has no {key}"):
            Vocabulary.from_directory(directory, CONFIG)
    whole = [{**token, "single_word": token["id"] == 1} for token in tokenizer["added_tokens"]]
    edit(directory / "tokenizer.json", model=tokenizer["model"], added_tokens=whole)
    with pytest.raises(ExportError, match=r"'<\|im_start\|>' has single_word"):
        Vocabulary.from_directory(directory, CONFIG)
    (directory / "tokenizer.json").write_text("{")
    with pytest.raises(ExportError, match="cannot be read as JSON"):
        Vocabulary.from_directory(directory, CONFIG)


def test_a_damaged_sentencepiece_model_is_an_error(tmp_path: Path) -> None:
    directory = tiny.sentencepiece(tmp_path)
    whole = (directory / "tokenizer.model").read_bytes()
    (directory / "tokenizer.model").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ExportError, match="not a"):
        Vocabulary.from_directory(directory, CONFIG)


def test_gguf_vocabularies_that_cannot_be_read() -> None:
    with pytest.raises(ModelError, match="no vocabulary"):
        Vocabulary.from_gguf({})
    fields = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.token_type": [1]}
    with pytest.raises(ModelError, match="2 tokens and 1 token types"):
        Vocabulary.from_gguf(fields)


def test_the_config_of_the_tiny_models_is_complete(model_directory: Callable[[str], Path]) -> None:
    assert read_config(model_directory("llama"))["eos_token_id"] == 2


def _new(directory: Path) -> Path:
    directory.mkdir()
    return directory
