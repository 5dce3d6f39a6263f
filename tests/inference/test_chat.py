"""The course of a chat: who answers, what is kept, what is left out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from chrysalis_mlx.errors import ModelError, UsageError
from chrysalis_mlx.inference.chat import Chat, Choices
from chrysalis_mlx.inference.conversation import Message, Turn
from chrysalis_mlx.inference.files import Manner
from chrysalis_mlx.inference.speakers import Speaker, Speakers, find_speakers
from chrysalis_mlx.llamacpp.server import Piece
from chrysalis_mlx.progress import silent


class Parrot:
    """Says the words it is given; a token is a character of the messages."""

    def __init__(self, words: Sequence[str], context: int = 1000, has_template: bool = True) -> None:
        self.words, self.context, self.has_template = words, context, has_template
        self.asked: list[tuple[int, int | None, int, Mapping[str, float]]] = []
        self.closed = 0

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        return [0] * len("".join(message["content"] for message in messages))

    def answer(
        self, prompt: Sequence[int], *, max_tokens: int | None, seed: int, sampling: Mapping[str, float]
    ) -> Generator[Piece, None, None]:
        self.asked.append((len(prompt), max_tokens, seed, sampling))
        for number, word in enumerate(self.words, 1):
            yield Piece(word, number, "eos" if number == len(self.words) else None)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def begin(told: list[str]) -> Callable[..., Chat]:
    def begin(parrot: Parrot, choices: Choices | None = None, **manner: object) -> Chat:
        speaker = Speaker("tuned", "a parrot", lambda: parrot)
        speakers = Speakers(Manner(1000, **manner), speaker)  # type: ignore[arg-type]
        return Chat(speakers, choices or Choices(), told.append)

    return begin


def said(chat: Chat, question: str) -> str:
    return "".join(piece.text for piece in chat.ask(question))


def test_question_and_answer_are_kept(begin: Callable[..., Chat]) -> None:
    parrot = Parrot(["a", "b"])
    with begin(parrot, system="s") as chat:
        assert said(chat, "q") == "ab"
        assert chat.conversation.turns == [Turn("user", "q"), Turn("assistant", "ab", "tuned")]
        assert parrot.asked[0][0] == len("sq")
        assert said(chat, "r") == "ab"
        assert parrot.asked[1][0] == len("sqabr")
    assert parrot.closed == 1


def test_the_users_choices_go_before_the_makers_and_each_answer_has_its_seed(begin: Callable[..., Chat]) -> None:
    parrot = Parrot(["a"])
    choices = Choices(max_tokens=9, seed=5, sampling={"temperature": 0.0})
    with begin(parrot, choices, sampling={"temperature": 0.7, "top_k": 3}) as chat:
        said(chat, "q")
        said(chat, "q")
    assert [asked[1:] for asked in parrot.asked] == [(9, seed, {"temperature": 0.0, "top_k": 3}) for seed in (5, 6)]


def test_a_stopped_answer_is_kept_and_marked(begin: Callable[..., Chat]) -> None:
    with begin(Parrot(["a", "b", "c"])) as chat:
        with closing(chat.ask("q")) as pieces:
            next(pieces)
            next(pieces)
        assert chat.conversation.turns == [Turn("user", "q"), Turn("assistant", "ab", "tuned", stopped=True)]


def test_of_a_question_without_a_word_of_an_answer_nothing_is_kept(begin: Callable[..., Chat]) -> None:
    with begin(Parrot(["", "", "a"])) as chat:
        with closing(chat.ask("q")) as pieces:
            next(pieces)
        assert chat.conversation.turns == []
    with begin(Parrot([""])) as chat:  # it had nothing to say
        said(chat, "q")
        assert chat.conversation.turns == [Turn("user", "q"), Turn("assistant", "", "tuned")]


def test_a_full_context_leaves_out_the_oldest_and_says_so(begin: Callable[..., Chat], told: list[str]) -> None:
    parrot = Parrot(["0123456789"], context=100)  # 25 of them are for the answer
    with begin(parrot) as chat:
        for _ in range(3):
            said(chat, "0123456789")
        assert (parrot.asked[-1][0], told) == (50, [])
        said(chat, "012345")
        assert parrot.asked[-1][0] == 66
        said(chat, "q" * 40)
        assert told == ["the context of 100 tokens is full: the 6 oldest turns are left out from now"]
        assert parrot.asked[-1][0] == 6 + 10 + 40
        assert len(chat.conversation.turns) == 10
        assert chat.conversation.left_out == 6


def test_a_question_that_is_too_long_alone_is_refused_and_the_chat_goes_on(begin: Callable[..., Chat]) -> None:
    with begin(Parrot(["a"], context=100)) as chat:
        said(chat, "q")
        with pytest.raises(UsageError, match="the question has 120 tokens with what stands before it; 100 is all"):
            said(chat, "q" * 120)
        assert ([turn.content for turn in chat.conversation.turns], chat.conversation.left_out) == (["q", "a"], 0)
        assert said(chat, "q" * 99) == "a"


def test_a_model_without_a_template_is_told_of_once(begin: Callable[..., Chat], told: list[str]) -> None:
    with begin(Parrot(["a"], has_template=False)) as chat:
        said(chat, "q")
        said(chat, "q")
    assert told == ["the model has no chat template: it continues the text"]


def test_the_other_model_takes_over_and_one_alone_is_in_memory(told: list[str]) -> None:
    first, base = Parrot(["t"]), Parrot(["b"])
    loaded: list[str] = []

    def speaker(name: str, parrot: Parrot) -> Speaker:
        def load() -> Parrot:
            assert (first.closed + base.closed) == len(loaded)
            loaded.append(name)
            return parrot

        return Speaker(name, name, load)

    speakers = Speakers(Manner(1000), speaker("tuned", first), lambda progress: speaker("base", base))
    with Chat(speakers, Choices(), told.append) as chat:
        assert said(chat, "q") == "t"
        chat.switch(silent)
        assert (chat.speaker.name, said(chat, "r")) == ("base", "b")
        assert base.asked[0][0] == len("qtr")
        chat.switch(silent)
        assert (chat.speaker.name, said(chat, "s")) == ("tuned", "t")
    assert loaded == ["tuned", "base", "tuned"]
    assert [turn.speaker for turn in chat.conversation.turns if turn.speaker] == ["tuned", "base", "tuned"]


def test_where_the_other_cannot_be_loaded_the_first_goes_on(told: list[str]) -> None:
    def fail() -> Parrot:
        raise ModelError("gone")

    first = Speaker("tuned", "", lambda: Parrot(["t"]))
    with Chat(Speakers(Manner(9), first, lambda _: Speaker("base", "", fail)), Choices(), told.append) as chat:
        with pytest.raises(ModelError, match="gone"):
            chat.switch(silent)
        assert (chat.speaker.name, said(chat, "q")) == ("tuned", "t")


def test_a_file_alone_has_no_base_and_no_backend(larva: Path, tmp_path: Path, told: list[str]) -> None:
    file = tmp_path / "copy.gguf"
    file.write_bytes((larva / "export/model-F32.gguf").read_bytes())
    speakers = find_speakers(file, "llamacpp", None, None)
    assert speakers.first.name == "model"
    with Chat(speakers, Choices(), told.append) as chat, pytest.raises(UsageError, match="no base at hand") as failure:
        chat.switch(silent)
    assert failure.value.fix == "begin the chat with its run: chrysalis-mlx chat RUN"
    with pytest.raises(UsageError, match="a GGUF outside of a run cannot be run by mlx"):
        find_speakers(file, "mlx", None, None)
    with pytest.raises(UsageError, match="--quantize chooses a GGUF"):
        find_speakers(larva, "mlx", "F32", None)
