"""The built-in general text, and what is measured of it."""

from __future__ import annotations

import re

import pytest

from chrysalis_mlx.evaluation.general import SOURCE, general_segments, general_text
from chrysalis_mlx.models.tokenizer import Tokenizer

EVERYTHING = 10**9


@pytest.fixture(scope="module")
def passages() -> list[str]:
    return [passage.strip() for passage in general_text().split("\n\n\n")]


def test_every_passage_has_a_source_and_every_source_a_passage(passages: list[str]) -> None:
    works, _, reason = SOURCE.partition(". All of it is in the public domain: ")
    assert reason.startswith("published before 1929")
    assert len(works.split(";")) == len(passages) == 17
    years = [int(year) for year in re.findall(r"\b(1[789]\d\d)\)", works)]
    assert len(years) == len(passages)
    assert max(years) < 1929


def test_it_is_text_of_one_kind_of_mark_and_many_kinds_of_writing(passages: list[str]) -> None:
    text = general_text()
    assert 20_000 <= len(text.encode("utf-8")) <= 25_000
    assert [len(passage) for passage in passages if not 900 < len(passage) < 2200] == []
    assert len(set(passages)) == len(passages)
    # No mark-up, no line breaks inside of prose, nothing lost on the way.
    assert re.findall(r"[_*|#<>�]|  |[^\n\x20-\x7e’“”—£]|[a-z,]\n[a-z]", text) == []


def test_all_of_it_is_measured_where_it_is_not_too_long(tokenizer: Tokenizer, passages: list[str]) -> None:
    segments = general_segments(tokenizer, EVERYTHING, 2048)
    assert [tokenizer.decode(segment.tokens.tolist()) for segment in segments] == passages


def test_special_tokens_stand_before_a_passage_and_none_behind(spm_tokenizer: Tokenizer, passages: list[str]) -> None:
    segments = general_segments(spm_tokenizer, EVERYTHING, 2048)
    begin = spm_tokenizer.token_id("<s>")
    assert [int(segment.tokens[0]) for segment in segments] == [begin] * len(passages)
    assert all(spm_tokenizer.eos_id not in segment.tokens for segment in segments)
    assert all(segment.supervised.tolist() == [False] + [True] * (len(segment.tokens) - 1) for segment in segments)


@pytest.mark.parametrize("row_length", [64, 300])
def test_a_segment_fits_a_row_and_stays_in_a_passage(
    tokenizer: Tokenizer, passages: list[str], row_length: int
) -> None:
    segments = general_segments(tokenizer, EVERYTHING, row_length)
    assert max(len(segment.tokens) for segment in segments) <= row_length
    assert len(segments) > len(passages)
    for segment in segments:
        text = tokenizer.decode(segment.tokens.tolist()).rstrip("\ufffd")
        assert sum(text in passage for passage in passages) == 1


def test_a_part_of_it_is_about_as_long_as_it_should_be_and_from_everywhere(tokenizer: Tokenizer) -> None:
    everything = general_segments(tokenizer, EVERYTHING, 2048)
    total = sum(len(segment.tokens) for segment in everything)
    for tokens in (total // 4, total // 2):
        some = general_segments(tokenizer, tokens, 2048)
        assert sum(len(segment.tokens) for segment in some) == pytest.approx(tokens, rel=0.2)
        assert [some[0].tokens.tolist(), some[-1].tokens.tolist()] == [
            everything[0].tokens.tolist(),
            everything[-1].tokens.tolist(),
        ]
    assert len(general_segments(tokenizer, total, 2048)) == 17
    assert len(general_segments(tokenizer, 1, 2048)) == 1
    assert general_segments(tokenizer, 0, 2048) == []
