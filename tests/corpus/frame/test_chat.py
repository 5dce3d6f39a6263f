"""Questions that name their place, and answers that are the document."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame import chat
from chrysalis_mlx.corpus.frame.chunks import Passage, fit
from chrysalis_mlx.corpus.frame.sections import sections
from chrysalis_mlx.models.tokenizer import Tokenizer

NAMES = [first + second for first in "bdklmnprst" for second in ("a", "e", "i", "o")]
LONG = "Imaginal discs are small groups of cells which are already there in the caterpillar. " * 3


def made(document: Document, tokenizer: Tokenizer, row_length: int, system: str | None = None) -> list[Passage]:
    return chat.passages(document, sections(document), system, 0, tokenizer, row_length)


def asked(document: Document, tokenizer: Tokenizer, draw: int = 0) -> list[tuple[str, str]]:
    """Question and answer of every exchange, uncut."""
    found = chat.passages(document, sections(document), None, draw, tokenizer, 4000)
    messages = [passage.rows([passage.body])[0]["messages"] for passage in found]
    assert all([message["role"] for message in turns] == ["user", "assistant"] for turns in messages)
    return [(turns[0]["content"], turns[1]["content"]) for turns in messages]


def every_wording(document: Document, tokenizer: Tokenizer) -> list[set[str]]:
    """For each exchange all of its questions."""
    return [
        set(questions)
        for questions in zip(*([q for q, _ in asked(document, tokenizer, draw)] for draw in range(12)), strict=True)
    ]


def test_headings_are_asked_for_with_their_place_and_chapter(tokenizer: Tokenizer) -> None:
    text = (
        f"# Wings\n\n{LONG}\n\n## 1. Growth:\n\n### 1.1 [Discs](http://x)\n\n{LONG}\n\n---\n\n## Why wings?\n\n{LONG}\n"
    )
    document = Document("larva", "docs/wings.md", text)
    assert [answer for _, answer in asked(document, tokenizer)] == [LONG.strip()] * 3
    assert every_wording(document, tokenizer) == [
        {
            'What is "Wings" in docs/wings.md in larva about?',
            'What does docs/wings.md in larva tell about "Wings"?',
            'What is under "Wings" in docs/wings.md in larva?',
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


def test_a_readme_under_its_repository_s_name_tells_what_that_is(tokenizer: Tokenizer) -> None:
    document = Document("wing-disc", "README.md", f"# Wing Disc\n\n{LONG}\n")
    assert every_wording(document, tokenizer) == [
        {"What is wing-disc?", "Tell me about wing-disc.", "What is wing-disc about?", "Describe wing-disc."}
    ]
    assert "wing-disc?" not in asked(Document("wing-disc", "docs/README.md", document.text), tokenizer)[0][0].split()


def test_joined_sections_are_asked_for_together(tokenizer: Tokenizer) -> None:
    document = Document("larva", "a.md", f"intro\n\n## A\n\nshort\n\n## B\n\nshort\n\n## C\n\n{LONG}\n")
    [(question, answer)] = asked(document, tokenizer)
    assert '"A", "B" and "C"' in question
    assert answer == document.text.strip()


def test_documents_without_headings_are_asked_for_as_a_whole(tokenizer: Tokenizer) -> None:
    for path in ("a.txt", "a.rs", "b.toml"):
        document = Document("larva", path, "one = 1\n\ntwo = 2\n")
        assert every_wording(document, tokenizer) == [
            {f"What is in {path} in larva?", f"What does {path} in larva contain?", f"Show me {path} in larva."}
        ]
        assert asked(document, tokenizer)[0][1] == "one = 1\n\ntwo = 2"


def test_python_gives_its_source_and_what_docstrings_say(tokenizer: Tokenizer) -> None:
    source = (
        f'"""A module."""\n\nclass Larva:\n    """{LONG}"""\n\n    def eat(self):\n        """Eat."""\n'
        + "        x = 1\n" * 30
    )
    found = asked(Document("larva", "m.py", source), tokenizer)
    assert [answer for _, answer in found] == [source.strip(), "A module.", LONG.strip(), "Eat."]
    assert [
        subject in question
        for (question, _), subject in zip(found, ("Larva", "module", "Larva", "Larva.eat"), strict=True)
    ] == [True] * 4
    assert all("m.py in larva" in question for question, _ in found)


def test_rows_of_tables_that_say_something_are_asked_for(tokenizer: Tokenizer) -> None:
    described = "A repository of many words, which say what it is there for."
    rows = [f"| [disc](http://x) | {described} |", f"| 7 | {described} |", "| cell | short |"]
    text = "\n".join(["| Repository | Description |", "|---|---|", *rows])
    [_, row] = asked(Document("larva", "README.md", text), tokenizer)
    assert row[1] == described
    assert 'the repository "disc"' in row[0]
    wide = f"| | Use | More |\n|---|---|---|\n| disc | {described} | words |\n"
    [_, row] = asked(Document("larva", "README.md", wide), tokenizer)
    assert row[1] == f"Use: {described}\nMore: words"


def test_markup_alone_is_no_answer(tokenizer: Tokenizer) -> None:
    assert asked(Document("larva", "a.md", '# <p align="center">\n\n---\n'), tokenizer) == []
    document = Document("larva", "a.md", f"# One\n\n{LONG}\n\n## ---\n\n{LONG}\n")
    assert [question for question, _ in asked(document, tokenizer)][1].endswith('"One" in a.md in larva?')


def test_later_parts_are_asked_for_by_their_first_words(tokenizer: Tokenizer) -> None:
    body = "".join(
        f"- **Disc** _{name}_, which is 'a', \"b\" and more than [nine](http://x) words.\n" for name in NAMES
    )
    document = Document("larva", "a.md", f"# Discs\n\n{LONG}\n\n## Kinds\n\n{body}")
    rows = fit(made(document, tokenizer, 256, "You know."), tokenizer, 256)
    of_kinds = [row for row in rows if "Kinds" in row["messages"][1]["content"]]
    assert len(of_kinds) > 2
    for row in of_kinds[1:]:
        name = row["messages"][2]["content"].split("_")[1]
        words = f"Disc {name}, which is 'a', 'b' and more"
        assert row["messages"][1]["content"] == f'What does a.md in larva say about "Kinds", from "{words}" on?'
    assert not any(re.search(r"begin|introduce|\bpart \d", row["messages"][1]["content"]) for row in rows)
    assert {row["messages"][0]["content"] for row in rows} == {"You know."}
    assert "\n".join(row["messages"][2]["content"] for row in of_kinds) == body.strip()


def test_the_first_words_are_those_of_several_lines_where_one_has_few(tokenizer: Tokenizer) -> None:
    said = "The wing disc grows from a few cells only"
    found = {
        "a.md": f"## Growth\n\n{said}",
        "b.md": f"11\n\n{said}",
        "c.json": '"year": 1986,\n "title": "Of the larva and its leaves"',
        "d.txt": said,
    }
    words = {path: chat._first_words(text, PurePosixPath(path).suffix) for path, text in found.items()}
    assert words == {
        "a.md": "Growth The wing disc grows from a few",
        "b.md": "11 The wing disc grows from a few",
        "c.json": "year: 1986 title: Of the larva and its",
        "d.txt": "The wing disc grows from a few cells",
    }


@pytest.mark.parametrize(
    ("title", "it"),
    [
        ("1. Growth:", "Growth"),
        ("1.2 Growth", "Growth"),
        ("IV. Growth", "Growth"),
        ("A) Growth", "Growth"),
        ("C. elegans larvae", "C. elegans larvae"),
        ("3 reasons to eat leaves", "3 reasons to eat leaves"),
        ("--- 03-Feb-2026", "03-Feb-2026"),
        ("--help", "--help"),
    ],
)
def test_a_title_loses_its_number_and_no_word(title: str, it: str, tokenizer: Tokenizer) -> None:
    document = Document("larva", "a.md", f"# One\n\n{LONG}\n\n## {title}\n\n{LONG}\n")
    assert f'"{it}"' in asked(document, tokenizer)[1][0]


def test_the_kind_of_an_entry_keeps_its_capitals(tokenizer: Tokenizer) -> None:
    table = "| {} | Use |\n|---|---|\n| arXiv | It holds what people write before others have read it. |\n"
    for head, kind in (("Databases / API", "databases / API"), ("URLs", "URLs"), ("Name", "name")):
        question = asked(Document("larva", "a.md", table.format(head)), tokenizer)[1][0]
        assert f'the {kind} "arXiv"' in question


def test_later_parts_of_code_and_of_what_has_no_title(tokenizer: Tokenizer) -> None:
    lines = "".join(f"    larva_{name}.eat(__leaf__)\n" for name in NAMES)
    rows = fit(made(Document("larva", "m.py", f"def grow():\n{lines}"), tokenizer, 192), tokenizer, 192)
    first = rows[1]["messages"][1]["content"].split("\n")[0].strip()
    assert rows[1]["messages"][0]["content"] == f'How does the function grow in m.py in larva go on from "{first}"?'
    rows = fit(
        made(Document("larva", "a.txt", f'Once,\n{LONG}\n\n"{"a" * 70}" {LONG}'), tokenizer, 256), tokenizer, 256
    )
    asked_for = [row["messages"][0]["content"] for row in rows[1:]]
    assert all(re.fullmatch(r'How does a\.txt in larva go on from "[^"]{1,60}"\?', question) for question in asked_for)


def test_a_question_leaves_out_what_leaves_no_room(tokenizer: Tokenizer) -> None:
    long = "growing and growing in words " * 4
    document = Document("larva", "a.md", f"# A\n\n{LONG}\n\n# {long}\n\n## Short {long}\n\n{LONG}\n")
    question = {
        row_length: made(document, tokenizer, row_length)[1].rows([""])[0]["messages"][0]["content"]
        for row_length in (1000, 192, 96)
    }
    assert question[1000].count("growing and growing in words growing") == 2
    assert " under " not in question[192]
    assert '"Short growing and growing in words ..."' in question[96]


@pytest.mark.parametrize("end", ["---", '# <p align="center"> --- </p>', "* * *\n\n<br>", "🦋"])
def test_answers_do_not_end_with_what_says_nothing(end: str, tokenizer: Tokenizer) -> None:
    document = Document("larva", "a.md", f"# A\n\n{LONG}\n\n{end}\n\n# B\n\n{LONG}\n\n{end}\n")
    assert LONG.strip() in asked(document, tokenizer)[0][1]
    assert all(answer.endswith("caterpillar.") for _, answer in asked(document, tokenizer))


@pytest.mark.parametrize("end", ["```\nx = [\n---\n```", "$$\nx\n$$", "| a |\n|---|", "    }"])
def test_answers_end_with_what_closes_them(end: str, tokenizer: Tokenizer) -> None:
    document = Document("larva", "a.md", f"# A\n\n{LONG}\n\n{end}\n")
    assert asked(document, tokenizer)[0][1].endswith(end)


def test_an_entry_of_two_tables_is_asked_for_once(tokenizer: Tokenizer) -> None:
    table = '| Disc | Use |\n|---|---|\n| "wing" | It becomes the wing, which the butterfly then {}. |\n\n'
    document = Document("larva", "a.md", table.format("spreads") + table.format("folds"))
    [_, (question, answer)] = asked(document, tokenizer)
    assert 'the disc "wing"' in question
    assert answer == "It becomes the wing, which the butterfly then spreads."


def test_sections_without_words_are_not_asked_for(tokenizer: Tokenizer) -> None:
    document = Document("larva", "a.md", f"# A\n\n{'01ab ' * 80}\n\n# B\n\n{LONG}\n")
    [(question, _)] = asked(document, tokenizer)
    assert '"B"' in question


lines = st.sampled_from(
    ["# A", "## B", "### [C](x)?", "", "", LONG, "text", "```", "| a | b |", "|---|---|", "---", "é🦋"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(lines, max_size=20), st.sampled_from(["a.md", "README.md", "a.txt", "a.py"]))
def test_every_row_fits_and_asks(tokenizer: Tokenizer, parts: list[str], path: str) -> None:
    document = Document("larva", path, "\n".join(parts))
    found = made(document, tokenizer, 192)
    rows = fit(found, tokenizer, 192)
    assert rows == fit(made(document, tokenizer, 192), tokenizer, 192)
    assert all(len(segment.tokens) <= 192 and segment.supervised.any() for segment in segments(rows, tokenizer))
    assert all("larva" in row["messages"][-2]["content"] for row in rows)
    whole = fit([replace(passage, is_wanted=lambda part: True) for passage in found], tokenizer, 192)
    assert [row for row in whole if row in rows] == rows
    answers = "".join(row["messages"][-1]["content"] for row in whole)
    # Parts lose the rules at their ends, and no word.
    assert re.sub(r"\W", "", answers) == re.sub(r"\W", "", "".join(passage.body for passage in found))
    assert answers.count("caterpillar") == document.text.count("caterpillar")


@pytest.mark.parametrize("title", ["{it}", "{source} {0}", "a" * 500, '"quoted" {'])
def test_titles_are_taken_as_they_are(title: str, tokenizer: Tokenizer) -> None:
    document = Document("larva", "a.md", f"# One\n\n{LONG}\n\n## {title}\n\n{LONG}\n")
    [_, (question, _)] = asked(document, tokenizer)
    assert title.replace('"', "'").strip("'")[:100] in question
    assert len(question) < 220
