"""Genome and blueprint to JSONL."""

from __future__ import annotations

import json
import types
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.batches.tokens import read_segments
from chrysalis_mlx.blueprint.schema import (
    Blueprint,
    ExpressionSection,
    FramingSection,
    SplitSection,
    TrainingSection,
)
from chrysalis_mlx.corpus.build import CorpusReport, build_corpus, row_tokens
from chrysalis_mlx.corpus.express import content_digest
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.genome.text.format import GenomeFile, write_genome
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny

SIDES = ("train", "valid", "test")
BLUEPRINT = Blueprint(
    expression=ExpressionSection(exclude=("logs/*",)),
    split=SplitSection(valid=0.2, test=0.2),
    training=TrainingSection(row_length=96),
)
FILES = [
    *(GenomeFile("docs", f"{n}.md", "".join(f"{n} {line}\n" for line in tiny.TEXT.splitlines())) for n in range(9)),
    GenomeFile("docs", "crlf.md", "\ufefffirst line\r\nsecond line\r\n"),
    GenomeFile("docs", "copy.md", "first line\nsecond line"),
    GenomeFile("docs", "blank.md", "\n \n"),
    GenomeFile("logs", "today.log", "noise\n" * 50),
]


def build(directory: Path, tokenizer: Tokenizer, blueprint: Blueprint = BLUEPRINT, files: Any = FILES) -> CorpusReport:
    write_genome(files, directory / "genome.txt")
    return build_corpus(directory / "genome.txt", blueprint, tokenizer, directory / "corpus")


