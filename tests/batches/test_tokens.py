"""JSONL rows to segments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chrysalis_mlx.batches.tokens import read_segments
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.models.tokenizer import Tokenizer


def write(path: Path, *rows: dict[str, Any] | str) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_an_end_token_follows_the_last_part_of_a_document_only(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write(
        tmp_path / "train.jsonl",
        {"text": "wings", "part": 1, "parts": 2},
        {"text": "wings", "part": 2, "parts": 2},
        {"text": "wings"},
        {"text": "wings<|im_end|>"},
        {"text": ""},
    )
    ids = tokenizer.encode("wings")
    found = [segment.tokens.tolist() for segment in read_segments(file, tokenizer, 64)]
    assert found == [ids, [*ids, 2], [*ids, 2], [*ids, 2], [2]]


def test_every_token_but_the_first_is_a_target(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (segment,) = read_segments(write(tmp_path / "a.jsonl", {"text": "The caterpillar"}), tokenizer, 64)
    assert segment.tokens.dtype == np.int32
    assert segment.supervised.tolist() == [False] + [True] * (len(segment.tokens) - 1)


def test_line_separators_of_unicode_end_no_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write(tmp_path / "a.jsonl", {"text": "a\u2028b\x85c"}, {"text": "d"})
    segments = read_segments(file, tokenizer, 64)
    assert [tokenizer.decode(segment.tokens[:-1].tolist()) for segment in segments] == ["a\u2028b\x85c", "d"]


def test_too_long_a_row_is_an_error_with_its_line(tmp_path: Path, tokenizer: Tokenizer) -> None:
    text = "caterpillar dissolve " * 9
    file = write(tmp_path / "train.jsonl", {"text": "short"}, "", {"text": text})
    count = len(tokenizer.encode(text)) + 1
    with pytest.raises(CorpusError, match=rf"a row has {count} tokens, training.row_length is {count - 1}") as caught:
        read_segments(file, tokenizer, count - 1)
    assert caught.value.where == f"{file}, line 3"
    assert len(read_segments(file, tokenizer, count)) == 2


@pytest.mark.parametrize("line", ["not json", "[]", "3", '{"prompt": "x"}', '{"text": 3}', '{"text": "cut'])
def test_a_line_that_is_no_row_is_an_error_with_its_line(tmp_path: Path, tokenizer: Tokenizer, line: str) -> None:
    file = write(tmp_path / "train.jsonl", {"text": "fine"}, line)
    with pytest.raises(CorpusError, match="not a JSON object with a 'text'") as caught:
        read_segments(file, tokenizer, 64)
    assert caught.value.where == f"{file}, line 2"


def test_an_empty_file_is_an_error(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(CorpusError, match="the corpus file is empty"):
        read_segments(write(tmp_path / "valid.jsonl"), tokenizer, 64)
