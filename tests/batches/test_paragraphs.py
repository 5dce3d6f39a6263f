"""Any text as segments of whole paragraphs, and some of them for all."""

from __future__ import annotations

import numpy as np

from chrysalis_mlx.batches.paragraphs import paragraph_segments, spread
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.models.tokenizer import Tokenizer

SHORT, LONG = "One small paragraph.", "word " * 200
TEXT = "\n\n".join([SHORT, SHORT, LONG, SHORT])


def test_a_text_is_cut_between_paragraphs_into_segments_that_fit(tokenizer: Tokenizer) -> None:
    segments = paragraph_segments(TEXT, tokenizer, 100)
    shown = [tokenizer.decode(segment.tokens.tolist()) for segment in segments]
    end = tokenizer.decode([tokenizer.eos_id])
    assert [shown[0], shown[2]] == [f"{SHORT}\n\n{SHORT}{end}", f"{SHORT}{end}"]
    assert len(segments[1].tokens) == len(segments[1].supervised) == 100
    assert LONG.startswith(shown[1])


def test_paragraphs_that_fit_are_whole(spm_tokenizer: Tokenizer) -> None:
    text = "\n\n".join(str(number) * 3 for number in range(10, 60))
    for row_length in range(12, 40):
        segments = paragraph_segments(text, spm_tokenizer, row_length)
        assert max(len(segment.tokens) for segment in segments) <= row_length
        shown = [spm_tokenizer.decode(segment.tokens[1:-1].tolist()) for segment in segments]
        assert "\n\n".join(shown) == text


def test_where_it_goes_on_no_end_token_is_learned(tokenizer: Tokenizer) -> None:
    segments = paragraph_segments(TEXT, tokenizer, 100, ended=False)
    shown = [tokenizer.decode(segment.tokens.tolist()) for segment in segments]
    assert [shown[0], shown[2]] == [f"{SHORT}\n\n{SHORT}", SHORT]
    assert segments[2].supervised.tolist() == [False] + [True] * (len(segments[2].tokens) - 1)


def test_a_text_without_paragraphs_has_no_segments(tokenizer: Tokenizer) -> None:
    assert paragraph_segments("", tokenizer, 100) == []
    assert paragraph_segments(" \n\n\n\n\t", tokenizer, 100) == []


def segment(number: int, length: int = 10) -> Segment:
    return Segment(np.full(length, number, np.int32), np.ones(length, np.bool_))


def chosen(count: int, tokens: int) -> list[int]:
    return [int(some.tokens[0]) for some in spread([segment(number) for number in range(count)], tokens)]


def test_segments_are_spread_evenly_over_all() -> None:
    assert chosen(10, 1000) == chosen(10, 100) == list(range(10))
    assert chosen(10, 40) == [0, 3, 6, 9]
    assert chosen(10, 1) == [0]
    assert chosen(0, 50) == []
