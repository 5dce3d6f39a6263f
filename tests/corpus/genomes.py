"""A small genome that has one of each: copies, an older version, backups, a blank file, a log, and other forms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from chrysalis_mlx.blueprint.schema import Blueprint, ExpressionSection, MixSection, SplitSection, TrainingSection
from chrysalis_mlx.corpus.build import corpus_of_genome
from chrysalis_mlx.corpus.write import Corpus, write_corpus
from chrysalis_mlx.genome.text.format import GenomeFile, write_genome
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny

SIDES = ("train", "valid", "test")
ROW_LENGTH = 128
WORDS = sorted(set(re.findall(r"[a-z]{3,}", tiny.TEXT.lower())))


def prose(seed: int, count: int = 80) -> str:
    """Words in an order that no other seed gives, in lines of ten and paragraphs of four lines."""
    drawn = np.random.Generator(np.random.PCG64(seed)).choice(WORDS, count).tolist()
    lines = [" ".join(drawn[start : start + 10]) + ".\n" for start in range(0, count, 10)]
    return "".join("\n" * (number > 0 and number % 4 == 0) + line for number, line in enumerate(lines))


def chapter(seed: int) -> str:
    """A Markdown document with two sections."""
    return f"# Chapter {seed}\n\n{prose(seed)}\n## Its second half\n\n{prose(seed + 1000)}"


FACTS = {f"part {n}": prose(500 + n, 20).replace("\n", " ").strip() for n in range(6)}
FORMS = [
    GenomeFile("data", "facts.json", json.dumps(FACTS, indent=1)),
    GenomeFile("data", "facts.yaml", "".join(f"{key}: {value}\n" for key, value in FACTS.items())),
    GenomeFile("notes", "facts.md", "".join(f"## {key}\n\n{value}\n\n" for key, value in FACTS.items())),
]
"""One document in three forms."""

OLDER = GenomeFile("notes", "old/7.md", "".join(chapter(7).splitlines(keepends=True)[:15]))
"""Six tenths of docs/7.md."""

FILES = [
    *(GenomeFile("docs", f"{n}.md", chapter(n)) for n in range(10)),
    GenomeFile("docs", "blank.md", "\n \n"),
    GenomeFile("docs", "copy.md", chapter(3).replace("\n", "  \r\n")),
    GenomeFile("docs", "near.md", chapter(4) + "and one more line.\n"),
    GenomeFile("docs", "repeats.md", "the same words stand in this line again\n" * 30),
    *FORMS,
    OLDER,
    *(GenomeFile("notes", f"{n}.txt", prose(n)) for n in range(20, 24)),
    GenomeFile("old-backup", "0.md", chapter(0)[:300]),
    GenomeFile("old-backup", "lost.md", chapter(30)),
    GenomeFile("logs", "today.log", prose(40)),
]

BLUEPRINT = Blueprint(
    expression=ExpressionSection(exclude=("logs/*",)),
    split=SplitSection(valid=0.2, test=0.2),
    training=TrainingSection(row_length=ROW_LENGTH),
)


def with_mix(blueprint: Blueprint = BLUEPRINT, **mix: float) -> Blueprint:
    return replace(blueprint, framing=replace(blueprint.framing, mix=MixSection(**mix)))


def expressing(**changes: Any) -> Blueprint:
    """BLUEPRINT with another expression."""
    return replace(BLUEPRINT, expression=replace(BLUEPRINT.expression, **changes))


def made(
    directory: Path, tokenizer: Tokenizer, blueprint: Blueprint = BLUEPRINT, files: Sequence[GenomeFile] = FILES
) -> Corpus:
    """The corpus of a genome of these files."""
    directory.mkdir(exist_ok=True)
    write_genome(files, directory / "genome.txt")
    return corpus_of_genome(directory / "genome.txt", blueprint, tokenizer)


def written(
    directory: Path, tokenizer: Tokenizer, blueprint: Blueprint = BLUEPRINT, files: Sequence[GenomeFile] = FILES
) -> dict[str, Any]:
    """The same in `directory`/corpus; its report."""
    corpus = made(directory, tokenizer, blueprint, files)
    (directory / "corpus").mkdir()
    return write_corpus(corpus, directory / "corpus", tokenizer)


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def said(row: dict[str, Any]) -> str:
    """Everything that a row says, in whatever form."""
    if "messages" in row:
        return "\n".join(message["content"] for message in row["messages"])
    return str(row["prompt"] + row["completion"] if "prompt" in row else row["text"])


def ngrams(texts: Iterable[str], n: int = 13) -> set[tuple[str, ...]]:
    """Every n words in a row, counted in the plainest way."""
    found = (re.findall(r"\w+", text.lower()) for text in texts)
    return {tuple(words[start : start + n]) for words in found for start in range(len(words) - n + 1)}
