"""The Modelfile that `ollama create` reads, and running it.

What a Modelfile may say, and how it is read, is in docs/modelfile.mdx and parser/parser.go of ollama/ollama.
"""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import ExportError, UsageError
from chrysalis_mlx.export.gate.ends import end_tokens
from chrysalis_mlx.export.ollama.go_template import default_system, plain_turns, shows_system
from chrysalis_mlx.gguf import architectures
from chrysalis_mlx.models.chat import ChatTemplate
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.progress import Progress, silent

MAX_CONTEXT = 8192  # a longer default costs memory that most laptops do not have
_END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>", "</s>")
_SAMPLING = ("temperature", "top_k", "top_p", "min_p")
_ROLES = ("system", "user", "assistant")

# types/model/name.go: 80 characters a part; no dots in a namespace. A host may have a port.
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
_NAME = re.compile(
    rf"(?:(?:[A-Za-z0-9_][A-Za-z0-9_.:-]{{0,349}}/)?[A-Za-z0-9_][A-Za-z0-9_-]{{0,79}}/)?{_PART}(?::{_PART})?"
)
_LICENSE = re.compile(r"licen[cs]e[^.]*(\.(txt|md))?", re.IGNORECASE)
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # what moves the cursor and colours


def modelfile(
    base: Path | str,
    model: ModelDirectory,
    *,
    system: str | None,
    context: int | None,
    adapter: Path | None = None,
    license_id: str | None = None,
    messages: Sequence[Mapping[str, str]] = (),
) -> str:
    """The text of a Modelfile.

    TEMPLATE is there where the chat template is a plain structure of turns and the Go text is proved equal to it;
    else a comment says why not, and Ollama takes the template that the GGUF carries. Every end token becomes a `stop`,
    because a missing one is the most common cause of output that does not end.

    Args:
        base: the GGUF, in the same directory as the Modelfile; or the name that the base model has in Ollama.
        model: tells the tokenizer, the context and the makers' sampling.
        system: the system prompt; None takes the one that the chat template adds by itself, which Ollama may drop.
        context: num_ctx in tokens; None takes the model's own, at most 8192.
        adapter: a GGUF adapter for the base, in the same directory as the Modelfile.
        license_id: said where the model directory has no LICENSE files, whose text comes first.
        messages: turns that stand before every conversation, each with `role` and `content`.

    Raises:
        ExportError: a Modelfile cannot say one of them, or the chat template shows no system prompt.
        ModelError: the chat template or generation_config.json is not valid.
    """
    generation = model.generation_config
    chat = model.tokenizer.chat
    default = None if chat is None else default_system(chat)
    if default and _unsayable(default):
        default = None  # then a TEMPLATE cannot be proved, and Ollama takes the one that adds it
    lines = [f"FROM {_path(base)}"]
    if adapter is not None:
        lines.append(f"ADAPTER {_path(adapter)}")
    lines.append(_template(model.tokenizer, default))
    lines += _system(chat, system, default)
    lines.append(f"PARAMETER num_ctx {context or default_context(model)}")
    lines += [f"PARAMETER stop {_stop(token)}" for token in _stops(model)]
    lines += [f"PARAMETER {name} {value}" for name, value in recommended_sampling(generation).items()]
    lines += [_example(message) for message in messages]
    licenses = _license_files(model.path) or ([license_id] if license_id else [])
    lines += [f"LICENSE {_quoted(_printable(text), 'the licence')}" for text in licenses]
    return "\n".join(lines) + "\n"


def default_context(model: ModelDirectory) -> int:
    """Tokens that llama.cpp computes as the model does (of Phi-3, whose window it lacks, up to that); at most 8192."""
    return min(architectures.for_config(model.plain_config).context, MAX_CONTEXT)


def recommended_sampling(generation: Mapping[str, Any]) -> dict[str, float]:
    """The sampling that the model's makers recommend, by Ollama's names; what they do not say is not there."""

    def number(name: str) -> float | None:
        value = generation.get(name)
        usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return value if usable else None

    values: dict[str, float | None] = {name: number(name) for name in _SAMPLING}
    if generation.get("do_sample") is False:
        values = {"temperature": 0}
    values["repeat_penalty"] = number("repetition_penalty")
    return {name: int(v) if name == "top_k" else v for name, v in values.items() if v is not None}