def rows(directory: Path, side: str) -> list[dict[str, Any]]:
    text = (directory / "corpus" / f"{side}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def body(row: dict[str, Any]) -> str:
    header = f"# {row['repository']}/{row['path']}\n\n"
    assert row["text"].startswith(header)
    return str(row["text"][len(header) :])


def account(directory: Path) -> dict[str, dict[str, Any]]:
    files = json.loads((directory / "corpus/expression.json").read_text(encoding="utf-8"))["files"]
    return {f"{entry['repository']}/{entry['path']}": entry for entry in files}


def test_the_account_tells_for_every_file_side_and_rule(tmp_path: Path, tokenizer: Tokenizer) -> None:
    report = build(tmp_path, tokenizer)
    told = account(tmp_path)
    assert len(told) == len(FILES) == report.files
    assert told["logs/today.log"] == {
        "repository": "logs",
        "path": "today.log",
        "rule": "exclude: logs/*",
        "side": None,
    }
    assert told["docs/copy.md"]["rule"] == "duplicate of docs/crlf.md"
    assert told["docs/copy.md"]["side"] is told["docs/blank.md"]["side"] is None
    assert told["docs/blank.md"]["rule"] == "too short: under 1 characters"
    assert report.left_out == {"exclude: logs/*": 1, "duplicate": 1, "too short: under 1 characters": 1}
    assert report.documents == {"train": 6, "valid": 2, "test": 2}
    for side in SIDES:
        assert {row["path"] for row in rows(tmp_path, side)} == {
            entry["path"] for entry in told.values() if entry["side"] == side
        }


def test_the_report_counts_rows_and_tokens_as_they_are_trained(tmp_path: Path, tokenizer: Tokenizer) -> None:
    report = build(tmp_path, tokenizer)
    for side in SIDES:
        segments = read_segments(tmp_path / "corpus" / f"{side}.jsonl", tokenizer, 96)
        assert report.rows[side] == len(segments)
        assert report.tokens[side] == sum(len(segment.tokens) for segment in segments)
        assert max(len(segment.tokens) for segment in segments) <= 96
        assert all(row_tokens(row, tokenizer) <= 96 for row in rows(tmp_path, side))
    assert json.loads((tmp_path / "corpus/expression.json").read_text())["report"] == asdict(report)


def test_the_rows_of_a_document_are_its_text(tmp_path: Path, tokenizer: Tokenizer) -> None:
    build(tmp_path, tokenizer)
    found: dict[str, list[dict[str, Any]]] = {}
    for side in SIDES:
        for row in rows(tmp_path, side):
            found.setdefault(row["path"], []).append(row)
    for file in FILES[:10]:
        parts = found[file.path]
        assert [row["part"] for row in parts] == list(range(1, len(parts) + 1))
        assert {row["parts"] for row in parts} == {len(parts)}
        assert "".join(map(body, parts)) == file.text.removeprefix("\ufeff").replace("\r\n", "\n")


def test_no_content_stands_twice_or_on_two_sides(tmp_path: Path, tokenizer: Tokenizer) -> None:
    licence = "".join(f"shared paragraph {n}: as is, without warranty of any kind whatever\n" for n in range(4))
    files = [GenomeFile("r", f"{n}.md", licence + f"own words number {n}\n" * 9) for n in range(12)]
    build(tmp_path, tokenizer, replace(BLUEPRINT, framing=FramingSection(header="{path}\n")), files)
    digests = [
        content_digest(row["text"].removeprefix(f"{row['path']}\n")) for side in SIDES for row in rows(tmp_path, side)
    ]
    assert len(set(digests)) == len(digests)
    everything = [row["text"] for side in SIDES for row in rows(tmp_path, side)]
    assert sum("shared paragraph 0" in text for text in everything) == 1
    assert any("shared paragraph 0" in row["text"] for row in rows(tmp_path, "train"))
    assert sum(text.count("own words") for text in everything) >= 12


def test_the_same_seed_gives_the_same_bytes_and_another_another_split(tmp_path: Path, tokenizer: Tokenizer) -> None:
    other = replace(BLUEPRINT, split=replace(BLUEPRINT.split, seed=5))
    for name, blueprint in (("a", BLUEPRINT), ("b", BLUEPRINT), ("c", other)):
        (tmp_path / name).mkdir()
        build(tmp_path / name, tokenizer, blueprint)
    for file in (*(f"{side}.jsonl" for side in SIDES), "expression.json"):
        first, same, different = ((tmp_path / name / "corpus" / file).read_bytes() for name in "abc")
        assert first == same
        assert first != different
    sides = [{name: entry["side"] for name, entry in account(tmp_path / name).items()} for name in "ac"]
    assert sides[0] != sides[1]


def test_nothing_left_is_an_error_and_no_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    nothing = replace(BLUEPRINT, expression=ExpressionSection(include=("*.rs",)))
    with pytest.raises(CorpusError, match=r"none of the genome's 13 files is expressed(.|\n)*loosen the blueprint"):
        build(tmp_path, tokenizer, nothing)
    assert not (tmp_path / "corpus").exists()


def test_two_documents_are_too_few(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(CorpusError, match=r"2 document\(s\) are left"):
        build(tmp_path, tokenizer, files=FILES[:2])


def test_a_side_whose_rows_all_repeat_others_is_an_error(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Documents that differ as a whole and are cut into the same chunks."""
    line = "the same line again and again, as long as half of a row is long, more or less so\n"
    files = [GenomeFile("r", f"{n}.md", line * n) for n in (40, 41, 42)]
    with pytest.raises(CorpusError, match=r"no row is left for (valid|test)(.|\n)*repeat others word for word"):
        build(tmp_path, tokenizer, replace(BLUEPRINT, training=TrainingSection(row_length=48)), files)


def test_a_header_too_long_for_the_row_is_an_error(tmp_path: Path, tokenizer: Tokenizer) -> None:
    long = replace(BLUEPRINT, framing=FramingSection(header="word " * 90 + "\n"))
    with pytest.raises(CorpusError, match="of 96 tokens for the text"):
        build(tmp_path, tokenizer, long)


def test_mlx_lm_reads_the_corpus_unchanged_and_makes_our_token_ids(tmp_path: Path) -> None:
    from mlx_lm.tokenizer_utils import load as load_mlx_tokenizer
    from mlx_lm.tuner.datasets import load_local_dataset

    directory = tiny.byte_level_bpe(tmp_path / "tokenizer")
    tokenizer = Tokenizer.open(directory)
    build(tmp_path, tokenizer)
    theirs = load_mlx_tokenizer(directory)
    config = types.SimpleNamespace(mask_prompt=False)
    compared = 0
    for side, dataset in zip(SIDES, load_local_dataset(tmp_path / "corpus", theirs, config), strict=True):
        segments = read_segments(tmp_path / "corpus" / f"{side}.jsonl", tokenizer, 96)
        assert len(dataset) == len(segments)
        for index, (row, segment) in enumerate(zip(rows(tmp_path, side), segments, strict=True)):
            ids, offset = dataset.process(dataset[index])
            assert offset == 0
            ended = segment.tokens.tolist() if row["part"] == row["parts"] else [*segment.tokens, tokenizer.eos_id]
            assert ids == ended  # mlx-lm ends every row; we end the last part of a document
            compared += 1
    assert compared == sum(len(rows(tmp_path, side)) for side in SIDES) > 20
