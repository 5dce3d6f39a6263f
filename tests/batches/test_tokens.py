"""JSONL rows to segments."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.tuner.datasets import ChatDataset

from chrysalis_mlx.batches.tokens import Segment, read_segments, segments
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny


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


def test_too_long_a_row_is_an_error_with_its_number(tmp_path: Path, tokenizer: Tokenizer) -> None:
    text = "caterpillar dissolve " * 9
    file = write(tmp_path / "train.jsonl", {"text": "short"}, "", {"text": text})
    count = len(tokenizer.encode(text)) + 1
    with pytest.raises(CorpusError, match=rf"a row has {count} tokens, training.row_length is {count - 1}") as caught:
        read_segments(file, tokenizer, count - 1)
    assert caught.value.where == f"{file}, row 2"
    assert len(read_segments(file, tokenizer, count)) == 2


@pytest.mark.parametrize("line", ["not json", "[]", "3", '{"prompt": "x"}', '{"text": 3}', '{"text": "cut'])
def test_a_line_that_is_no_row_is_an_error_with_its_line(tmp_path: Path, tokenizer: Tokenizer, line: str) -> None:
    file = write(tmp_path / "train.jsonl", {"text": "fine"}, line)
    with pytest.raises(CorpusError, match="not a JSON object with a text") as caught:
        read_segments(file, tokenizer, 64)
    assert caught.value.where == f"{file}, line 2"


def test_an_empty_file_is_an_error(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(CorpusError, match="the corpus file is empty"):
        read_segments(write(tmp_path / "valid.jsonl"), tokenizer, 64)


def learned(tokenizer: Tokenizer, segment: Segment) -> str:
    return tokenizer.decode(segment.tokens[segment.supervised].tolist())


def test_only_the_completion_is_learned(tokenizer: Tokenizer) -> None:
    row = {"prompt": "wings of 東京\n", "completion": " are orange 🦋"}
    whole, part, empty = segments([row, row | {"part": 1, "parts": 2}, row | {"completion": ""}], tokenizer)
    assert whole.tokens.tolist() == [*tokenizer.encode(row["prompt"] + row["completion"]), 2]
    assert part.tokens.tolist() == whole.tokens.tolist()[:-1]
    assert (learned(tokenizer, whole), learned(tokenizer, part)) == (" are orange 🦋<|im_end|>", " are orange 🦋")
    assert learned(tokenizer, empty) == "<|im_end|>"


def test_a_token_that_reaches_into_the_completion_is_learned(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(" caterpillar")) == 1
    (segment,) = segments([{"prompt": "The cater", "completion": "pillar", "part": 1, "parts": 2}], tokenizer)
    assert learned(tokenizer, segment) == " caterpillar"


def test_the_first_token_is_never_learned(tokenizer: Tokenizer, spm_tokenizer: Tokenizer) -> None:
    rows = [{"prompt": "", "completion": "The caterpillar"}, {"text": "The caterpillar"}]
    for segment in segments(rows, tokenizer) + segments(rows, spm_tokenizer):
        assert segment.supervised.tolist() == [False] + [True] * (len(segment.tokens) - 1)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_all_of_a_completion_is_learned_whatever_it_is(
    tokenizer: Tokenizer, spm_tokenizer: Tokenizer, prompt: str, completion: str
) -> None:
    for each in (tokenizer, spm_tokenizer):
        (segment,) = segments([{"prompt": prompt, "completion": completion}], each)
        (alone,) = segments([{"text": prompt + completion}], each)
        assert segment.tokens.tolist() == alone.tokens.tolist()
        count = int(segment.supervised.sum())
        assert segment.supervised[-count:].all()  # nothing of the prompt lies in between
        encoded = each.encode_spans([prompt + completion])[0]
        inside = int((encoded.spans[:, 1] > len(prompt)).sum())
        assert count == min(inside + (len(alone.tokens) > len(encoded.ids)), len(alone.tokens) - 1)


TALK = [
    {"role": "user", "content": "What is a larva?"},
    {"role": "assistant", "content": "An insect 🐛."},
    {"role": "user", "content": "An insect 🐛."},
    {"role": "assistant", "content": "東京"},
]


@pytest.mark.parametrize("count", [2, 4])
def test_a_conversation_has_the_ids_of_mlx_lm_and_every_answer_is_learned(tmp_path: Path, count: int) -> None:
    ours = Tokenizer.open(tiny.byte_level_bpe(tmp_path))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    (segment,) = segments([{"messages": TALK[:count]}], ours)
    tokens, offset = ChatDataset([], theirs, mask_prompt=True).process({"messages": TALK[:count]})
    assert segment.tokens.tolist() == tokens
    assert learned(ours, segment) == "".join(f"{turn['content']}<|im_end|>" for turn in TALK[1:count:2])
    last = tokens[: len(tokens) - tokens[::-1].index(2)]  # the line break after it is the template's
    assert np.flatnonzero(segment.supervised)[-(len(last) - offset) :].tolist() == list(range(offset, len(last)))


def test_an_answer_without_an_end_gets_the_end_token(tmp_path: Path) -> None:
    directory = tiny.byte_level_bpe(tmp_path)
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    (directory / "chat_template.jinja").write_text(template + "{% if add_generation_prompt %}assistant:{% endif %}")
    tokenizer = Tokenizer.open(directory)
    answered, asked = segments([{"messages": TALK}, {"messages": TALK[:3]}], tokenizer)
    assert (answered.tokens[-1], answered.supervised[-1]) == (2, True)
    assert learned(tokenizer, answered) == " An insect 🐛. 東京\n<|im_end|>"
    assert 2 not in asked.tokens


def test_rows_of_all_forms_keep_their_order(tokenizer: Tokenizer) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": TALK},
        {"text": "wings"},
        {"prompt": "a", "completion": "b"},
        {"text": "larva"},
        {"messages": TALK[:2]},
    ]
    together = segments(rows, tokenizer)
    for row, segment in zip(rows, together, strict=True):
        (alone,) = segments([row], tokenizer)
        assert segment.tokens.tolist() == alone.tokens.tolist()
        assert segment.supervised.tolist() == alone.supervised.tolist()


def test_a_conversation_that_cannot_be_shown_is_an_error_with_its_row(tmp_path: Path) -> None:
    directory = tiny.byte_level_bpe(tmp_path / "model")
    file = write(tmp_path / "train.jsonl", {"text": "fine"}, {"messages": [{"role": "user"}]})
    with pytest.raises(CorpusError, match="chat template refuses this conversation") as caught:
        read_segments(file, Tokenizer.open(directory), 64)
    assert caught.value.where == f"{file}, row 2"
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    with pytest.raises(CorpusError, match="the model has no chat template") as caught:
        read_segments(file, Tokenizer.open(directory), 64)
    assert caught.value.where == f"{file}, row 2"


ROWS: list[dict[str, Any]] = [
    {"messages": TALK},
    {"text": "wings 東京", "part": 1, "parts": 2},
    {"prompt": "a larva", "completion": " eats"},
]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the tokens of corpus files are kept."""
    monkeypatch.setenv("CHRYSALIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def values(segments: list[Segment]) -> list[tuple[list[int], list[bool]]]:
    assert all(segment.tokens.dtype == np.int32 and segment.supervised.dtype == np.bool_ for segment in segments)
    return [(segment.tokens.tolist(), segment.supervised.tolist()) for segment in segments]


def test_a_file_that_was_read_before_is_not_tokenized_again(
    tmp_path: Path, kept: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "train.jsonl", *ROWS)
    first = values(read_segments(file, tokenizer, 256))
    assert first == values(segments(ROWS, tokenizer))
    assert len(list(kept.iterdir())) == 1
    copy = write(tmp_path / "copy.jsonl", *ROWS)
    count = max(len(ids) for ids, _ in first)
    monkeypatch.setattr(Tokenizer, "encode_batch", None)
    monkeypatch.setattr(Tokenizer, "encode_spans", None)
    assert values(read_segments(copy, tokenizer, count)) == first
    with pytest.raises(CorpusError, match=f"training.row_length is {count - 1}"):
        read_segments(file, tokenizer, count - 1)


def test_another_file_or_another_template_has_tokens_of_its_own(tmp_path: Path, kept: Path) -> None:
    directory = tiny.byte_level_bpe(tmp_path / "model")
    file = write(tmp_path / "train.jsonl", {"messages": TALK})
    first = values(read_segments(file, Tokenizer.open(directory), 256))
    (directory / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    second = values(read_segments(file, Tokenizer.open(directory), 256))
    assert second == values(segments([{"messages": TALK}], Tokenizer.open(directory))) != first
    write(file, {"messages": TALK[:2]})
    third = values(read_segments(file, Tokenizer.open(directory), 256))
    assert third == values(segments([{"messages": TALK[:2]}], Tokenizer.open(directory)))
    assert len(list(kept.iterdir())) == 3


def test_damaged_tokens_are_made_again(tmp_path: Path, kept: Path, tokenizer: Tokenizer) -> None:
    file = write(tmp_path / "train.jsonl", *ROWS)
    expected = values(read_segments(file, tokenizer, 256))
    (path,) = kept.iterdir()
    whole = path.read_bytes()
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 11)]
    for damaged in [b"", b"not an archive", whole[: len(whole) // 2], *flipped]:
        path.write_bytes(damaged)
        assert values(read_segments(file, tokenizer, 256)) == expected
    path.write_bytes(b"")
    read_segments(file, tokenizer, 256)
    with np.load(path) as parts:
        assert parts["lengths"].tolist() == [len(ids) for ids, _ in expected]


def test_the_tokens_that_were_not_used_for_long_go(tmp_path: Path, kept: Path, tokenizer: Tokenizer) -> None:
    kept.mkdir(parents=True)
    for number in range(70):
        (kept / f"{number}.npz").touch()
        os.utime(kept / f"{number}.npz", (number, number))
    read_segments(write(tmp_path / "train.jsonl", *ROWS), tokenizer, 256)
    left = {path.stem for path in kept.iterdir()}
    assert len(left) == 64
    assert {str(number) for number in range(7, 70)} < left


def test_without_a_place_to_keep_them_tokens_are_made_each_time(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CHRYSALIS_CACHE", str(tmp_path / "file"))
    file = write(tmp_path / "train.jsonl", *ROWS)
    assert values(read_segments(file, tokenizer, 256)) == values(segments(ROWS, tokenizer))
