"""Prompts that say where one is, completed by sections."""

from __future__ import annotations

import re

from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame import completion
from chrysalis_mlx.corpus.frame.chunks import fit
from chrysalis_mlx.corpus.frame.sections import sections
from chrysalis_mlx.models.tokenizer import Tokenizer

HEADER = "# {repository}/{path}\n\n"
WORDS = " ".join(f"word{number}" for number in range(60))
TEXT = f"# Book\n\n## Chapter\n\n### Section\n\n    {WORDS}\n\n{WORDS}\n\n## Last\n\n{WORDS}\n"


def test_a_prompt_is_the_header_and_the_way_to_the_section(tokenizer: Tokenizer) -> None:
    document = Document("repo", "docs/a.md", TEXT)
    rows = fit(completion.passages(document, HEADER, sections(document)), tokenizer, 1000)
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
    [row] = fit(completion.passages(document, HEADER, sections(document)), tokenizer, 100)
    assert (row["prompt"], row["completion"]) == ("# repo/notes.txt\n\n", "one\n\ntwo")


def test_parts_repeat_the_prompt_and_lose_nothing(tokenizer: Tokenizer) -> None:
    document = Document("repo", "docs/a.md", TEXT)
    rows = fit(completion.passages(document, HEADER, sections(document)), tokenizer, 128)
    assert len(rows) > 6
    assert len({row["prompt"] for row in rows}) == 2
    assert next(row["part"] for row in rows if row["prompt"].endswith("Last\n\n")) == 1
    assert re.findall(r"\w+", " ".join(row["completion"] for row in rows)) == WORDS.split() * 3
    for row, segment in zip(rows, segments(rows, tokenizer), strict=True):
        assert len(segment.tokens) <= 128
        learned = tokenizer.decode(segment.tokens[segment.supervised].tolist())
        assert learned.removesuffix("<|im_end|>").strip() == row["completion"].strip()