def check_name(name: str) -> None:
    """Make sure that Ollama takes a name for a model: [host/][namespace/]model[:tag].

    Raises:
        UsageError: it does not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a model in Ollama",
            fix="take letters, digits, '-', '_' and '.', as in larva, larva:q4 or me/larva:q4",
        )


def create(name: str, directory: Path, *, progress: Progress = silent) -> str | None:
    """Make a model in Ollama from the Modelfile of an export directory.

    Args:
        name: as `check_name`.
        progress: shows each line that the program prints.

    Returns:
        None when it is made; the command to run when the program `ollama` is not on this computer.

    Raises:
        UsageError: Ollama does not take the name.
        ExportError: the program failed; it says how.
    """
    check_name(name)
    program = shutil.which("ollama")
    if program is None:
        return _by_hand(name, directory)
    with progress("ollama create", 1) as bar:
        # Absolute, because it runs in another directory than the one that PATH may be relative to.
        command = [str(Path(program).absolute()), "create", name, "-f", "Modelfile"]
        _run(command, directory, lambda line: bar.update(0, status=line))
        bar.update(1)
    return None


def _run(command: Sequence[str], directory: Path, show: Callable[[str], None]) -> None:
    """Run a program to its end and show each line that it prints."""
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise ExportError(f"ollama cannot be started: {error.strerror}", where=error.filename) from error
    last: deque[str] = deque(maxlen=5)
    with process:
        assert process.stdout is not None
        try:
            for printed in process.stdout:
                line = _TERMINAL.sub("", printed).strip()
                if line and line not in last:  # a bar that is drawn again and again
                    last.append(line)
                    show(line)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ExportError(
            f"ollama create failed (exit status {process.returncode}): " + ("; ".join(last) or "it said nothing"),
            where=directory / "Modelfile",
            fix="see that Ollama runs (ollama serve) and is up to date, then: " + _by_hand(command[2], directory),
        )


def _by_hand(name: str, directory: Path) -> str:
    return shlex.join(["ollama", "create", name, "-f", str(directory / "Modelfile")])


def _template(tokenizer: Tokenizer, default: str | None) -> str:
    """The TEMPLATE, or a comment that says why there is none."""
    if tokenizer.chat is None:
        return "# No TEMPLATE: the model has no chat template, and Ollama hands it the prompt as it is."
    turns = plain_turns(tokenizer, default)
    text = "" if isinstance(turns, str) else turns.go()
    why = turns if isinstance(turns, str) else _unsayable(text)
    if why:
        return f"# No TEMPLATE: the chat template {why}; Ollama takes it as it is from the GGUF."
    return f"TEMPLATE {_quoted(text, 'the template')}"


def _system(chat: ChatTemplate | None, system: str | None, default: str | None) -> list[str]:
    if system is None:
        return [f"SYSTEM {_quoted(default, 'the default system prompt')}"] if default else []
    if not (system or default):
        return []
    if not system:
        raise ExportError(
            "an empty system prompt cannot be written into a Modelfile, and without one the chat template adds its own",
            fix="write one, or leave it out",
        )
    if chat is None or not shows_system(chat):
        raise ExportError(
            "the model's chat template shows no system prompt" if chat else "the model has no chat template",
            where=chat and chat.where,
            fix="leave the system prompt out",
        )
    return [f"SYSTEM {_quoted(system, 'the system prompt')}"]


def _example(message: Mapping[str, str]) -> str:
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES or not isinstance(content, str):
        raise ExportError(
            f"an example message has the role {role!r}, or no text",
            fix=f"give each a role ({', '.join(_ROLES)}) and a content",
        )
    return f"MESSAGE {role} {_quoted(content, 'an example message')}"


def _license_files(directory: Path) -> list[str]:
    files = (file for file in directory.iterdir() if _LICENSE.fullmatch(file.name) and file.is_file())
    return [file.read_text(encoding="utf-8", errors="replace") for file in sorted(files)]


def _stops(model: ModelDirectory) -> list[str]:
    """The texts of all tokens that end an answer, each once."""
    found = [end.text for end in end_tokens(model)]
    found += [name for name in _END_TOKENS if model.tokenizer.token_id(name) is not None]
    # One that a Modelfile cannot say is in the GGUF, which ends the answer as well.
    return [token for token in dict.fromkeys(found) if token and not _unsayable(token)]


def _path(file: Path | str) -> str:
    """What Ollama takes for a file beside the Modelfile, or for a model that it has."""
    text = file if isinstance(file, str) else f"./{file.name}"
    if not text.isprintable() or text != text.strip() or not text or text.startswith('"'):
        raise ExportError(f"{text!r} cannot be named in a Modelfile", fix="give the file another name")
    return text


def _stop(token: str) -> str:
    return f'"{token}"' if '"' not in token else _quoted(token, "a stop")


def _quoted(text: str, what: str) -> str:
    """A text between three quotes.

    Raises:
        ExportError: Ollama would read another text.
    """
    why = _unsayable(text)
    if why:
        raise ExportError(f"{what} cannot be written into a Modelfile: it {why}", fix="change that place")
    return f'"""{text}"""'


def _unsayable(text: str) -> str | None:
    """What in a text a Modelfile cannot say; it completes the sentence "it ...".

    A text ends where a line does after three quotes, and a character that Go's strconv.IsPrint denies is dropped.
    """
    lost = sorted({character for character in text if not _is_read(character)})
    if lost:
        return "has characters that Ollama drops: " + ", ".join(f"U+{ord(character):04X}" for character in lost)
    return "has a line that ends with three quotes" if re.search(r'"""[ \t]*[\r\n]', text) else None


def _is_read(character: str) -> bool:
    return character.isprintable() or character in "\t\r\n"


def _printable(text: str) -> str:
    """A licence with spaces for what Ollama would drop, such as form feeds."""
    return "".join(character if _is_read(character) else " " for character in text).strip()
