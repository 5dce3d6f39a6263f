"""A corpus as it is shown: what the model sees, and what of it is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrysalis_mlx.batches.tokens import Segment, segments
from chrysalis_mlx.cli.corpus_show import as_json, render, show
from chrysalis_mlx.cli.corpus_view import View, histogram, look, tokens_of
from chrysalis_mlx.models.tokenizer import Tokenizer

ROWS: list[dict[str, Any]] = [
    {"text": "wings\n", "repository": "moth", "path": "docs/a.md", "framing": "text", "part": 1, "parts": 2},
    {"text": "wings", "repository": "moth", "path": "docs/a.md", "framing": "text", "part": 2, "parts": 2},
    {"prompt": "a larva", "completion": " eats", "repository": "moth", "path": "b.py", "framing": "completion"},
    {
        "messages": [{"role": "user", "content": "larva?"}, {"role": "assistant", "content": "東京"}],
        "repository": "larva",
        "path": "README.md",
        "framing": "chat",
    },
    {"text": "larva"},
]
EXPRESSION: dict[str, Any] = {
    "report": {
        "left_out": {"gate: log_lines": 2, "copy": 1, "near copy": 1},
        "cut": 1,
        "framings": {"text": {"rows": 2, "tokens": 40, "supervised": 38}},
        "repositories": {
            "moth": {"files": 4, "expressed": 1, "tokens": 30},
            "larva": {"files": 1, "expressed": 1, "tokens": 90},
        },
    },
    "files": [
        {"repository": "moth", "path": "a.log", "expressed": False, "rule": "gate: log_lines", "score": 0.5},
        {"repository": "moth", "path": "b.log", "expressed": False, "rule": "gate: log_lines", "score": 0.75},
        {"repository": "moth", "path": "\x1b[31m.md", "expressed": False, "rule": "copy of moth/docs/a.md"},
        {"repository": "moth", "path": "c.md", "expressed": False, "rule": "near copy of copy of.md", "score": 0.875},
        {
            "repository": "moth",
            "path": "docs/a.md",
            "expressed": True,
            "rule": "include: *",
            "side": "train",
            "tokens": 3,
        },
    ],
}


def view(tokenizer: Tokenizer, **options: Any) -> View:
    return look("train", ROWS, tokenizer, **{"count": 9, "seed": 0, **options})


def shown(tokenizer: Tokenizer, row: dict[str, Any]) -> str:
    (segment,) = segments([row], tokenizer)
    return render(tokens_of(segment, tokenizer)).plain


def test_a_row_is_shown_token_by_token_with_what_is_learned_in_brackets(tokenizer: Tokenizer) -> None:
    assert shown(tokenizer, ROWS[0]) == "wings⟦↵⟧"
    assert shown(tokenizer, ROWS[1]) == "wings⟦<|im_end|>⟧"
    assert shown(tokenizer, ROWS[2]) == "a│·l│ar│va⟦·e│at│s│<|im_end|>⟧"
    assert shown(tokenizer, ROWS[3]) == (
        "<|im_start|>│u│s│er│↵│\nlar│va│?│<|im_end|>│↵│\n<|im_start|>│as│s│ist│an│t│↵\n⟦東京₁│東京₂│東京₃│<|im_end|>⟧↵"
    )


def test_sentencepiece_keeps_the_spaces_of_its_tokens(spm_tokenizer: Tokenizer) -> None:
    assert shown(spm_tokenizer, {"prompt": "a b", "completion": " b 👩"}) == "<s>│·a│·b⟦·b│·│👩₁│👩₂│👩₃│👩₄│</s>⟧"


def test_a_terminal_shows_control_characters_and_does_not_obey_them(tokenizer: Tokenizer) -> None:
    assert (
        shown(tokenizer, {"text": "\x1b[31m\t\u202e"}).replace("│", "") == r"\x1b⟦[31m→\u202e₁\u202e₂\u202e₃<|im_end|>⟧"
    )


def test_colours_say_the_same_as_the_brackets(tokenizer: Tokenizer) -> None:
    (segment,) = segments([ROWS[2]], tokenizer)
    text = render(tokens_of(segment, tokenizer))
    green = "".join(text.plain[span.start : span.end] for span in text.spans if span.style == "green")
    assert green == "·eats"
    special = [text.plain[span.start : span.end] for span in text.spans if "reverse" in str(span.style)]
    assert special == ["<|im_end|>"]


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_no_token_is_lost_and_no_character_either(tokenizer: Tokenizer, spm_tokenizer: Tokenizer, content: str) -> None:
    for each in (tokenizer, spm_tokenizer):
        (segment,) = segments([{"text": content}], each)
        tokens = tokens_of(segment, each)
        assert [token.id for token in tokens] == segment.tokens.tolist()
        assert [token.supervised for token in tokens] == segment.supervised.tolist()
        text = "".join(token.text for token in tokens if token.part < 2 and not token.special)
        assert text.lstrip(" ") == content.lstrip(" ")  # SentencePiece puts one before


def test_bytes_that_are_no_character_are_tokens_of_their_own(tokenizer: Tokenizer) -> None:
    half = tokenizer.encode("🦋")[:1] * 3
    tokens = tokens_of(Segment(np.asarray(half, np.int32), np.zeros(3, np.bool_)), tokenizer)
    assert [(token.text, token.part) for token in tokens] == [("\ufffd", 0)] * 3


def test_rows_are_drawn_by_seed_and_stay_in_order(tokenizer: Tokenizer) -> None:
    def numbers(**options: Any) -> list[int]:
        return [number for number, _, _ in view(tokenizer, **options).samples]

    assert numbers() == [1, 2, 3, 4, 5]
    drawn = [numbers(count=2, seed=seed) for seed in range(8)]
    assert drawn == [numbers(count=2, seed=seed) for seed in range(8)]
    assert all(a < b for a, b in drawn)
    assert len({tuple(pair) for pair in drawn}) > 2
    assert numbers(count=0) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"framing": "chat"}, [4]),
        ({"framing": "text"}, [1, 2, 5]),
        ({"path": "docs/*"}, [1, 2]),
        ({"path": "moth/*"}, [1, 2, 3]),
        ({"path": "*.md", "framing": "chat"}, [4]),
        ({"path": "nowhere"}, []),
    ],
)
def test_rows_can_be_asked_for_by_framing_and_path(
    tokenizer: Tokenizer, options: dict[str, str], expected: list[int]
) -> None:
    found = view(tokenizer, **options)
    assert found.numbers == expected
    assert [number for number, _, _ in found.samples] == expected


def test_lengths_are_those_of_what_is_trained_on(tokenizer: Tokenizer) -> None:
    made = segments(ROWS, tokenizer)
    found = view(tokenizer)
    assert found.lengths == [len(segment.tokens) for segment in made]
    assert found.supervised == [int(segment.supervised.sum()) for segment in made]
    assert (found.rows, found.cut) == (5, 2)


def test_a_histogram_counts_every_length_once() -> None:
    assert histogram([1, 2, 2, 3]) == [(1, 1, 1), (2, 2, 2), (3, 3, 1)]
    assert histogram([17, 1]) == [(1, 2, 1), *[(n, n + 1, 0) for n in range(3, 17, 2)], (17, 18, 1)]
    bins = histogram(list(range(1, 1025)))
    assert [count for _, _, count in bins] == [64] * 16
    assert histogram([]) == []


def test_what_is_printed_fits_a_pipe(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    show(view(tokenizer), EXPRESSION, files=True)
    printed = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in printed.splitlines() if line.strip()]
    assert "\x1b" not in printed
    assert lines[2:4] == ["larva 1 1 90 75.0%", "moth 4 1 30 25.0%"]
    assert lines[lines.index("left out by files score") + 2 :][:3] == [
        "gate: log_lines 2 0.5 to 0.75",
        "copy 1",
        "near copy 1 0.875 to 0.875",
    ]
    assert r"out copy of moth/docs/a.md moth/\x1b[31m.md" in lines
    assert "train include: * 3 moth/docs/a.md" in lines
    assert "texts that are cut into several rows: 1" in lines
    assert "train: 5 rows, 37 tokens, 12 of them learned (32.4%)" in lines
    assert "row 3 of 5 · completion · moth/b.py · 8 tokens, 4 learned" in lines
    assert "row 1 of 5 · text · moth/docs/a.md · part 1 of 2 · 2 tokens, 1 learned" in lines
    assert "a│·l│ar│va⟦·e│at│s│<|im_end|>⟧" in lines


def test_nothing_that_matches_is_said(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    show(view(tokenizer, path="nowhere"), {})
    assert capsys.readouterr().out == "none of the 5 rows of train matches\n"


def test_json_says_the_same(tokenizer: Tokenizer) -> None:
    found = as_json(view(tokenizer, framing="completion"), EXPRESSION, files=True, path="*.log")
    assert found["rows"] == {"all": 5, "matching": 1, "cut": 0}
    assert found["tokens"] == {"all": 8, "supervised": 4}
    assert found["rules"][0] == {"rule": "gate: log_lines", "files": 2, "lowest": 0.5, "highest": 0.75}
    assert [file["path"] for file in found["files"]] == ["a.log", "b.log"]
    (sample,) = found["samples"]
    assert (sample["row"], sample["framing"], sample["origin"]) == (3, "completion", "moth/b.py")
    assert [token["text"] for token in sample["tokens"] if token["supervised"]] == [" e", "at", "s", "<|im_end|>"]
    assert sample["tokens"][-1] == {"id": 2, "text": "<|im_end|>", "special": True, "supervised": True}
