"""The fixed prompts go through the chat template where there is one that takes them."""

from __future__ import annotations

from chrysalis_mlx.evaluation.prompts import prompts
from chrysalis_mlx.models.chat import ChatTemplate
from chrysalis_mlx.models.tokenizer import Tokenizer


def with_template(tokenizer: Tokenizer, source: str | None) -> Tokenizer:
    chat = ChatTemplate(source, {}) if source is not None else None
    return Tokenizer(tokenizer._engine, tokenizer.eos_id, chat)


def test_a_prompt_is_shown_as_a_users_turn(tokenizer: Tokenizer) -> None:
    (found,), notes = prompts(["Who are you?"], tokenizer, 8, 512)
    assert tokenizer.decode(found.tokens) == "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"
    assert (found.text, found.limit, notes) == ("Who are you?", 8, [])


def test_without_a_template_it_is_continued(spm_tokenizer: Tokenizer) -> None:
    plain = with_template(spm_tokenizer, None)
    (found,), notes = prompts(["Once upon"], plain, 8, 512)
    assert list(found.tokens) == plain.encode("Once upon")
    assert found.tokens[0] == plain.token_id("<s>")
    assert notes == []


def test_a_template_that_refuses_or_is_none_is_told_and_the_prompt_is_continued(tokenizer: Tokenizer) -> None:
    refusing = with_template(tokenizer, "{{ raise_exception('no questions here') }}")
    (found,), (note,) = prompts(["Who?"], refusing, 8, 512)
    assert list(found.tokens) == tokenizer.encode("Who?")
    assert note.startswith("the prompt 'Who?' is continued, not answered: the model's chat template refuses")
    assert "no questions here" in note
    broken = with_template(tokenizer, "{% if %}")
    (found,), (note,) = prompts(["Who?"], broken, 8, 512)
    assert list(found.tokens) == tokenizer.encode("Who?")
    assert "'Who?'" in note


def test_prompt_and_answer_fit_into_the_context(tokenizer: Tokenizer) -> None:
    length = len(prompts(["Who?"], tokenizer, 8, 512)[0][0].tokens)
    assert prompts(["Who?"], tokenizer, 8, length + 3)[0][0].limit == 3
    found, (note,) = prompts(["Who?"], tokenizer, 8, length)
    assert found == ()
    assert note == f"the prompt 'Who?' does not fit into the model's context of {length} tokens and is left out"
    assert prompts([""], with_template(tokenizer, None), 8, 512) == ((), ["the prompt '' is empty and is left out"])


def test_a_note_shows_the_beginning_of_a_long_prompt(tokenizer: Tokenizer) -> None:
    _, (note,) = prompts(["x" * 5000], tokenizer, 8, 512)
    assert note.startswith(f"the prompt '{'x' * 39}…' does not fit")
