"""Text from tokens, one at a time."""

from __future__ import annotations

import itertools

import pytest

from chrysalis_mlx.inference.decoding import Decoder
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny

TEXT = tiny.TEXT + "  two  spaces\n\n\ttab 👩‍👩‍👧 é 𝄞 end"


def pieces(decoder: Decoder, ids: list[int]) -> list[str]:
    return [*(decoder.add(id) for id in ids), decoder.rest()]


@pytest.mark.parametrize("kind", ["tokenizer", "spm_tokenizer"])
def test_the_pieces_are_the_text_and_none_is_half_a_character(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    ids = tokenizer.encode(TEXT, special=False)
    for cut in (0, 1, 7, 40):
        before = tokenizer.decode(ids[:cut])
        found = pieces(Decoder(tokenizer, ids[:cut]), ids[cut:])
        assert "".join(found) == TEXT[len(before) :]
        assert not any("\ufffd" in piece for piece in found)
    # More tokens than pieces: the parts of an emoji were kept back.
    assert found.count("") > 5


def test_a_word_of_sentencepiece_keeps_its_space_behind_another_text(spm_tokenizer: Tokenizer) -> None:
    before, ids = spm_tokenizer.encode("The", special=False), spm_tokenizer.encode("larva eats", special=False)
    assert "".join(pieces(Decoder(spm_tokenizer, before), ids)) == " larva eats"
    assert "".join(pieces(Decoder(spm_tokenizer), ids)) == "larva eats"


@pytest.mark.parametrize("kind", ["tokenizer", "spm_tokenizer"])
def test_half_a_character_at_the_end_stays_away(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    ids = tokenizer.encode("wings 𝄞", special=False)
    assert "".join(pieces(Decoder(tokenizer), ids)) == "wings 𝄞"
    assert "".join(pieces(Decoder(tokenizer), ids[:-1])) == "wings "


def test_bytes_that_never_become_a_character_are_shown_once_it_is_sure(tokenizer: Tokenizer) -> None:
    half = tokenizer.encode("𝄞", special=False)[0]
    letter = tokenizer.encode("a", special=False)[0]
    decoder = Decoder(tokenizer)
    assert decoder.add(half) == ""
    assert decoder.add(letter) == "\ufffda"
    assert decoder.add(letter) == "a"


def test_each_character_comes_as_soon_as_it_is_whole(tokenizer: Tokenizer) -> None:
    decoder, so_far = Decoder(tokenizer), ""
    ids = tokenizer.encode("def transform", special=False)
    for n, id in enumerate(ids, 1):
        so_far += decoder.add(id)
        assert so_far == tokenizer.decode(ids[:n])


@pytest.mark.parametrize("kind", ["tokenizer", "spm_tokenizer"])
def test_bytes_that_are_no_text_do_not_stop_the_text(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    half, good = tokenizer.encode("x𝄞", special=False)[-1], tokenizer.encode("é wings", special=False)
    decoder = Decoder(tokenizer)
    shown = [decoder.add(id) for id in [half] * 7]
    assert shown[:4] == [""] * 4
    assert shown[4] == "\ufffd" * 5
    text = "".join(pieces(decoder, [*good, *good]))
    assert text.endswith("wings")
    assert len(text) > len("é wings")


def test_tokens_that_end_one_character_and_begin_the_next(tokenizer: Tokenizer) -> None:
    """No such tokens are in this vocabulary: they are put together from its bytes."""

    class Staggered:
        def __init__(self, parts: list[list[int]]) -> None:
            self.parts = parts

        def decode(self, ids: list[int]) -> str:
            return tokenizer.decode([token for id in ids for token in self.parts[id]])

    text = "𝄞𝄞𝄞𝄞𝄞𝄞"
    ids = tokenizer.encode(text, special=False)
    size = len(ids) // 6
    assert size > 1
    cuts = [0, *range(1, len(ids), size), len(ids)]
    parts = [ids[start:end] for start, end in itertools.pairwise(cuts)]
    decoder = Decoder(Staggered(parts))  # type: ignore[arg-type]
    shown = [decoder.add(id) for id in range(len(parts))]
    assert shown[0] == ""
    assert "".join(shown) + decoder.rest() == text
    assert not any("\ufffd" in piece for piece in shown)
    assert shown[1:3] == ["𝄞", "𝄞"]
