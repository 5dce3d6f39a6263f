"""Prompts that say where one is, completed by sections."""

from __future__ import annotations

import json
import re

from chrysalis_mlx.batches.rows import Row
from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame import completion
from chrysalis_mlx.corpus.frame.chunks import fit
from chrysalis_mlx.corpus.frame.sections import sections
from chrysalis_mlx.models.tokenizer import Tokenizer

HEADER = "# {repository}/{path}\n\n"
WORDS = " ".join(f"word{first}{second}" for first in "abcdef" for second in "abcdefghij")
TEXT = f"# Book\n\n## Chapter\n\n### Section\n\n    {WORDS}\n\n{WORDS}\n\n## Last\n\n{WORDS}\n"


def rows_of(document: Document, tokenizer: Tokenizer, row_length: int) -> list[Row]:
    return fit(completion.passages(document, HEADER, sections(document), tokenizer, row_length), tokenizer, row_length)


def test_a_prompt_is_the_header_and_the_way_to_the_section(tokenizer: Tokenizer) -> None:
    document = Document("repo", "docs/a.md", TEXT)
    rows = rows_of(document, tokenizer, 1000)
    assert rows == [
        {
            "prompt": "# repo/docs/a.md\n\n## Book > Chapter > Section\n\n",
            "completion": f"    {WORDS}\n\n{WORDS}",
            "repository": "repo",
            "path": "docs/a.md",
            "framing": "completion",
            "part": 1,
            "parts": 1,
        },
        {
            "prompt": "# repo/docs/a.md\n\n## Book > Last\n\n",
            "completion": WORDS,
            "repository": "repo",
            "path": "docs/a.md",
            "framing": "completion",
            "part": 1,
            "parts": 1,
        },
    ]


def test_a_document_without_headings_follows_its_header(tokenizer: Tokenizer) -> None:
    document = Document("repo", "notes.txt", "\n\none\n\ntwo\n")
    [row] = rows_of(document, tokenizer, 100)
    assert (row["prompt"], row["completion"]) == ("# repo/notes.txt\n\n", "one\n\ntwo")


def test_each_part_follows_from_its_prompt_and_nothing_is_lost(tokenizer: Tokenizer) -> None:
    document = Document("repo", "docs/a.md", TEXT)
    rows = rows_of(document, tokenizer, 128)
    assert len(rows) > 6
    assert len({row["prompt"] for row in rows}) == len(rows)
    places = ("# repo/docs/a.md\n\n## Book > Chapter > Section\n\n", "# repo/docs/a.md\n\n## Book > Last\n\n")
    for row, before in zip(rows[1:], rows, strict=False):
        [place] = [place for place in places if row["prompt"].startswith(place)]
        shown = row["prompt"].removeprefix(place)
        assert len(shown) <= 32  # a quarter of the row, in bytes
        assert bool(shown) == (row["part"] > 1)
        assert before["completion"].endswith(shown.rstrip()) or not shown
        assert shown + row["completion"] in TEXT
    assert re.findall(r"\w+", " ".join(row["completion"] for row in rows)) == WORDS.split() * 3
    for row, segment in zip(rows, segments(rows, tokenizer), strict=True):
        assert len(segment.tokens) <= 128
        learned = tokenizer.decode(segment.tokens[segment.supervised].tolist())
        assert learned.removesuffix("<|im_end|>").strip() == row["completion"].strip()


def test_what_came_before_is_shown_in_whole_lines(tokenizer: Tokenizer) -> None:
    lines = "".join(f"line {number} of many\n\n" for number in range(200))
    rows = rows_of(Document("repo", "a.txt", lines), tokenizer, 256)
    assert len(rows) > 4
    for row in rows[1:]:
        shown = row["prompt"].removeprefix("# repo/a.txt\n\n")
        assert re.fullmatch(r"(line \d+ of many\n\n){2,3}", shown)
    wide = rows_of(Document("repo", "a.txt", "変態する幼虫" * 200), tokenizer, 256)
    assert "".join(row["completion"] for row in wide) == "変態する幼虫" * 200


def test_sections_at_the_same_place_show_what_came_before(tokenizer: Tokenizer) -> None:
    document = Document("repo", "a.md", f"# A\n\n{WORDS}\n\n# A\n\n{WORDS} end\n")
    first, second = rows_of(document, tokenizer, 1000)
    assert first["prompt"] == "# repo/a.md\n\n## A\n\n"
    assert re.fullmatch(r"# repo/a\.md\n\n(word[a-j]+ )+wordfj\n\n## A\n\n", second["prompt"])


def test_repeated_sections_are_all_there(tokenizer: Tokenizer) -> None:
    document = Document("repo", "a.md", f"# A\n\n{WORDS}\n\n" * 3)
    assert [row["completion"] for row in rows_of(document, tokenizer, 1000)] == [WORDS] * 3


def test_headings_give_way_where_they_leave_no_room(tokenizer: Tokenizer) -> None:
    long = "chapter of a very long heading " * 6
    document = Document("repo", "a.md", f"# {long}\n\n## {long}\n\n### Section\n\n{WORDS}\n")
    place = f"## {long.strip()} > {long.strip()} > Section"
    for row_length, start in ((1000, 0), (300, place.index("> ") + 2), (128, place.rindex("> ") + 2)):
        prompt = rows_of(document, tokenizer, row_length)[0]["prompt"]
        assert prompt == f"# repo/a.md\n\n## {place[start:].removeprefix('## ')}\n\n"
        assert len(tokenizer.encode(prompt)) <= row_length // 2
    alone = Document("repo", "a.json", json.dumps({"key of many words " * 40: f"{WORDS} {WORDS}"}))
    rows = rows_of(alone, tokenizer, 128)
    assert re.fullmatch(r"# repo/a\.json\n\n## (key of many words )*[a-z ]+ \.\.\.\n\n", rows[0]["prompt"])
    assert "wordfj" in rows[-1]["completion"]


def test_what_has_no_words_is_not_completed(tokenizer: Tokenizer) -> None:
    document = Document("repo", "a.md", f"# A\n\n{'0123 ' * 60}\n\n# B\n\n{WORDS}\n")
    assert [row["prompt"] for row in rows_of(document, tokenizer, 1000)] == ["# repo/a.md\n\n## B\n\n"]
