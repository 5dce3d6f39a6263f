"""The Go text for Ollama: read by a small evaluator, against the Jinja template itself."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.export.ollama.go_template import Turns, default_system, plain_turns, shows_system, turn_end
from chrysalis_mlx.models.chat import ChatTemplate, Message
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny
from tests.models.chat_templates import CHATML, TEMPLATES, TOKENS

# As HuggingFaceH4/zephyr-7b-beta: ends turns by eos_token, asks inside of the loop.
ZEPHYR = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""
# As Llama 3 has them, where nothing is stripped.
HEADERS = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# No token at all, and braces that Go would take for its own.
BRACES = (
    "{{ '{{chat}}{' }}{% for message in messages %}"
    "{{ '{' + message['role'] + '}}: {' + message['content'] + '}{\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '{{assistant}}: {' }}{% endif %}"
)
PLAIN = {name: TEMPLATES[name] for name in ("chatml", "smollm2", "phi3", "generation", "alpaca")} | {
    "zephyr": ZEPHYR,
    "headers": HEADERS,
    "braces": BRACES,
}
DATED = TEMPLATES["smollm2"].replace("a helpful larva.", "a larva of ' + strftime_now('%d %b %Y') + '.")

FIRST = "shows the first turn differently from later ones"
CHANGED = "changes contents, or shows a turn by what stands around it"

S, U, A = ("system", "user", "assistant")
CONTENTS = {
    S: '"Be brief."\n{{ .System }}\n',
    U: "  What {is} <a> larva? {% if x %} 'yes' ",
    A: "\tA young insect 🐛, 東京.\n\n",
}
CONVERSATIONS = ((U,), (U, A, U), (S, U), (S, U, A, U, A, U))


def tokenizer_with(directory: Path, source: str) -> Tokenizer:
    """A tiny byte-level tokenizer with this chat template and the special tokens of all; it adds no BOS."""
    tiny.byte_level_bpe(directory)
    file = directory / "tokenizer.json"
    content = json.loads(file.read_text())
    like = content["added_tokens"][0]
    content["added_tokens"] += [{**like, "id": 512 + n, "content": token} for n, token in enumerate(TOKENS)]
    file.write_text(json.dumps(content))
    file = directory / "tokenizer_config.json"
    names = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": source}
    file.write_text(json.dumps(json.loads(file.read_text()) | names))
    return Tokenizer.open(directory)


def go(text: str, messages: Sequence[Message]) -> str:
    """What Go's text/template makes of the few actions that we write, with .Messages in hand."""
    pieces = re.split(r"\{\{ (.+?) \}\}", text)

    def block(at: int, dot: Message | None, live: bool) -> tuple[str, int]:
        """The output of the pieces from `at` to the `else` or `end` that closes them, and where that is."""
        shown = pieces[at]
        while at + 1 < len(pieces):
            action = pieces[at + 1]
            if action == "end" or action.startswith("else if "):
                break
            if action == "range .Messages":
                outputs = [block(at + 2, message, live) for message in messages] or [block(at + 2, None, False)]
                shown += "".join(output for output, _ in outputs)
                at = outputs[0][1]
            elif action.startswith("if "):
                taken = False
                while pieces[at + 1] != "end":
                    role = re.fullmatch(r'(?:else )?if eq \.Role "(\w+)"', pieces[at + 1])
                    assert role, pieces[at + 1]
                    chosen = live and not taken and dot is not None and dot["role"] == role[1]
                    output, at = block(at + 2, dot, chosen)
                    shown, taken = shown + (output if chosen else ""), taken or chosen
            elif action == ".Content":
                shown += dot["content"] if dot is not None and live else ""
            else:
                assert action == '"{"', action
                shown += "{"
            shown += pieces[at + 2]
            at += 2
        return shown, at

    shown, end = block(0, None, True)
    assert end == len(pieces) - 1
    return shown


def found(tokenizer: Tokenizer) -> Turns:
    assert tokenizer.chat is not None
    turns = plain_turns(tokenizer, default_system(tokenizer.chat))
    assert isinstance(turns, Turns), turns
    return turns


@pytest.mark.parametrize("name", PLAIN)
def test_the_go_text_says_what_the_template_says(tmp_path: Path, name: str) -> None:
    tokenizer = tokenizer_with(tmp_path, PLAIN[name])
    chat = tokenizer.chat
    assert chat is not None
    turns, default = found(tokenizer), default_system(chat)
    for roles in CONVERSATIONS:
        messages = [{"role": role, "content": CONTENTS[role]} for role in roles]
        # The Modelfile's SYSTEM is put before a conversation that begins with none (ChatHandler in server/routes.go).
        told = messages if S in roles or not default else [{"role": S, "content": default}, *messages]
        expected = chat.render(messages, add_generation_prompt=True)
        assert go(turns.go(), told) == expected
        assert turns.render(told) == expected


