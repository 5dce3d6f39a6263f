"""A model that answers: in llama.cpp and in both backends, alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from chrysalis_mlx import backends
from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.inference.speakers import find_speakers
from chrysalis_mlx.inference.talkers.engine import EngineTalker
from chrysalis_mlx.inference.talkers.gguf import GGUFTalker
from chrysalis_mlx.inference.talkers.talker import Talker
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.progress import silent
from tests import tiny
from tests.gguf.parity import export
from tests.inference.runs import END

MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "What will the larva become?"}]
GREEDY = {"temperature": 0.0}
BACKENDS = ("llamacpp", "mlx", "torch")


@pytest.fixture(scope="module")
def talkers(larva: Path) -> Iterator[dict[str, Talker]]:
    """The tuned model of one run."""
    found = {name: find_speakers(larva, name, None, 96).first.open() for name in BACKENDS[1:]}
    found["llamacpp"] = find_speakers(larva, "llamacpp", "F32", 96).first.open()
    yield found
    for talker in found.values():
        talker.close()


def text(talker: Talker, prompt: list[int], **options: object) -> str:
    asked = {"max_tokens": 16, "seed": 0, "sampling": GREEDY, **options}
    return "".join(piece.text for piece in talker.answer(prompt, **asked))  # type: ignore[arg-type]


def test_llama_cpp_and_both_backends_say_the_same(talkers: dict[str, Talker]) -> None:
    prompts = [talkers[name].prompt(MESSAGES) for name in BACKENDS]
    assert prompts[0] == prompts[1] == prompts[2]
    texts = [text(talkers[name], prompts[0]) for name in BACKENDS]
    assert texts[0] == texts[1] == texts[2]
    assert len(texts[0]) > 10


@pytest.mark.parametrize("name", BACKENDS)
def test_the_base_says_something_else(name: str, larva: Path, talkers: dict[str, Talker]) -> None:
    quantize = "F32" if name == "llamacpp" else None
    speakers = find_speakers(larva, name, quantize, 96)
    assert speakers.other is not None
    base = speakers.other(silent)
    talker = base.open()
    prompt = talker.prompt(MESSAGES)
    said = text(talker, prompt)
    talker.close()
    engine = EngineTalker(
        backends.load("torch")(larva.parent / "model"), ModelDirectory.open(larva.parent / "model"), 99
    )
    assert (base.name, speakers.first.name) == ("base", "tuned")
    assert said == text(engine, prompt) != text(talkers[name], prompt)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_last_piece_says_why_it_is_the_last(name: str, talkers: dict[str, Talker]) -> None:
    talker = talkers[name]
    prompt = talker.prompt(MESSAGES)
    pieces = list(talker.answer(prompt, max_tokens=5, seed=0, sampling=GREEDY))
    assert [piece.tokens for piece in pieces][-1] == 5
    assert [piece.finish for piece in pieces] == [*[None] * (len(pieces) - 1), "limit"]
    last = list(talker.answer(prompt, max_tokens=None, seed=0, sampling=GREEDY))[-1]
    assert last.finish == "context"
    assert abs(last.tokens + len(prompt) - talker.context) <= 1


@pytest.mark.parametrize("name", BACKENDS)
def test_the_seed_decides(name: str, talkers: dict[str, Talker]) -> None:
    prompt = talkers[name].prompt(MESSAGES)
    drawn = [text(talkers[name], prompt, seed=seed, sampling={"temperature": 1.0}) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("name", BACKENDS)
def test_closed_in_the_middle_it_answers_the_next_question(name: str, talkers: dict[str, Talker]) -> None:
    talker = talkers[name]
    prompt = talker.prompt(MESSAGES)
    whole = text(talker, prompt)
    with closing(talker.answer(prompt, max_tokens=None, seed=0, sampling=GREEDY)) as pieces:
        begin = "".join(next(pieces).text for _ in range(8))
    assert whole.startswith(begin)
    assert text(talker, prompt) == whole


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
    talker = EngineTalker(Scripted([*ids, END, *ids]), model, 100)  # type: ignore[arg-type]
    pieces = list(talker.answer([5], max_tokens=None, seed=0, sampling={}))
    assert "".join(piece.text for piece in pieces) == "wings 🦋"
    assert (pieces[-1].finish, pieces[-1].tokens) == ("eos", len(ids) + 1)
    # The limit falls into the butterfly: half of it is not shown.
    cut = list(talker.answer([5], max_tokens=len(ids) - 1, seed=0, sampling={}))
    assert "".join(piece.text for piece in cut) == "wings "


def test_a_template_makes_the_whole_prompt_as_in_training(tmp_path: Path) -> None:
    """The tokenizer puts <s> before a text, and not before a conversation."""
    model = ModelDirectory.open(tiny.tiny_llama(tmp_path / "model", pre="spm"))
    assert model.tokenizer.chat is not None
    shown = model.tokenizer.chat.render(MESSAGES, add_generation_prompt=True)
    prompt = EngineTalker(Scripted([]), model, 100).prompt(MESSAGES)  # type: ignore[arg-type]
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
    engine = EngineTalker(backends.load("torch")(plain, dtype="float32"), ModelDirectory.open(plain), 128)
    gguf = GGUFTalker(export(plain, tmp_path / "plain.gguf").path, 128)
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
    talker = GGUFTalker(export(model, tmp_path / "model.gguf").path, 128)
    try:
        with pytest.raises(ExportError, match="no larvae, please"):
            talker.prompt(MESSAGES)
    finally:
        talker.close()
