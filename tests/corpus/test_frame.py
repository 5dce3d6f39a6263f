"""Documents cut into chunks that fit into a row and lose nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chrysalis_mlx.corpus.frame import chunks
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny

HEADER = "# repo/file.md\n\n"

lines = st.one_of(
    st.text(max_size=60),
    st.sampled_from(["", "\n", "\r\n", "    ", "def f(x):\n", "東京🦋" * 30, "a" * 700, "word " * 90, "é\u0301\u200d"]),
)
texts = st.lists(lines, max_size=8).map("".join) | st.lists(lines, max_size=8).map("\n".join)


def check(header: str, text: str, tokenizer: Tokenizer, row_length: int) -> list[str]:
    """The two promises of `chunks`; gives the bodies."""
    found = list(chunks(header, text, tokenizer, row_length))
    assert all(chunk.startswith(header) for chunk in found)
    assert all(len(tokenizer.encode(chunk)) + 1 <= row_length for chunk in found)
    bodies = [chunk[len(header) :] for chunk in found]
    assert all(body.strip() for body in bodies)
    position = 0
    for body in bodies:
        at = text.index(body, position)
        assert text[position:at].strip() == ""  # only white space may be left out, and only as a whole chunk
        position = at + len(body)
    assert text[position:].strip() == ""
    return bodies


@settings(max_examples=120, deadline=None)
@given(text=texts, row_length=st.sampled_from([32, 48, 128]))
@example(text="x" * 5000, row_length=32)
@example(text="🦋" * 3000, row_length=48)
@example(text="one line without an end", row_length=32)
@example(text="a\r\nb\r\n" * 40, row_length=32)
@example(text="<|im_end|>" * 50, row_length=32)
def test_every_chunk_fits_and_nothing_is_lost(tokenizer: Tokenizer, text: str, row_length: int) -> None:
    check(HEADER, text, tokenizer, row_length)


@settings(max_examples=40, deadline=None)
@given(text=texts)
def test_the_same_holds_for_sentencepiece(spm_tokenizer: Tokenizer, text: str) -> None:
    check(HEADER, text, spm_tokenizer, 48)


def test_chunks_without_their_headers_are_the_text(tokenizer: Tokenizer) -> None:
    bodies = check(HEADER, tiny.TEXT, tokenizer, 96)
    assert "".join(bodies) == tiny.TEXT
    assert len(bodies) > 5


def test_chunks_end_at_line_ends_and_are_filled(tokenizer: Tokenizer) -> None:
    text = "".join(f"line {number} of many\n" for number in range(100))
    bodies = check(HEADER, text, tokenizer, 64)
    assert "".join(bodies) == text
    assert all(body.endswith("\n") for body in bodies)
    for body, following in itertools.pairwise(bodies):
        longer = HEADER + body + following.splitlines(keepends=True)[0]
        assert len(tokenizer.encode(longer)) + 1 > 64


def test_a_line_too_long_by_itself_is_cut_at_white_space(tokenizer: Tokenizer) -> None:
    text = "caterpillar " * 160 + "\nshort\n"
    bodies = check(HEADER, text, tokenizer, 64)
    assert "".join(bodies) == text
    assert len(bodies) > 3
    assert all(body.endswith((" ", "\n")) for body in bodies)


def test_one_huge_line_stays_affordable(tokenizer: Tokenizer) -> None:
    counted = 0

    class Counting:
        def encode(self, batch: list[str]) -> list[list[int]]:
            nonlocal counted
            counted += sum(map(len, batch))
            return tokenizer.encode_batch(batch)

    text = "0123456789" * 4_000
    bodies = list(chunks("", text, Tokenizer(Counting(), tokenizer.eos_id), 256))  # type: ignore[arg-type]
    assert "".join(bodies) == text
    assert counted < 30 * len(text)


@pytest.mark.parametrize("text", ["", "\n\n", " \t\n"])
def test_blank_text_is_no_training_text(tokenizer: Tokenizer, text: str) -> None:
    assert list(chunks(HEADER, text, tokenizer, 64)) == []


def test_a_header_that_fills_the_row_is_an_error(tokenizer: Tokenizer) -> None:
    header = "# " + "very/long/" * 20 + "path.md\n\n"
    room = len(tokenizer.encode(header)) + 1
    with pytest.raises(CorpusError, match=rf"leaves 7 of {room + 7} tokens(.|\n)*raise training.row_length"):
        list(chunks(header, "text", tokenizer, room + 7))
    with pytest.raises(CorpusError, match="leaves 0 of 32 tokens"):
        list(chunks(header, "text", tokenizer, 32))
    assert list(chunks(header, "text", tokenizer, room + 8)) == [header + "text"]
