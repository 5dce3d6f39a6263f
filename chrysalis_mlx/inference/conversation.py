"""What was said in a chat, and how much of it the model is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, str]


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation.

    Attributes:
        role: user or assistant.
        speaker: which model answered: tuned, base or model; empty of the user's.
        stopped: whether the answer was stopped before its end.
    """

    role: str
    content: str
    speaker: str = ""
    stopped: bool = False


@dataclass
class Conversation:
    """Questions and answers by turns; the last question may wait for its answer.

    Attributes:
        system: the system prompt; None: what the chat template adds by itself.
        examples: turns that stand before it.
        turns: all that was said.
        left_out: how many of the first turns the model is no longer shown.
    """

    system: str | None = None
    examples: tuple[Message, ...] = ()
    turns: list[Turn] = field(default_factory=list)
    left_out: int = 0

    def messages(self) -> list[Message]:
        """What the model is shown."""
        said = [{"role": turn.role, "content": turn.content} for turn in self.turns[self.left_out :]]
        return [*self._before(), *said]

    def ask(self, text: str) -> None:
        """Add the user's turn."""
        self.turns.append(Turn("user", text))

    def answer(self, turn: Turn) -> None:
        """Add the model's."""
        self.turns.append(turn)

    def take_back(self) -> str | None:
        """Remove the last question, with its answer where there is one; give its text, or None where there is none."""
        if self.turns and self.turns[-1].role == "assistant":
            self.turns.pop()
        question = self.turns.pop().content if self.turns else None
        self.left_out = min(self.left_out, len(self.turns))
        return question

    def leave_out(self) -> bool:
        """Show the model one question and answer less; False where only the last question is left."""
        if len(self.turns) - self.left_out <= 1:
            return False
        self.left_out += 2
        return True

    def clear(self) -> None:
        """Forget what was said."""
        self.turns.clear()
        self.left_out = 0

    def as_dict(self) -> dict[str, Any]:
        """A row of data that can be trained on: the messages, the system prompt first."""
        said: list[dict[str, Any]] = []
        for turn in self.turns:
            marks: dict[str, Any] = {"speaker": turn.speaker} if turn.speaker else {}
            marks |= {"stopped": True} if turn.stopped else {}
            said.append({"role": turn.role, "content": turn.content, **marks})
        return {"messages": [*self._before(), *said]}

    def _before(self) -> list[Message]:
        """What stands before all that was said."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, *self.examples]
