"""A chat: one model in memory at a time, one conversation, and answers that come piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from chrysalis_mlx.errors import UsageError
from chrysalis_mlx.inference.chat_models.protocol import ChatModel
from chrysalis_mlx.inference.conversation import Conversation, Turn
from chrysalis_mlx.inference.speakers import Speaker, Speakers
from chrysalis_mlx.llamacpp.server import Piece
from chrysalis_mlx.progress import Progress


@dataclass(frozen=True)
class Choices:
    """What the user wants of the answers.

    Attributes:
        max_tokens: of an answer; None: to its end, or to that of the context.
        seed: of the first answer; each further one has the next.
        sampling: temperature, top_k, top_p, min_p, repeat_penalty, where the model's own are not wanted.
    """

    max_tokens: int | None = None
    seed: int = 0
    sampling: Mapping[str, float] = field(default_factory=dict)


class Chat:
    """A conversation with one of several models; a context manager that frees the memory at its end.

    Args:
        speakers: who can speak.
        choices: how they answer.
        tell: gets what the user should know: one sentence.

    Attributes:
        conversation: what was said.
        speaker: who answers now.
    """

    def __init__(self, speakers: Speakers, choices: Choices, tell: Callable[[str], None]) -> None:
        manner = speakers.manner
        self.conversation = Conversation(manner.system, manner.examples)
        self.speaker = speakers.first
        self._speakers, self._choices, self._tell = speakers, choices, tell
        self._sampling = {**manner.sampling, **choices.sampling}
        self._model: ChatModel | None = None
        self._told_plain = False
        self._answers = 0

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self._free()

    def load(self) -> None:
        """Bring the model that answers into memory, where it is not.

        Raises:
            ExportError, ModelError, BackendError: it cannot be loaded.
        """
        if self._model is None:
            self._model = self.speaker.open()

    def switch(self, progress: Progress) -> None:
        """Let the other model answer: the base, or the first one again. The conversation goes along.

        Raises:
            UsageError: there is no other.
            ChrysalisError: it cannot be had; then the one before goes on.
        """
        other = self._other(progress)
        before, self.speaker = self.speaker, other
        self._free()  # before the other is loaded: one model in memory at a time
        try:
            self.load()
        except BaseException:
            self.speaker = before  # loaded again for the next answer
            raise

    def ask(self, text: str) -> Generator[Piece, None, None]:
        """The answer to a question as it comes. Closed before its end, it is kept as a stopped one.

        Of a question that gets no word of an answer nothing is kept.

        Raises:
            UsageError: the question alone is too long.
            ChrysalisError: the model cannot answer.
        """
        self.load()
        model = self._model
        assert model is not None
        if not (model.has_template or self._told_plain):
            self._told_plain = True
            self._tell("the model has no chat template: it continues the text")
        self.conversation.ask(text)
        said, finish = "", None
        try:
            prompt = self._fitting(model)
            seed, self._answers = self._choices.seed + self._answers, self._answers + 1
            stream = model.answer(prompt, max_tokens=self._choices.max_tokens, seed=seed, sampling=self._sampling)
            with closing(stream):
                for piece in stream:
                    said, finish = said + piece.text, piece.finish
                    yield piece
        finally:
            if said or finish:
                self.conversation.answer(Turn("assistant", said, self.speaker.name, stopped=finish is None))
            else:
                self.conversation.take_back()

    def _fitting(self, model: ChatModel) -> list[int]:
        """The prompt, without as many of the oldest turns as leave no room for an answer."""
        room, before = min(self._choices.max_tokens or model.context, model.context // 4), self.conversation.left_out
        prompt = model.prompt(self.conversation.messages())
        while len(prompt) + room > model.context and self.conversation.leave_out():
            prompt = model.prompt(self.conversation.messages())
        if len(prompt) >= model.context:
            self.conversation.left_out = before
            raise UsageError(
                f"the question has {len(prompt)} tokens with what stands before it; {model.context} is all that fits",
                fix="shorten it, or give more with --context N",
            )
        if self.conversation.left_out > before:
            turns = self.conversation.left_out - before
            self._tell(f"the context of {model.context} tokens is full: the {turns} oldest turns are left out from now")
        return prompt

    def _other(self, progress: Progress) -> Speaker:
        if self.speaker.name != self._speakers.first.name:
            return self._speakers.first
        if self._speakers.other is None:
            raise UsageError(
                "there is no base at hand: the file alone does not tell what it was tuned from",
                where=self.speaker.what,
                fix="begin the chat with its run: chrysalis-mlx chat RUN",
            )
        return self._speakers.other(progress)

    def _free(self) -> None:
        if self._model is not None:
            model, self._model = self._model, None
            model.close()
