"""A model that answers: in llama.cpp and in both backends, alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from chrysalis_mlx import backends
from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.inference.chat_models.engine import EngineChatModel
from chrysalis_mlx.inference.chat_models.gguf import GGUFChatModel
from chrysalis_mlx.inference.chat_models.protocol import ChatModel
from chrysalis_mlx.inference.speakers import find_speakers
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.progress import silent
from tests import tiny
from tests.gguf.parity import export
from tests.inference.runs import END

MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "What will the larva become?"}]
GREEDY = {"temperature": 0.0}
BACKENDS = ("llamacpp", "mlx", "torch")


@pytest.fixture(scope="module")
def chat_models(larva: Path) -> Iterator[dict[str, ChatModel]]:
    """The tuned model of one run."""
    found = {name: find_speakers(larva, name, None, 96).first.open() for name in BACKENDS[1:]}
    found["llamacpp"] = find_speakers(larva, "llamacpp", "F32", 96).first.open()
    yield found
    for chat_model in found.values():
        chat_model.close()


def text(chat_model: ChatModel, prompt: list[int], **options: object) -> str:
    asked = {"max_tokens": 16, "seed": 0, "sampling": GREEDY, **options}
    return "".join(piece.text for piece in chat_model.answer(prompt, **asked))  # type: ignore[arg-type]


def test_llama_cpp_and_both_backends_say_the_same(chat_models: dict[str, ChatModel]) -> None:
    prompts = [chat_models[name].prompt(MESSAGES) for name in BACKENDS]
    assert prompts[0] == prompts[1] == prompts[2]
    texts = [text(chat_models[name], prompts[0]) for name in BACKENDS]
    assert texts[0] == texts[1] == texts[2]
    assert len(texts[0]) > 10


@pytest.mark.parametrize("name", BACKENDS)
def test_the_base_says_something_else(name: str, larva: Path, chat_models: dict[str, ChatModel]) -> None:
    quantize = "F32" if name == "llamacpp" else None
    speakers = find_speakers(larva, name, quantize, 96)
    assert speakers.other is not None
    base = speakers.other(silent)
    chat_model = base.open()
    prompt = chat_model.prompt(MESSAGES)
    said = text(chat_model, prompt)
    chat_model.close()
    engine = EngineChatModel(
        backends.load("torch")(larva.parent / "model"), ModelDirectory.open(larva.parent / "model"), 99
    )
    assert (base.name, speakers.first.name) == ("base", "tuned")
    assert said == text(engine, prompt) != text(chat_models[name], prompt)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_last_piece_says_why_it_is_the_last(name: str, chat_models: dict[str, ChatModel]) -> None:
    chat_model = chat_models[name]
    prompt = chat_model.prompt(MESSAGES)
    pieces = list(chat_model.answer(prompt, max_tokens=5, seed=0, sampling=GREEDY))
    assert [piece.tokens for piece in pieces][-1] == 5
    assert [piece.finish for piece in pieces] == [*[None] * (len(pieces) - 1), "limit"]
    last = list(chat_model.answer(prompt, max_tokens=None, seed=0, sampling=GREEDY))[-1]
    assert last.finish == "context"
    assert abs(last.tokens + len(prompt) - chat_model.context) <= 1


@pytest.mark.parametrize("name", BACKENDS)
def test_the_seed_decides(name: str, chat_models: dict[str, ChatModel]) -> None:
    prompt = chat_models[name].prompt(MESSAGES)
    drawn = [text(chat_models[name], prompt, seed=seed, sampling={"temperature": 1.0}) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("name", BACKENDS)
def test_closed_in_the_middle_it_answers_the_next_question(name: str, chat_models: dict[str, ChatModel]) -> None:
    chat_model = chat_models[name]
    prompt = chat_model.prompt(MESSAGES)
    whole = text(chat_model, prompt)
    with closing(chat_model.answer(prompt, max_tokens=None, seed=0, sampling=GREEDY)) as pieces:
        begin = "".join(next(pieces).text for _ in range(8))
    assert whole.startswith(begin)
    assert text(chat_model, prompt) == whole


class Scripted:
    """An engine that says what it is told to."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def continued(self, prompts: np.ndarray, choose: Callable[[np.ndarray], np.ndarray]) -> Iterator[np.ndarray]:
        for id in self.ids:
            yield np.array([id], np.int32)


def test_an_engine_ends_at_an_end_token_and_does_not_say_it(tiny_model: Path) -> None:
    model = ModelDirectory.open(tiny_model)
    ids = model.tokenizer.encode("wings 🦋", special=False)
    chat_model = EngineChatModel(Scripted([*ids, END, *ids]), model, 100)  # type: ignore[arg-type]
    pieces = list(chat_model.answer([5], max_tokens=None, seed=0, sampling={}))
    assert "".join(piece.text for piece in pieces) == "wings 🦋"
    assert (pieces[-1].finish, pieces[-1].tokens) == ("eos", len(ids) + 1)
    # The limit falls into the butterfly: half of it is not shown.
    cut = list(chat_model.answer([5], max_tokens=len(ids) - 1, seed=0, sampling={}))
    assert "".join(piece.text for piece in cut) == "wings "


def test_a_template_makes_the_whole_prompt_as_in_training(tmp_path: Path) -> None:
    """The tokenizer puts <s> before a text, and not before a conversation."""
    model = ModelDirectory.open(tiny.tiny_llama(tmp_path / "model", pre="spm"))
    assert model.tokenizer.chat is not None
    shown = model.tokenizer.chat.render(MESSAGES, add_generation_prompt=True)
    prompt = EngineChatModel(Scripted([]), model, 100).prompt(MESSAGES)  # type: ignore[arg-type]
    assert prompt == model.tokenizer.encode(shown, special=False)
    assert [1, *prompt] == model.tokenizer.encode(shown)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A model without a chat template, whose tokenizer is SentencePiece's."""
    model = tiny.tiny_llama(tmp_path / "plain", pre="spm")
    file = model / "tokenizer_config.json"
    file.write_text(file.read_text().replace('"chat_template"', '"no_template"'))
    return model


def test_without_a_template_the_text_goes_on(plain: Path, tmp_path: Path) -> None:
    engine = EngineChatModel(backends.load("torch")(plain, dtype="float32"), ModelDirectory.open(plain), 128)
    gguf = GGUFChatModel(export(plain, tmp_path / "plain.gguf").path, 128)
    messages = [{"role": "user", "content": "The larva"}, {"role": "assistant", "content": " eats"}]
    messages.append({"role": "user", "content": "and"})
    try:
        assert (engine.has_template, gguf.has_template) == (False, False)
        prompt = gguf.prompt(messages)
        assert prompt == engine.prompt(messages)
        assert ModelDirectory.open(plain).tokenizer.decode(prompt[1:]) == "The larva\n eats\nand"
        assert text(gguf, prompt) == text(engine, prompt)
    finally:
        gguf.close()


def test_a_template_that_refuses_says_why(tmp_path: Path) -> None:
    model = tiny.tiny_llama(tmp_path / "model")
    file = model / "tokenizer_config.json"
    refusing = "{% if 'larva' in messages[-1]['content'] %}{{ raise_exception('no larvae, please') }}{% endif %}"
    file.write_text(file.read_text().replace('"chat_template": "', f'"chat_template": "{refusing}'))
    chat_model = GGUFChatModel(export(model, tmp_path / "model.gguf").path, 128)
    try:
        with pytest.raises(ExportError, match="no larvae, please"):
            chat_model.prompt(MESSAGES)
    finally:
        chat_model.close()
