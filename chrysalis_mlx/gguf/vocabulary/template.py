"""What an export has to know of a chat template: that it is one, what a prompt looks like, and how an answer ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.gguf.vocabulary.special_tokens import read_json
from chrysalis_mlx.models.chat import ChatTemplate

_ANSWER = "An answer."


@dataclass(frozen=True)
class Template:
    """A chat template.

    Attributes:
        source: Jinja.
        first: the prompt of a conversation's first turn; None where the template refuses so simple a one.
        after_answer: what follows on an answer, but for white space; empty where that cannot be seen.
    """

    source: str
    first: str | None
    after_answer: str

    @classmethod
    def open(cls, directory: Path) -> Template | None:
        """Of chat_template.jinja, or the (default) chat_template of tokenizer_config.json.

        Raises:
            ExportError: a file that is no JSON.
            ModelError: the template is no Jinja template.
        """
        settings = read_json(directory / "special_tokens_map.json")
        own = read_json(directory / "tokenizer_config.json")
        chat = ChatTemplate.open(directory, settings | {key: value for key, value in own.items() if value is not None})
        if chat is None:
            return None
        turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": _ANSWER}]
        first = _render(chat, turns[:1], add_generation_prompt=True)
        _, _, after = (_render(chat, turns) or "").rpartition(_ANSWER)
        return cls(chat.source, first, after.lstrip())


def _render(chat: ChatTemplate, turns: list[dict[str, str]], *, add_generation_prompt: bool = False) -> str | None:
    try:
        return chat.render(turns, add_generation_prompt=add_generation_prompt)
    except CorpusError:
        return None
