"""Questions that name their place, and answers that are the document."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame import chat
from chrysalis_mlx.corpus.frame.chunks import fit
from chrysalis_mlx.corpus.frame.sections import sections
from chrysalis_mlx.models.tokenizer import Tokenizer

LONG = "Imaginal discs are small groups of cells which are already there in the caterpillar. " * 3


def asked(document: Document, draw: int = 0) -> list[tuple[str, str]]:
    """Question and answer of every exchange, uncut."""
    found = chat.passages(document, sections(document), None, draw)
    messages = [passage.rows([passage.body])[0]["messages"] for passage in found]
    assert all([message["role"] for message in turns] == ["user", "assistant"] for turns in messages)
    return [(turns[0]["content"], turns[1]["content"]) for turns in messages]


def every_wording(document: Document) -> list[set[str]]:
    """For each exchange all of its questions."""
    return [
        set(questions) for questions in zip(*([q for q, _ in asked(document, draw)] for draw in range(12)), strict=True)
    ]


def test_headings_are_asked_for_with_their_place_and_chapter() -> None:
    text = (
        f"# Wings\n\n{LONG}\n\n## 1. Growth:\n\n### 1.1 [Discs](http://x)\n\n{LONG}\n\n---\n\n## Why wings?\n\n{LONG}\n"
    )
    document = Document("larva", "docs/wings.md", text)
    assert [answer for _, answer in asked(document)] == [LONG.strip()] * 3
    assert every_wording(document) == [
        {
            'What is "Wings" in docs/wings.md in larva about?',
            'How does docs/wings.md in larva, "Wings", begin?',
            'How does docs/wings.md in larva introduce "Wings"?',
        },
        {
            'What does docs/wings.md in larva say about "Discs" under "Growth"?',
            'Tell me what docs/wings.md in larva says about "Discs" under "Growth".',
            'Explain "Discs" under "Growth" from docs/wings.md in larva.',
        },
        {
            "Why wings? What does docs/wings.md in larva say?",
            'How does docs/wings.md in larva answer the question "Why wings?"?',
        },
    ]


def test_a_readme_under_its_repository_s_name_tells_what_that_is() -> None:
    document = Document("wing-disc", "README.md", f"# Wing Disc\n\n{LONG}\n")
    assert every_wording(document) == [
        {"What is wing-disc?", "Tell me about wing-disc.", "What is wing-disc about?", "Describe wing-disc."}
    ]
    assert "wing-disc?" not in asked(Document("wing-disc", "docs/README.md", document.text))[0][0].split()


def test_joined_sections_are_asked_for_together() -> None:
    document = Document("larva", "a.md", f"intro\n\n## A\n\nshort\n\n## B\n\nshort\n\n## C\n\n{LONG}\n")
    [(question, answer)] = asked(document)
    assert '"A", "B" and "C"' in question
    assert answer == document.text.strip()


def test_documents_without_headings_are_asked_for_as_a_whole() -> None:
    for path in ("a.txt", "a.rs", "b.toml"):
        document = Document("larva", path, "one = 1\n\ntwo = 2\n")
        assert every_wording(document) == [
            {f"What is in {path} in larva?", f"What does {path} in larva contain?", f"Show me {path} in larva."}
        ]
        assert asked(document)[0][1] == "one = 1\n\ntwo = 2"


def test_python_gives_its_source_and_what_docstrings_say() -> None:
    source = (
        f'"""A module."""\n\nclass Larva:\n    """{LONG}"""\n\n    def eat(self):\n        """Eat."""\n'
        + "        x = 1\n" * 30
    )
    found = asked(Document("larva", "m.py", source))
    assert [answer for _, answer in found] == [source.strip(), "A module.", LONG.strip(), "Eat."]
    assert [
        subject in question
        for (question, _), subject in zip(found, ("Larva", "module", "Larva", "Larva.eat"), strict=True)
    ] == [True] * 4
    assert all("m.py in larva" in question for question, _ in found)


def test_rows_of_tables_that_say_something_are_asked_for() -> None:
    described = "A repository of many words, which say what it is there for."
    rows = [f"| [disc](http://x) | {described} |", f"| 7 | {described} |", "| cell | short |"]
    text = "\n".join(["| Repository | Description |", "|---|---|", *rows])
    [_, row] = asked(Document("larva", "README.md", text))
    assert row[1] == described
    assert 'the repository "disc"' in row[0]
    wide = f"| | Use | More |\n|---|---|---|\n| disc | {described} | words |\n"
    [_, row] = asked(Document("larva", "README.md", wide))
    assert row[1] == f"Use: {described}\nMore: words"


def test_markup_alone_is_no_answer() -> None:
    assert asked(Document("larva", "a.md", '# <p align="center">\n\n---\n')) == []
    document = Document("larva", "a.md", f"# One\n\n{LONG}\n\n## ---\n\n{LONG}\n")
    assert [question for question, _ in asked(document)][1].endswith('"One" in a.md in larva?')


def test_parts_repeat_the_question_and_count(tokenizer: Tokenizer) -> None:
    document = Document("larva", "a.md", f"# One\n\n{LONG * 4}\n")
    rows = fit(chat.passages(document, sections(document), "You know.", 0), tokenizer, 256)
    questions = [row["messages"][1]["content"] for row in rows]
    assert len(rows) > 2
    assert questions[1:] == [f"{questions[0]} (part {part} of {len(rows)})" for part in range(2, len(rows) + 1)]
    assert {row["messages"][0]["content"] for row in rows} == {"You know."}
    assert re.findall(r"\w+", " ".join(row["messages"][2]["content"] for row in rows)) == re.findall(r"\w+", LONG * 4)


lines = st.sampled_from(
    ["# A", "## B", "### [C](x)?", "", "", LONG, "text", "```", "| a | b |", "|---|---|", "---", "é🦋"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(lines, max_size=20), st.sampled_from(["a.md", "README.md", "a.txt", "a.py"]))
def test_every_row_fits_and_asks(tokenizer: Tokenizer, parts: list[str], path: str) -> None:
    document = Document("larva", path, "\n".join(parts))
    found = chat.passages(document, sections(document), None, 0)
    rows = fit(found, tokenizer, 192)
    assert rows == fit(chat.passages(document, sections(document), None, 0), tokenizer, 192)
    assert all(len(segment.tokens) <= 192 and segment.supervised.any() for segment in segments(rows, tokenizer))
    answers = "".join(row["messages"][-1]["content"] for row in rows)
    assert re.sub(r"\s", "", answers) == re.sub(r"\s", "", "".join(passage.body for passage in found))
    assert all("larva" in row["messages"][-2]["content"] for row in rows)
    assert answers.count("caterpillar") == document.text.count("caterpillar")


@pytest.mark.parametrize("title", ["{it}", "{source} {0}", "a" * 500, '"quoted" {'])
def test_titles_are_taken_as_they_are(title: str) -> None:
    document = Document("larva", "a.md", f"# One\n\n{LONG}\n\n## {title}\n\n{LONG}\n")
    [_, (question, _)] = asked(document)
    assert title.replace('"', "'").strip("'")[:100] in question
    assert len(question) < 220
