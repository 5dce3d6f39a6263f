"""What is worth a question."""

from __future__ import annotations

import hashlib

import pytest

from chrysalis_mlx.corpus.frame.prose import has_word, is_worded

DIGEST = hashlib.sha256(b"larva").hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "Discs are cells, already there in 2024: see [the paper](https://example.org/discs).",
        "for (int i = 0; i < n; i++) {\n    total += weights[i];\n}",
        "蝶の幼虫は蛹になり、やがて羽化して空を飛ぶようになる。それは一つの生命の変わり目であり、始まりでもある。",
        "इल्ली तितली बन जाती है और उड़ जाती है।",
        '<p align="center"><b>Larva</b></p>',
    ],
)
def test_words(text: str) -> None:
    assert is_worded(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"2025-12-22T23:38:10.720+00:00\n{DIGEST[:60]}",
        f"larva.md {DIGEST}",
        "abcdefgh" * 40,
        "[[1.5, 2.5], [3, 4]]",
        "| 19 | https://example.org/en/news/of-the-larva-which-becomes-a-butterfly |\n" * 3,
        '# <p align="center"> --- </p>',
        "+----+----+\n| a1 | b2 |\n+----+----+",
    ],
)
def test_no_words(text: str) -> None:
    assert not is_worded(text)


def test_words_stand_outside_of_tags() -> None:
    assert has_word("<b>7</b>")
    assert not has_word('# <p align="center"> --- </p>')