def test_the_text_of_chatml(tmp_path: Path) -> None:
    turn = "<|im_start|>{}\n{{{{ .Content }}}}<|im_end|>\n".format
    assert found(tokenizer_with(tmp_path, CHATML)).go() == (
        f'{{{{ range .Messages }}}}{{{{ if eq .Role "system" }}}}{turn(S)}{{{{ else if eq .Role "user" }}}}{turn(U)}'
        f'{{{{ else if eq .Role "assistant" }}}}{turn(A)}{{{{ end }}}}{{{{ end }}}}<|im_start|>assistant\n'
    )


@pytest.mark.parametrize("name", ["headers", "zephyr"])
def test_turns_are_divided_between_tokens(tmp_path: Path, name: str) -> None:
    turns = found(tokenizer_with(tmp_path, PLAIN[name]))
    end = "<|eot_id|>" if name == "headers" else "</s>\n"
    start = "<|start_header_id|>{}<|end_header_id|>\n\n" if name == "headers" else "<|{}|>\n"
    assert turns == Turns(
        "", "<s>" if name == "headers" else "", {r: (start.format(r), end) for r in (S, U, A)}, start.format(A)
    )


def test_phi3_ends_a_turn_before_the_end_of_all_text(tmp_path: Path) -> None:
    assert found(tokenizer_with(tmp_path, TEMPLATES["phi3"])).around[A] == ("<|assistant|>\n", "<|end|>\n\n")


def test_a_first_token_that_encoding_adds_is_left_to_it(tmp_path: Path) -> None:
    tiny.sentencepiece(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(HEADERS)
    tokenizer = Tokenizer.open(tmp_path)
    turns = found(tokenizer)
    messages = [{"role": U, "content": "u"}]
    assert tokenizer.chat is not None
    expected = tokenizer.chat.render(messages, add_generation_prompt=True)
    assert expected.startswith("<s><|start_header_id|>user")
    assert (turns.bos, turns.opening) == ("<s>", "")
    assert "<s>" + go(turns.go(), messages) == turns.render(messages) == expected


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (TEMPLATES["llama3"], "knows tools"),
        (TEMPLATES["qwen3"], "knows tools"),
        (TEMPLATES["mistral"], "knows tools"),
        (TEMPLATES["gemma"], FIRST),
        (TEMPLATES["llama2"], FIRST),
        (CHATML.replace("message['content']", "message['content'] | trim"), CHANGED),
        (CHATML.replace("message['content']", "message['content'] * 2"),
         "does not show each content once and in its place"),
        (CHATML.replace("'<|im_end|>'", "('!' if loop.index > 2 else '?')"),
         "shows later turns differently from the first"),
        (CHATML + "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}",
         "refuses some conversations"),
        (CHATML + "{% if '{' in messages[0].content %}{{ raise_exception('no') }}{% endif %}", CHANGED),
        (CHATML + "{# thinking #}", "knows thinking"),
        (DATED, "names the date"),
    ],
)  # fmt: skip
def test_what_is_not_plain(tmp_path: Path, source: str, why: str) -> None:
    tokenizer = tokenizer_with(tmp_path, source)
    assert tokenizer.chat is not None
    assert plain_turns(tokenizer, default_system(tokenizer.chat)) == why


def test_a_default_that_is_not_handed_over_makes_it_not_plain(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(tmp_path, TEMPLATES["smollm2"])
    assert plain_turns(tokenizer, None) == FIRST
    assert plain_turns(tokenizer, "Another.") == CHANGED


def test_the_system_prompt_that_a_template_adds_by_itself() -> None:
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    added = {name: default_system(ChatTemplate(source, names)) for name, source in TEMPLATES.items()}
    assert added == {**dict.fromkeys(TEMPLATES), "smollm2": "You are a helpful larva."}
    assert default_system(ChatTemplate(DATED, names)) is None


def test_which_templates_show_a_system_prompt() -> None:
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    shown = {name for name, source in TEMPLATES.items() if shows_system(ChatTemplate(source, names))}
    assert shown == set(TEMPLATES) - {"mistral"}
    silent = CHATML.replace(
        "{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"
    )
    assert not shows_system(ChatTemplate(silent, names))


@pytest.mark.parametrize(
    ("name", "end"),
    [("chatml", "<|im_end|>"), ("llama3", "<|eot_id|>"), ("gemma", "<end_of_turn>"), ("llama2", "</s>"),
     ("mistral", "</s>"), ("qwen3", "<|im_end|>"), ("phi3", "<|end|>"), ("alpaca", None)],
)  # fmt: skip
def test_the_token_that_ends_an_answer(tmp_path: Path, name: str, end: str | None) -> None:
    assert turn_end(tokenizer_with(tmp_path, TEMPLATES[name])) == end


def test_a_template_that_is_no_jinja_is_an_error(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(tmp_path, "{% for message in %}")
    assert tokenizer.chat is not None
    for ask in (default_system, shows_system):
        with pytest.raises(ModelError, match="the chat template is not valid"):
            ask(tokenizer.chat)
    with pytest.raises(ModelError, match="the chat template is not valid"):
        turn_end(tokenizer)
    with pytest.raises(ModelError, match="the chat template is not valid"):
        plain_turns(tokenizer, None)
