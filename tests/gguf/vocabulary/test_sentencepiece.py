"""SentencePiece vocabularies, with and without a tokenizer.model: token ids in llama.cpp, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.gguf.vocabulary import merge_order
from chrysalis_mlx.gguf.vocabulary.hard_strings import HARD_STRINGS, special_token_strings
from chrysalis_mlx.gguf.vocabulary.special_tokens import TokenType
from chrysalis_mlx.gguf.vocabulary.vocabulary import Vocabulary
from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import vocabularies
from tests.gguf.vocabulary.test_vocabulary import edit
from tests.vocabularies import AT_SPACES, PREPEND, SPACES, metaspace

SIZE = 1100
CONFIG = {"vocab_size": SIZE}
GEMMA_RUNS = [{"content": character * count, "special": False} for character in "\n▁" for count in range(2, 8)]
PHI3_WORDS = ("assistant", "system", "end", "user")
PHI3: list[dict[str, Any]] = [
    {"content": "</s>", "special": False, "rstrip": True},
    {"content": "<|endoftext|>"},
    *({"content": f"<|{word}|>", "rstrip": True} for word in PHI3_WORDS),
]
DOUBLED = {
    "type": "Sequence",
    "normalizers": [SPACES, {"type": "Replace", "pattern": {"Regex": r"\A▁"}, "content": "▁▁"}],
}
TURNS = (
    "{{ bos_token }}{% for message in messages %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ eos_token }}{% endif %}"
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vocabularies.sentencepiece(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vocabularies.sentencepiece(tmp_path_factory.mktemp("gemma"), gemma=True)


def runs_last(pair: tuple[str, str]) -> tuple[bool, int, int]:
    """transformers 4, for a model in which the scores of all runs of spaces are equal and low, as Mistral's."""
    left, right = pair
    run = set(left + right) == {"▁"}
    return run, -len(left) if run else 0, -len(right) if run else 0


def runs_first(pair: tuple[str, str]) -> tuple[bool, int, int]:
    """transformers 4, for a model in which the scores of all runs are equal and high, as Gemma's."""
    left, right = pair
    run = set(left + right) in ({"▁"}, {"\n"})
    return not run, -len(left) if run else 0, -len(right) if run else 0


def of_llama(**options: Any) -> Build:
    return lambda llama, gemma, new: vocabularies.as_tokenizer_json(llama, new, **options)


def of_gemma(*, both: bool = False, **options: Any) -> Build:
    def build(llama: Path, gemma: Path, new: Path) -> Path:
        vocabularies.as_tokenizer_json(gemma, new, normalizer=SPACES, pre_tokenizer=AT_SPACES, **options)
        if both:
            shutil.copyfile(gemma / "tokenizer.model", new / "tokenizer.model")
        return new

    return build


Build = Callable[[Path, Path, Path], Path]

# name: (directory from (llama's, gemma's, new one), whether llama.cpp reads some of the hard strings otherwise)
FORMS: dict[str, tuple[Build, bool]] = {
    "llama model": (lambda llama, gemma, new: llama, True),
    "gemma model": (lambda llama, gemma, new: gemma, True),
    "prepend": (of_llama(normalizer=PREPEND, pre_tokenizer=None), False),
    "metaspace first": (of_llama(normalizer=None, pre_tokenizer=metaspace("first")), True),
    "metaspace always": (of_llama(normalizer=None, pre_tokenizer=metaspace("always")), True),
    "metaspace never": (of_llama(normalizer=None, pre_tokenizer=metaspace("never")), False),
    "metaspace doubled": (of_llama(normalizer=DOUBLED, pre_tokenizer=metaspace("always")), False),
    "equal scores": (of_llama(normalizer=PREPEND, pre_tokenizer=None, sort=runs_last), False),
    "phi3": (of_llama(normalizer=PREPEND, pre_tokenizer=None, added=PHI3), False),
    "gemma": (of_gemma(added=GEMMA_RUNS[:6]), False),
    "gemma with runs": (of_gemma(added=GEMMA_RUNS), True),
    "gemma with equal scores": (of_gemma(added=GEMMA_RUNS, sort=runs_first), True),
    "gemma with both files": (of_gemma(added=GEMMA_RUNS, both=True), True),
}


