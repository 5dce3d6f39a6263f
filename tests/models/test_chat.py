"""Chat templates, against transformers, and what of a conversation is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from chrysalis_mlx.errors import CorpusError, ModelError
from chrysalis_mlx.models.chat import ChatTemplate, Conversation
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny
from tests.models.chat_templates import TEMPLATES, TOKENS

NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
SPECIAL = (*TOKENS, "<|im_start|>", "<|im_end|>", "<|endoftext|>")

USER, SYSTEM = {"role": "user", "content": "What is a larva?"}, {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "A young insect 🐛, 東京."}
AGAIN, LAST = {"role": "user", "content": "And then?"}, {"role": "assistant", "content": "  A pupa.\n"}
TALK = [USER, ANSWER, AGAIN, LAST]


def tokenizer_with(directory: Path, template: str) -> Tokenizer:
    """A tiny tokenizer that has the special tokens of every template."""
    tiny.byte_level_bpe(directory)
    file = directory / "tokenizer.json"
    content = json.loads(file.read_text())
    like = content["added_tokens"][0]
    content["added_tokens"] += [{**like, "id": 512 + n, "content": token} for n, token in enumerate(TOKENS)]
    file.write_text(json.dumps(content))
    (directory / "special_tokens_map.json").write_text(json.dumps(NAMES))
    file = directory / "tokenizer_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"eos_token": "</s>", "chat_template": TEMPLATES[template]})
    )
    return Tokenizer.open(directory)


def learned(template: str, messages: list[dict[str, Any]], **options: Any) -> list[str]:
    """The texts that are learned."""
    shown = ChatTemplate(TEMPLATES[template], NAMES).conversation(messages, SPECIAL, **options)
    return [shown.text[start:end] for start, end in shown.learned]


@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    ours, theirs = tokenizer_with(tmp_path, name), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.chat is not None
    for messages in (TALK, [USER, ANSWER], [USER]):
        expected = theirs.apply_chat_template(messages, return_dict=False)
        shown = ours.chat.conversation(messages, ours.special_tokens)
        assert ours.encode(shown.text, special=False) == expected
        prompt = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert ours.chat.render(messages, add_generation_prompt=True) == prompt


EXPECTED = {
    "chatml": ["A young insect 🐛, 東京.<|im_end|>", "  A pupa.\n<|im_end|>"],
    "smollm2": ["A young insect 🐛, 東京.<|im_end|>", "  A pupa.\n<|im_end|>"],
    "llama3": ["A young insect 🐛, 東京.<|eot_id|>", "A pupa.<|eot_id|>"],
    "gemma": ["A young insect 🐛, 東京.<end_of_turn>", "A pupa.<end_of_turn>"],
    "llama2": [" A young insect 🐛, 東京. </s>", " A pupa. </s>"],
    "mistral": [" A young insect 🐛, 東京.</s>", " A pupa.</s>"],
    "qwen3": ["A young insect 🐛, 東京.<|im_end|>", "<think>\n\n</think>\n\n  A pupa.\n<|im_end|>"],
    "phi3": ["A young insect 🐛, 東京.<|end|>", "  A pupa.\n<|end|>"],
    "generation": ["A young insect 🐛, 東京.<|im_end|>", "  A pupa.\n<|im_end|>"],
    "alpaca": ["A young insect 🐛, 東京.", "  A pupa.\n\n\n"],
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_answer_is_learned_with_its_end_and_nothing_else(name: str) -> None:
    assert learned(name, TALK) == EXPECTED[name]
    assert learned(name, TALK[:3]) == EXPECTED[name][:1]
    assert learned(name, [USER]) == []


@pytest.mark.parametrize("name", sorted(TEMPLATES.keys() - {"mistral", "alpaca"}))
def test_a_system_message_changes_nothing_of_what_is_learned(name: str) -> None:
    assert learned(name, [SYSTEM, *TALK]) == EXPECTED[name]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("off", [{"train": False}, {"weight": 0}])
def test_a_turn_can_be_switched_off(name: str, off: dict[str, Any]) -> None:
    kept = ChatTemplate(TEMPLATES[name], NAMES).conversation(TALK, SPECIAL).text
    shown = ChatTemplate(TEMPLATES[name], NAMES).conversation([USER, ANSWER | off, AGAIN, LAST], SPECIAL)
    assert shown.text == kept
    assert learned(name, [USER, ANSWER | off, AGAIN, LAST]) == EXPECTED[name][1:]
    first = EXPECTED[name][:1]
    assert learned(name, [USER, ANSWER | {"train": True, "weight": 1}, AGAIN, LAST | off]) == first


@pytest.mark.parametrize("name", TEMPLATES)
def test_whether_a_token_ends_the_last_answer(name: str) -> None:
    template = ChatTemplate(TEMPLATES[name], NAMES)
    assert template.conversation(TALK, SPECIAL).ended is (name != "alpaca")
    assert template.conversation(TALK[:3], SPECIAL).ended
    assert template.conversation([*TALK[:3], LAST | {"train": False}], SPECIAL).ended


def test_thinking_of_the_last_answer_is_learned_and_earlier_thinking_is_gone() -> None:
    think = "<think>\nwings or not?\n</think>\n\n"
    messages = [USER, {"role": "assistant", "content": think + "Both."}, AGAIN, {**LAST, "content": think + "Wings."}]
    assert learned("qwen3", messages) == ["Both.<|im_end|>", think + "Wings.<|im_end|>"]
    assert learned("qwen3", [USER, {**ANSWER, "content": "Both.", "reasoning": "wings or not?"}]) == [
        f"{think}Both.<|im_end|>"
    ]
    assert learned("qwen3", [USER, {**ANSWER, "content": "Both."}], enable_thinking=False) == ["Both.<|im_end|>"]


CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "molt", "arguments": {"times": 2}}}]}
RESULT = {"role": "tool", "content": "5"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen3", '<tool_call>\n{"name": "molt", "arguments": {"times": 2}}\n</tool_call><|im_end|>'),
        ("llama3", '{"name": "molt", "parameters": {"times": 2}}<|eot_id|>'),
        ("mistral", '[TOOL_CALLS] [{"name": "molt", "arguments": {"times": 2}}]</s>'),
    ],
)
def test_a_tool_call_without_content_is_learned_and_its_result_is_not(name: str, expected: str) -> None:
    found = learned(name, [USER, CALL, RESULT, ANSWER])
    assert found[0].removeprefix("<think>\n\n</think>\n\n") == expected
    assert [text.removeprefix("<think>\n\n</think>\n\n") for text in found[1:]] == EXPECTED[name][:1]


def test_tools_of_a_row_are_shown() -> None:
    tools = [{"type": "function", "function": {"name": "größe", "parameters": {}}}]
    text = ChatTemplate(TEMPLATES["llama3"], NAMES).render([USER], tools=tools)
    assert json.dumps(tools[0], indent=4, ensure_ascii=False) in text


contents = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        *("What is a larva?", "<|im_end|>\n<|im_start|>user\n", "</s>", "assistant", "[/INST]"),
        *("<think>", "\n", "{% x %}", "\ufdd0"),
    ]
)


@pytest.mark.parametrize("name", ["chatml", "smollm2", "phi3", "generation", "mistral"])
@settings(max_examples=40, deadline=None)
@given(st.lists(contents, min_size=2, max_size=6))
def test_any_content_is_found_where_the_template_puts_it(name: str, texts: list[str]) -> None:
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    end = {"phi3": "<|end|>", "mistral": "</s>"}.get(name, "<|im_end|>")
    shown = (lambda text: " " + text.strip()) if name == "mistral" else str
    assert learned(name, messages) == [shown(message["content"]) + end for message in messages[1::2]]


def test_masks_are_those_of_transformers_where_the_template_marks_the_answers(tmp_path: Path) -> None:
    ours = tokenizer_with(tmp_path, "generation")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs.apply_chat_template(TALK, return_assistant_tokens_mask=True, return_dict=True)
    assert ours.chat is not None
    shown = ours.chat.conversation(TALK, ours.special_tokens)
    (encoded,) = ours.encode_spans([shown.text], special=False)
    mask = [any(start < last and end > first for first, last in shown.learned) for start, end in encoded.spans]
    assert encoded.ids.tolist() == expected["input_ids"]
    assert mask == [bool(value) for value in expected["assistant_masks"]]


@pytest.mark.parametrize(
    ("name", "messages", "reason"),
    [
        ("gemma", [USER, USER], "Conversation roles must alternate"),
        ("mistral", [SYSTEM, USER], "conversation roles must alternate"),
        ("llama3", [USER, CALL | {"tool_calls": []}], "single tool-calls"),
        ("chatml", [{"role": "user"}], "no attribute 'content'"),
        ("chatml", [{"role": "user", "content": 3}], "can only concatenate str"),
        ("chatml", [{"content": "x"}], "message 1 is not an object with a role"),
        ("chatml", [USER, "x"], "message 2 is not an object with a role"),
    ],
)
def test_a_conversation_that_the_template_refuses_is_an_error(name: str, messages: list[Any], reason: str) -> None:
    with pytest.raises(CorpusError, match=reason):
        ChatTemplate(TEMPLATES[name], NAMES).conversation(messages, SPECIAL)


def test_a_template_that_is_none_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"the chat template is not valid(.|\n)*line 2(.|\n)*where: here"):
        ChatTemplate("\n{% for %}", {}, where="here").render([USER])


def test_a_template_cannot_reach_out_of_its_sandbox() -> None:
    for source in ("{{ messages.__class__.__mro__ }}", "{{ messages.append(1) }}"):
        with pytest.raises(CorpusError, match="unsafe"):
            ChatTemplate(source, {}).render([USER])


def test_the_template_of_a_directory(tmp_path: Path) -> None:
    def shown(**settings: Any) -> str | None:
        template = ChatTemplate.open(tmp_path, settings)
        return template.render([USER]) if template else None

    assert shown() is None
    assert (
        shown(chat_template="{{ bos_token }}{{ pad_token }}|", bos_token={"content": "<s>"}, pad_token=None) == "<s>|"
    )
    assert shown(chat_template=["damaged", {}]) is None
    several = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    assert shown(chat_template=several) == "plain"
    template = ChatTemplate.open(tmp_path, {"chat_template": several})
    assert template is not None
    assert template.render([USER], tools=[{}]) == "tools"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert shown(chat_template=several) == "file"


def test_the_date_is_always_the_same() -> None:
    assert ChatTemplate("{{ strftime_now('%d %b %Y') }}", {}).render([]) == "26 Jul 2024"


def test_a_conversation_is_plain_data() -> None:
    shown = ChatTemplate(TEMPLATES["chatml"], NAMES).conversation([USER, ANSWER], SPECIAL)
    start = shown.text.index("A young")
    assert shown == Conversation(shown.text, ((start, len(shown.text) - 1),), True)
