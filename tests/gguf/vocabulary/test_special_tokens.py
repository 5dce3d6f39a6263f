"""Added tokens, the white space beside them, and the tokens that end a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf.vocabulary.special_tokens import AddedToken, TokenType, added_type
from chrysalis_mlx.gguf.vocabulary.vocabulary import Vocabulary
from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny, vocabularies
from tests.gguf.vocabulary.test_vocabulary import edit

CONFIG = {"vocab_size": 512}


def test_added_tokens_are_typed_as_llamacpp_types_them() -> None:
    def kind(content: str, special: bool = False) -> TokenType:
        return added_type(AddedToken(9, content, special))

    assert kind("<think>") is TokenType.USER_DEFINED
    assert kind("<think>", special=True) is TokenType.CONTROL
    assert kind("<|fim_prefix|>") is TokenType.CONTROL
    assert kind("<｜User｜>") is TokenType.CONTROL
    assert kind("<pad>") is TokenType.CONTROL


def test_white_space_beside_a_special_token(tmp_path: Path) -> None:
    """Phi-4's tokens take it along, which llama.cpp cannot do; the prompts have none there."""
    directory = vocabularies.byte_level_bpe(tmp_path, "dbrx")
    content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    greedy = [{**token, "lstrip": True, "rstrip": True} for token in content["added_tokens"]]
    edit(directory / "tokenizer.json", added_tokens=greedy)
    edit(directory / "tokenizer_config.json", chat_template="<|im_start|>{{ messages[0].content }}<|im_end|>")
    vocabulary = Vocabulary.from_directory(directory, {"vocab_size": 1200})
    tokenizer = Tokenizer.open(directory)
    texts = [f"a{before}<|im_end|>{after}b" for before in ("", " ", "\n") for after in ("", " ", "\n")]
    with LlamaServer(vocabularies.write_gguf(tmp_path / "v.gguf", vocabulary), context=64, threads=1) as server:
        equal = [server.tokenize(text, parse_special=True) == tokenizer.encode(text) for text in texts]
    assert equal == [vocabulary.agreement.agrees(text) for text in texts] == [True, *[False] * 8]
    assert len(vocabulary.agreement.limits) == 1
    edit(directory / "tokenizer_config.json", chat_template="<|im_start|>user\n{{ messages[0].content }}")
    Vocabulary.from_directory(directory, {"vocab_size": 1200})
    edit(directory / "tokenizer_config.json", chat_template="<|im_start|>\n{{ messages[0].content }}")
    with pytest.raises(ExportError, match=r"every prompt.*<\|im_start\|> take the white space beside them along"):
        Vocabulary.from_directory(directory, {"vocab_size": 1200})


def test_the_end_token_comes_from_the_tokenizer_then_the_config(tmp_path: Path) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    edit(directory / "tokenizer_config.json", eos_token={"content": tiny.END_OF_TEXT})
    assert Vocabulary.from_directory(directory, {**CONFIG, "eos_token_id": 2}).ids["eos"] == 0
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        edit(directory / file, eos_token=...)
    assert Vocabulary.from_directory(directory, {**CONFIG, "eos_token_id": [1, 2]}).ids["eos"] == 1
    with pytest.raises(ExportError, match="no end token"):
        Vocabulary.from_directory(directory, CONFIG)
    edit(directory / "tokenizer_config.json", eos_token="<nowhere>")
    with pytest.raises(ExportError, match="eos token '<nowhere>' is not in the vocabulary"):
        Vocabulary.from_directory(directory, CONFIG)


END_CASES = [
    ([2, 0], {}, {"eot": 2}),
    ([2, 300, 0], {}, {"eot": 2, "eom": 300}),
    ([300], {}, {"eot": 2, "eom": 300}),
    ([300, 301], {}, {"eot": 300, "eom": 301}),
    ([], {"eos_token_id": [2, 1]}, {"eot": 2, "eom": 1}),
]


@pytest.mark.parametrize(("ends", "config", "named"), END_CASES)
def test_a_text_ends_at_each_of_the_end_tokens(tmp_path: Path, ends: Any, config: Any, named: dict[str, int]) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        edit(directory / file, eos_token=tiny.END_OF_TEXT)
    if ends != []:
        (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    vocabulary = Vocabulary.from_directory(directory, CONFIG | config)
    assert {role: token for role, token in vocabulary.ids.items() if role in ("eot", "eom")} == named
    assert vocabulary.ids["eos"] == 0
    for token in {0, *ends, *config.get("eos_token_id", ())}:
        file = vocabularies.write_gguf(tmp_path / "v.gguf", vocabulary, says=token)
        with LlamaServer(file, context=64, threads=1) as server:
            assert server.complete("Hello", max_tokens=4, temperature=0, seed=0).finish == "eos"
    with LlamaServer(vocabularies.write_gguf(tmp_path / "v.gguf", vocabulary, says=302), context=64) as server:
        assert server.complete("Hello", max_tokens=4, temperature=0, seed=0).finish == "limit"


def test_the_chat_template_and_the_config_name_end_tokens_too(tmp_path: Path) -> None:
    added = [tokenizers.AddedToken(text, special=True, normalized=False) for text in ("<|user|>", "<stop>", "<|user")]
    directory = vocabularies.byte_level_bpe(tmp_path, "smollm", added=added)
    ids = {token.content: 1200 - len(added) + index for index, token in enumerate(added)}
    template = "{% for message in messages %}{{ message.content }} <|user|>\n{% endfor %}"
    edit(directory / "tokenizer_config.json", chat_template=template)
    config = {"vocab_size": 1200, "eos_token_id": ids["<stop>"]}
    vocabulary = Vocabulary.from_directory(directory, config)
    assert vocabulary.ids == {"eos": 2, "pad": 0, "eot": ids["<stop>"], "eom": ids["<|user|>"]}
    for token in (2, *ids.values()):
        file = vocabularies.write_gguf(tmp_path / "v.gguf", vocabulary, says=token)
        with LlamaServer(file, context=64, threads=1) as server:
            finish = server.complete("Hello", max_tokens=4, temperature=0, seed=0).finish
            assert (finish == "eos") == (token != ids["<|user"]), token
    # An id of config.json that is no special token is left over from another tokenizer.
    vocabulary = Vocabulary.from_directory(directory, config | {"eos_token_id": 400})
    assert vocabulary.ids == {"eos": 2, "pad": 0, "eot": 2, "eom": ids["<|user|>"]}


def test_end_tokens_that_llamacpp_cannot_be_told_of(tmp_path: Path) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    (directory / "generation_config.json").write_text('{"eos_token_id": [2, 300, 301, 302]}')
    with pytest.raises(ExportError, match=r"ends with any of .*<\|im_end\|>.* told of 2 such(.|\n)*generation_config"):
        Vocabulary.from_directory(directory, CONFIG)
    (directory / "generation_config.json").write_text('{"eos_token_id": [2, 5000]}')
    with pytest.raises(ExportError, match="end token 5000 is not in the vocabulary"):
        Vocabulary.from_directory(directory, CONFIG)