@pytest.mark.parametrize("form", FORMS)
def test_token_ids_of_hard_strings_are_equal(llama: Path, gemma: Path, tmp_path: Path, form: str) -> None:
    build, limited = FORMS[form]
    directory = build(llama, gemma, tmp_path / "tokenizer")
    vocabulary = Vocabulary.from_directory(directory, CONFIG)
    reference = Tokenizer.open(directory)
    runs = [f"{before}{' ' * count}{after}" for count in range(1, 40) for before, after in (("", ""), ("a", "b"))]
    texts = [*HARD_STRINGS, *special_token_strings(vocabulary.special_tokens), *runs]
    with LlamaServer(vocabularies.write_gguf(tmp_path / "v.gguf", vocabulary), context=64, threads=1) as server:
        ids = {text: server.tokenize(text, parse_special=True) for text in texts}
        assert {line.split(":", 1)[-1].strip()[:11] for line in server.log().splitlines()} <= {"Added a BOS"}
    equal = {text: ids[text] == reference.encode(text) for text in texts}
    assert equal == {text: vocabulary.agreement.agrees(text) for text in texts}
    assert bool(vocabulary.agreement.limits) == limited == (not all(equal.values()))


def test_a_vocabulary_without_a_model_file(llama: Path, tmp_path: Path) -> None:
    directory = vocabularies.as_tokenizer_json(
        llama, tmp_path, normalizer=PREPEND, pre_tokenizer=None, added=[{"content": "<think>", "special": False}]
    )
    vocabulary = Vocabulary.from_directory(directory, {"vocab_size": 1003})
    content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    by_id = {token: text for text, token in content["vocab"].items()}
    assert vocabulary.tokens == [*(by_id[token] for token in range(1000)), "<think>", "[PAD1001]", "[PAD1002]"]
    assert vocabulary.types[:3] == [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    assert vocabulary.types[3:259] == [TokenType.BYTE] * 256
    assert set(vocabulary.types[259:1000]) == {TokenType.NORMAL}
    assert vocabulary.types[1000:] == [TokenType.USER_DEFINED, TokenType.UNUSED, TokenType.UNUSED]
    made = list(dict.fromkeys("".join(pair) for pair in content["merges"]))
    assert [vocabulary.scores[content["vocab"][text]] for text in made] == [-1.0 - rank for rank in range(len(made))]
    assert (vocabulary.add_bos, vocabulary.add_eos, vocabulary.add_space_prefix) == (True, False, True)
    assert vocabulary.ids == {"bos": 1, "eos": 2, "unk": 0}
    assert (vocabulary.model, vocabulary.pre, vocabulary.merges) == ("llama", "default", [])


def test_the_tokenizer_json_is_right_where_the_model_file_says_otherwise(llama: Path, tmp_path: Path) -> None:
    """As transformers 5 makes it of Mistral's: merges by id, not by score."""
    directory = vocabularies.as_tokenizer_json(
        llama, tmp_path / "both", normalizer=PREPEND, pre_tokenizer=None, sort=runs_last
    )
    shutil.copyfile(llama / "tokenizer.model", directory / "tokenizer.model")
    vocabulary = Vocabulary.from_directory(directory, CONFIG)
    reference = Tokenizer.open(directory)
    texts = [f"a{' ' * count}b" for count in range(1, 20)]
    with LlamaServer(vocabularies.write_gguf(tmp_path / "v.gguf", vocabulary), context=64, threads=1) as server:
        assert [server.tokenize(text) for text in texts] == [reference.encode(text) for text in texts]
    (directory / "tokenizer.json").unlink()
    without = Vocabulary.from_directory(directory, CONFIG)
    assert without.tokens == vocabulary.tokens
    assert without.scores != vocabulary.scores
    # Where both say the same the scores are those of tokenizer.model, as in everybody's files.
    shutil.copyfile(llama / "tokenizer.model", tmp_path / "tokenizer.model")
    vocabularies.as_tokenizer_json(llama, tmp_path, normalizer=PREPEND, pre_tokenizer=None)
    assert Vocabulary.from_directory(tmp_path, CONFIG).scores == without.scores


def test_the_prompts_decide_where_only_the_start_of_a_text_gets_a_space(llama: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(llama, tmp_path / "tokenizer"))
    assert Vocabulary.from_directory(directory, CONFIG).add_space_prefix is True
    edit(directory / "tokenizer_config.json", chat_template=TURNS)
    vocabulary = Vocabulary.from_directory(directory, CONFIG)
    assert vocabulary.add_space_prefix is False
    prompt = "<s>[INST] Hello [/INST]</s>[INST] Again [/INST]"
    reference = Tokenizer.open(directory)
    with LlamaServer(vocabularies.write_gguf(tmp_path / "v.gguf", vocabulary), context=64, threads=1) as server:
        ids = server.tokenize(prompt, add_special=False, parse_special=True)
        assert ids == reference.encode(prompt, special=False)
        assert server.tokenize("Hello") != reference.encode("Hello")
    assert (vocabulary.agreement.agrees(prompt), vocabulary.agreement.agrees("Hello")) == (True, False)
    edit(directory / "tokenizer_config.json", chat_template="Q: {{ messages[0].content }}{{ eos_token }}A:")
    with pytest.raises(ExportError, match=r"every prompt(.|\n)*a space at the start of a text only, llama.cpp before"):
        Vocabulary.from_directory(directory, CONFIG)


def test_the_name_tells_phi3_from_others(llama: Path, tmp_path: Path) -> None:
    directory = vocabularies.as_tokenizer_json(llama, tmp_path, normalizer=PREPEND, pre_tokenizer=None, added=PHI3)
    phi3 = Vocabulary.from_directory(directory, CONFIG)
    assert [phi3.general_name(name) for name in ("Phi-3-mini", "phi3", "mine")] == [
        "Phi-3-mini",
        "phi3",
        "mine (Phi-3)",
    ]
    other = Vocabulary.from_directory(llama, CONFIG)
    assert [other.general_name(name) for name in ("My-Phi-3", "phi3", "x")] == ["My-Phi 3", "Phi 3", "x"]
    template = "{{ '<|user|>\n' + messages[0].content + '<|end|>\n<|assistant|>\n' }}"
    edit(directory / "tokenizer_config.json", chat_template=template)
    assert Vocabulary.from_directory(directory, CONFIG).is_phi3
    content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    for token in content["added_tokens"]:
        token["rstrip"] = token["content"] == "<|user|>"
    (directory / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ExportError, match=r"every prompt(.|\n)*<\|user\|> take the white space beside them along"):
        Vocabulary.from_directory(directory, CONFIG)


def scores(tokens: list[str], merges: list[str]) -> dict[str, float]:
    return merge_order.scores(tokens, [tuple(pair.split(" ")) for pair in merges], Path("tokenizer.json"))  # type: ignore[misc]


def test_an_order_of_merges_that_scores_can_say() -> None:
    assert scores(["a", "b", "ab", "abb"], ["a b", "ab b"]) == {"ab": -1.0, "abb": -2.0}
    runs = ["▁▁", "▁▁▁", "▁▁▁▁"]
    mixed = ["▁▁ ▁▁", "▁▁ ▁", "▁ ▁▁▁", "▁▁▁ ▁", "▁ ▁▁", "▁ ▁"]
    assert scores(["▁", "x", *runs, "xy"], [*mixed, "x y"]) == {**dict.fromkeys(runs, -1.0), "xy": -4.0}


@pytest.mark.parametrize(
    ("tokens", "merges", "said"),
    [
        (["ab", "abb", "bb"], ["a b", "ab b", "b b", "a bb"], "the merges to 'abb' and to 'bb' are mixed"),
        (["ab", "abb", "bb"], ["a b", "b b", "ab b"], "1 pairs make a token and are not among the merges.*'a' . 'bb'"),
        (["ab", "xy"], ["a b"], "'x' . 'y'"),
        (["aa"], ["aaa a", "a a", "aa a", "a aa", "a aaa", "aa aa"], "the merges to 'aaaa' and to 'aa' are mixed"),
    ],
)
def test_an_order_of_merges_that_scores_cannot_say(tokens: list[str], merges: list[str], said: str) -> None:
    with pytest.raises(ExportError, match=rf"merges by a score of each token.*{said}"):
        scores(tokens, merges)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"normalizer": {"type": "NFKC"}}, "does not rewrite or split texts like this"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "does not rewrite or split texts like this"),
        ({"normalizer": None, "pre_tokenizer": metaspace("first", split=True)}, "cuts a text at spaces"),
        ({"model": {"ignore_merges": True}}, "has no ignore_merges"),
        (
            {"model": {"vocab": {"<unk>": 0, "<s>": 1, "</s>": 2}, "merges": []}},
            "no token for 256 bytes, such as <0x00>",
        ),
    ],
)
def test_tokenizers_that_llamacpp_would_apply_otherwise(
    llama: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    directory = vocabularies.as_tokenizer_json(llama, tmp_path, normalizer=PREPEND, pre_tokenizer=None)
    content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    model = content["model"] | change.get("model", {})
    edit(directory / "tokenizer.json", **{**change, "model": model})
    with pytest.raises(ExportError, match=said):
        Vocabulary.from_directory(directory, CONFIG)


def test_words_cut_at_spaces_are_no_matter_where_no_token_reaches_over_one(llama: Path, tmp_path: Path) -> None:
    source = vocabularies.sentencepiece(tmp_path / "words", allow_whitespace_only_pieces=False)
    directory = vocabularies.as_tokenizer_json(
        source, tmp_path / "json", normalizer=None, pre_tokenizer=metaspace("never", split=True)
    )
    vocabulary = Vocabulary.from_directory(directory, CONFIG)
    reference = Tokenizer.open(directory)
    with LlamaServer(vocabularies.write_gguf(tmp_path / "v.gguf", vocabulary), context=64, threads=1) as server:
        for text in HARD_STRINGS:
            assert server.tokenize(text) == reference.encode(text), text
