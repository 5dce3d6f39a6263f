"""What begins with "/" in a chat."""

from __future__ import annotations

from pathlib import Path

from chrysalis_mlx.cli.chat.screen import note
from chrysalis_mlx.cli.output import progress
from chrysalis_mlx.errors import UsageError
from chrysalis_mlx.inference.chat import Chat
from chrysalis_mlx.run import write_json

HELP = {
    "/base": "let the base model answer, and back; the conversation goes along",
    "/retry": "answer the last question again, with the model that speaks now",
    "/clear": "forget the conversation",
    "/system TEXT": "set the system prompt; without TEXT show it, with - take it away",
    "/save FILE": "write the conversation as JSON",
    "/help": "this",
    "/exit": "leave, as Ctrl-D does",
}
NAMES = tuple(line.split()[0] for line in HELP)


class Commands:
    """Obeys the commands of one chat."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._saved: set[Path] = set()

    def obey(self, line: str) -> str | None:
        """Do what a line says, but for `/exit`.

        Returns:
            a question to be answered, where the command gives one.

        Raises:
            UsageError: there is no such command, or it cannot be obeyed.
            ChrysalisError, OSError: it failed; the chat can go on.
        """
        name, _, rest = line.strip().partition(" ")
        rest, conversation = rest.strip(), self._chat.conversation
        if name == "/base":
            self._chat.switch(progress)
            note(f"{self._chat.speaker.name} answers now: {self._chat.speaker.what}")
        elif name == "/clear":
            conversation.clear()
            note("the conversation is forgotten")
        elif name == "/retry":
            if not conversation.turns:
                raise UsageError("nothing was asked yet")
            return conversation.take_back()
        elif name == "/system":
            self._system(rest)
        elif name == "/save":
            self._save(rest)
        elif name == "/help":
            for command, meaning in HELP.items():
                note(f"  {command:14}{meaning}")
            note('  A line that ends with "\\" goes on; one with a space in front is no command.')
        else:
            raise UsageError(f"there is no command {name}", fix="/help lists them")
        return None

    def _system(self, text: str) -> None:
        conversation = self._chat.conversation
        if text:
            conversation.system = None if text == "-" else text
        shown = "none but what the chat template adds" if conversation.system is None else conversation.system
        note(f"system prompt: {shown}")

    def _save(self, name: str) -> None:
        if not name:
            raise UsageError("no file is named", fix="/save FILE")
        file = Path(name).expanduser()
        if file.exists() and file.absolute() not in self._saved:
            raise UsageError("there is such a file already", where=file, fix="take another name")
        write_json(file, self._chat.conversation.as_dict())
        self._saved.add(file.absolute())
        note(f"saved: {file}")
