"""Code with holes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame import fim
from chrysalis_mlx.corpus.frame.chunks import fit
from chrysalis_mlx.models.tokenizer import FimTokens, Tokenizer
from tests import tiny

TOKENS = FimTokens("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
CODE = "".join(f"def f{number}(x):\n    return x * {number}\n\n" for number in range(40))


@pytest.fixture(scope="module")
def fim_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The tiny tokenizer with StarCoder's three tokens."""
    directory: Path = tiny.byte_level_bpe(tmp_path_factory.mktemp("fim"))
    content = json.loads((directory / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] += [
        {"id": 512 + index, "content": token, **flags}
        for index, token in enumerate((TOKENS.prefix, TOKENS.suffix, TOKENS.middle))
    ]
    (directory / "tokenizer.json").write_text(json.dumps(content))
    return Tokenizer.open(directory)


def filled(text: str) -> str:
    """The code of a row, its hole filled."""
    nothing, rest = text.split(TOKENS.prefix)
    before, rest = rest.split(TOKENS.suffix)
    after, middle = rest.split(TOKENS.middle)
    assert not nothing
    assert middle.strip()
    return before + middle + after


def test_rows_with_their_holes_filled_are_the_code(fim_tokenizer: Tokenizer) -> None:
    assert fim_tokenizer.fim == TOKENS
    document = Document("repo", "src/m.py", CODE)
    rows = fit(fim.passages(document, fim_tokenizer.fim, 0, 0), fim_tokenizer, 200)
    assert len(rows) > 3
    assert "".join(filled(row["text"]) for row in rows) == CODE
    for segment in segments(rows, fim_tokenizer):
        assert len(segment.tokens) <= 200
        assert segment.tokens[-1] == fim_tokenizer.eos_id
        assert sorted(set(segment.tokens.tolist()) & {512, 513, 514}) == [512, 513, 514]
    assert rows == fit(fim.passages(document, fim_tokenizer.fim, 0, 0), fim_tokenizer, 200)


def test_another_draw_or_seed_has_other_holes(fim_tokenizer: Tokenizer) -> None:
    document = Document("repo", "src/m.py", CODE)
    texts = {
        fit(fim.passages(document, TOKENS, seed, draw), fim_tokenizer, 4000)[0]["text"]
        for seed, draw in ((0, 0), (0, 1), (1, 0))
    }
    assert len(texts) == 3


@pytest.mark.parametrize("path", ["a.md", "a.txt", "Makefile", "a.json"])
def test_only_code_is_framed(path: str) -> None:
    assert fim.passages(Document("repo", path, CODE), TOKENS, 0, 0) == []


def test_what_cannot_have_a_hole_is_not_framed() -> None:
    assert fim.passages(Document("repo", "a.py", CODE), None, 0, 0) == []
    assert fim.passages(Document("repo", "a.py", " \n"), TOKENS, 0, 0) == []
    assert fim.passages(Document("repo", "a.py", f"x = '{TOKENS.middle}'"), TOKENS, 0, 0) == []


def test_three_of_four_holes_are_whole_lines_and_none_is_too_large() -> None:
    whole = 0
    for key in range(400):
        start, end = fim.hole(CODE, str(key))
        middle = CODE[start:end]
        assert middle.strip()
        assert middle.count("\n") <= CODE.count("\n") // 2
        at_lines = CODE[start - 1 : start] in ("", "\n") and middle.endswith("\n")
        assert at_lines or "\n" not in middle
        whole += at_lines
    assert 260 < whole < 340


@given(st.text(max_size=80), st.text(max_size=5))
def test_a_hole_lies_in_the_text(text: str, key: str) -> None:
    start, end = fim.hole(text, key)
    assert 0 <= start <= end <= len(text)
    assert bool(text[start:end].strip()) == bool(text.strip())
