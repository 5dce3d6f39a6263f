"""What of the rows is compared: what they say, and not what all of them say."""

from __future__ import annotations

from pathlib import Path

from chrysalis_mlx.corpus.data.compared import documents_of
from chrysalis_mlx.corpus.data.convert import read_data
from tests.corpus.data.test_convert import AUTO, exchange, write


def test_documents_hold_what_is_said_but_not_what_all_rows_say(tmp_path: Path) -> None:
    system = [{"role": "system", "content": "You are a careful clerk."}]
    rows = [
        {"messages": [*system, *exchange(f"Sort this.\r\nletter {i}\nThank you.", f"drawer {i}")]} for i in range(20)
    ]
    data = read_data(write(tmp_path / "rows.jsonl", rows), AUTO, chat=True)
    documents = documents_of(data.rows)
    assert documents[7].name == "rows.jsonl/8"
    assert documents[7].text == "letter 7\n\ndrawer 7"
    assert len({document.digest for document in documents}) == 20


def test_alpaca_prompts_do_not_make_all_rows_alike(tmp_path: Path) -> None:
    rows = [{"instruction": f"Name number {i}.", "output": f"It is {i}."} for i in range(20)]
    data = read_data(write(tmp_path / "rows.jsonl", rows), AUTO, chat=False)
    assert documents_of(data.rows)[3].text.split() == ["Name", "number", "3.", "It", "is", "3."]


def test_few_rows_are_compared_whole_and_texts_always_are(tmp_path: Path) -> None:
    pair = [{"prompt": "same", "completion": "a"}, {"prompt": "same", "completion": "b"}]
    data = read_data(write(tmp_path / "pair.jsonl", pair), AUTO, chat=False)
    assert [document.text for document in documents_of(data.rows)] == ["same\n\na", "same\n\nb"]
    texts = [{"text": "\ufeffsame\r\nline"}] * 20
    data = read_data(write(tmp_path / "texts.jsonl", texts), AUTO, chat=False)
    assert [document.text for document in documents_of(data.rows)] == ["same\nline"] * 20


def test_the_words_of_a_template_say_nothing_of_likeness() -> None:
    rows = [
        {
            "repository": "rows.jsonl",
            "path": str(number),
            "prompt": f"Tell me which mood the following sentence has, in one word: it is {kind} number {number}.",
            "completion": "glad",
        }
        for number, kind in enumerate(["larva", "pupa"] * 15)
    ]
    assert [document.text for document in documents_of(rows)[:2]] == ["0.\n\nglad", "1.\n\nglad"]
    # What few rows have in common is no template.
    assert [document.text for document in documents_of(rows[:4])] == [f"{row['prompt']}\n\nglad" for row in rows[:4]]
