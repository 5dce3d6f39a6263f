"""Files of one's own to rows of the corpus: what goes on, what is reported, what is compared, how it is divided."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.batches.rows import form_of, write_rows
from chrysalis_mlx.blueprint.schema import DataSection, SplitSection
from chrysalis_mlx.corpus.data.compared import documents_of
from chrysalis_mlx.corpus.data.convert import DataSet, divide, missing_sides, read_data
from chrysalis_mlx.corpus.data.report import Remark, count_reasons
from chrysalis_mlx.corpus.document import Selected
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.run import write_json
from tests.tiny import TEXT

AUTO = DataSection()
ORIGIN = {"repository", "path", "framing"}


def exchange(question: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def write(path: Path, rows: Sequence[Any]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def contents(data: DataSet) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in ORIGIN} for row in data.rows]


def selected(data: DataSet) -> list[Selected]:
    """Every row a family of its own."""
    return [Selected(document, family, 1.0, 1) for family, document in enumerate(documents_of(data.rows))]


MLX_LM: dict[str, dict[str, list[dict[str, Any]]]] = {
    "text": {side: [{"text": f"{side} {i}"} for i in range(3)] for side in ("train", "valid", "test")},
    "completion": {
        side: [{"prompt": f"{side} {i}?", "completion": f"{i}."} for i in range(3)]
        for side in ("train", "valid", "test")
    },
    "messages": {
        side: [{"messages": exchange(f"{side} {i}?", f"{i}.")} for i in range(3)] for side in ("train", "valid", "test")
    },
}


@pytest.mark.parametrize("form", ["text", "completion", "messages"])
def test_a_directory_of_mlx_lm_passes_through(tmp_path: Path, form: str) -> None:
    for side, rows in MLX_LM[form].items():
        write(tmp_path / f"{side}.jsonl", rows)
    data = read_data(tmp_path, AUTO, chat=form == "messages")
    expected = [(side, row) for side in ("test", "valid", "train") for row in MLX_LM[form][side]]
    assert list(zip(data.sides, contents(data), strict=True)) == expected
    assert [(row["repository"], row["path"], row["framing"]) for row in data.rows] == [
        (f"{side}.jsonl", str(number), form) for side in ("test", "valid", "train") for number in (1, 2, 3)
    ]
    assert divide(data, AUTO, SplitSection(), lambda: pytest.fail("nothing has to be divided")) == data.sides
    assert (data.report.left_out, data.report.changed, dict(data.report.unused)) == ([], [], {})


@pytest.mark.parametrize("form", ["text", "completion", "messages"])
def test_mlx_lm_sees_the_same_tokens_in_its_files_and_in_ours(tiny_model: Path, tmp_path: Path, form: str) -> None:
    import transformers
    from mlx_lm.tuner.datasets import load_local_dataset

    (tmp_path / "theirs").mkdir()
    for side, rows in MLX_LM[form].items():
        write(tmp_path / "theirs" / f"{side}.jsonl", [row | {"id": 7} for row in rows])
    data = read_data(tmp_path / "theirs", AUTO, chat=form == "messages")
    for side in ("train", "valid", "test"):
        write_rows(
            tmp_path / f"{side}.jsonl", [row for row, own in zip(data.rows, data.sides, strict=True) if own == side]
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    config = types.SimpleNamespace(mask_prompt=form != "text")
    theirs, ours = (load_local_dataset(path, tokenizer, config) for path in (tmp_path / "theirs", tmp_path))
    for one, two in zip(theirs, ours, strict=True):
        assert [one.process(row) for row in one] == [two.process(row) for row in two]
        assert len(two) == 3


def test_keys_of_our_own_rows_cannot_come_from_outside(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "part": 1, "parts": 9, "repository": "x", "messages": None, "note": ""},
        {"text": "b", "part": 2},
    ]
    data = read_data(write(tmp_path / "rows.jsonl", rows), AUTO, chat=True)
    assert data.rows == [
        {"text": "a", "repository": "rows.jsonl", "path": "1", "framing": "text"},
        {"text": "b", "repository": "rows.jsonl", "path": "2", "framing": "text"},
    ]
    assert data.report.unused == {"part": 2, "parts": 1, "repository": 1}


def test_every_bad_row_is_reported_and_the_good_ones_go_on(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"id": 1},
        {"messages": exchange("a", "b"), "id": 2},
        "{broken",
        [1],
        {"messages": exchange("a", "")},
        {"text": "of another form"},
        {"messages": [*exchange("c", "d"), *exchange("e", "")]},
        {"messages": exchange("f", "")},
    ]
    data = read_data(write(tmp_path / "rows.jsonl", rows), AUTO, chat=True)
    assert [row["path"] for row in data.rows] == ["2", "7"]
    report = data.report.plain()
    assert report["files"] == [{"name": "rows.jsonl", "side": None, "form": "messages", "rows": 8, "kept": 2}]
    assert [(row["number"], row["reason"]) for row in report["left_out"]["rows"]] == [
        (1, "of no known form"),
        (3, "not valid JSON"),
        (4, "not a JSON object"),
        (5, "the assistant gives no answer"),
        (6, "not of the form messages"),
        (8, "the assistant gives no answer"),
    ]
    assert next(iter(report["left_out"]["reasons"].items())) == ("the assistant gives no answer", 2)
    assert report["changed"] == {
        "reasons": {"turns after the last answer were cut off": 1},
        "rows": [
            {"file": "rows.jsonl", "number": 7, "reason": "turns after the last answer were cut off", "detail": ""}
        ],
    }
    assert report["unused"] == {"id": 1}
    assert json.loads(json.dumps(report)) == report


def test_halves_of_characters_anywhere_do_not_keep_the_report_from_being_written(tmp_path: Path) -> None:
    lines = ['{"text": "good", "key\\ud800": 1}', '["\\ud800"]', '{"a\\ud800": 1}', '{"text": "\\ud800"}']
    data = read_data(write(tmp_path / "rows.jsonl", lines), AUTO, chat=False)
    write_json(tmp_path / "report.json", data.report.plain())
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["unused"] == {"key\\ud800": 1}
    assert [(row["number"], row["detail"]) for row in report["left_out"]["rows"]] == [
        (2, 'it is ["\\ud800"]'),
        (3, "its keys: a\\ud800"),
        (4, "text has \\ud800"),
    ]


def test_files_of_a_directory_may_have_different_forms(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"instruction": "Why?", "output": "So."}])
    write(tmp_path / "b.jsonl", [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}])
    (tmp_path / "c.csv").write_text("question,answer\nq,a\n")
    (tmp_path / "d.txt").write_text("a whole text")
    data = read_data(tmp_path, AUTO, chat=True)
    assert [(row["framing"], form_of(row)) for row in data.rows] == [
        ("alpaca", "messages"),
        ("sharegpt", "messages"),
        ("completion", "messages"),
        ("text", "text"),
    ]
    assert data.rows[2]["path"] == "2"


def test_a_form_that_is_asked_for_is_not_guessed(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b", "text": "ab"}, {"prompt": "a", "completion": "b"}]
    data = read_data(write(tmp_path / "rows.jsonl", rows), DataSection(form="text"), chat=True)
    assert contents(data) == [{"text": "ab"}]
    assert count_reasons(data.report.left_out) == {"not of the form text": 1}


def test_nothing_left_is_an_error_that_lists_the_first_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"chosen": "a", "rejected": "b"}] * 12)
    with pytest.raises(CorpusError) as caught:
        read_data(path, AUTO, chat=True)
    message = str(caught.value)
    assert "none of the rows can be learned from" in message
    assert "rows.jsonl, row 10: a preference row (chosen, rejected)" in message
    assert "row 11" not in message
    assert "and 2 more" in message
    with pytest.raises(CorpusError, match="there are none"):
        read_data(write(tmp_path / "empty.jsonl", []), AUTO, chat=True)


def test_good_rows_of_another_side_are_not_enough(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ['{"text"'])
    write(tmp_path / "valid.jsonl", [{"text": "good"}])
    with pytest.raises(CorpusError, match=r"none of the rows to train on.*\n.*train.jsonl, row 1: not valid JSON"):
        read_data(tmp_path, AUTO, chat=True)


def test_a_base_model_learns_no_conversations(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"messages": exchange("a", "b")}])
    with pytest.raises(CorpusError, match="the model has no chat template"):
        read_data(path, AUTO, chat=False)


def test_rows_can_be_dropped_by_their_place(tmp_path: Path) -> None:
    for side, rows in MLX_LM["text"].items():
        write(tmp_path / f"{side}.jsonl", rows)
    data = read_data(tmp_path, AUTO, chat=False).kept([0, 4, 8])
    assert data.sides == ["test", "valid", "train"]
    assert [row["text"] for row in data.rows] == ["test 0", "valid 1", "train 2"]


WORDS = [f"{word} stands alone with nothing but itself and {word[::-1]}" for word in dict.fromkeys(TEXT.split())]


def test_a_file_without_sides_is_divided_by_families(tmp_path: Path) -> None:
    data = read_data(write(tmp_path / "rows.jsonl", [{"text": text} for text in WORDS[:40]]), AUTO, chat=False)
    assert missing_sides(data, AUTO) == ["train", "valid", "test"]
    families = selected(data)
    families[:20] = [dataclasses.replace(item, family=0) for item in families[:20]]
    sides = divide(data, AUTO, SplitSection(valid=0.1, test=0.1), lambda: families)
    assert len(set(sides[:20])) == 1
    assert sorted(set(sides)) == ["test", "train", "valid"]
    assert data.report.notes == ["the rows were divided: no sides were given"]


def test_rows_that_are_all_alike_cannot_be_divided(tmp_path: Path) -> None:
    data = read_data(write(tmp_path / "rows.jsonl", [{"text": text} for text in WORDS[:9]]), AUTO, chat=False)
    alike = [dataclasses.replace(item, family=0) for item in selected(data)]
    with pytest.raises(CorpusError, match=r"9 row\(s\) to divide are too few, or too much alike[\s\S]*train\.jsonl"):
        divide(data, AUTO, SplitSection(), lambda: alike)


def test_a_book_goes_on_from_passage_to_passage(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("a line of the book\n" * 2000)
    data = read_data(tmp_path / "book.txt", AUTO, chat=False)
    assert [(row["part"], row["parts"]) for row in data.rows] == [(1, 3), (2, 3), (3, 3)]
    (tmp_path / "note.txt").write_text("short\n")
    assert "part" not in read_data(tmp_path / "note.txt", AUTO, chat=False).rows[0]


def test_what_cannot_be_read_is_told_the_forms(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("Frage,Antwort\na,b\n")
    with pytest.raises(CorpusError, match=r"its keys: Frage, Antwort[\s\S]*prompt or question or query or input with"):
        read_data(tmp_path / "rows.csv", AUTO, chat=False)


@pytest.mark.parametrize("missing", [["test"], ["valid"], ["valid", "test"]])
def test_a_side_that_no_file_has_is_taken_from_train(tmp_path: Path, missing: list[str]) -> None:
    write(tmp_path / "train.jsonl", [{"text": text} for text in WORDS[:40]])
    for side in {"valid", "test"} - set(missing):
        write(tmp_path / f"{side}.jsonl", [{"text": f"{side} {i}"} for i in range(5)])
    data = read_data(tmp_path, AUTO, chat=False)
    assert missing_sides(data, AUTO) == missing
    sides = divide(data, AUTO, SplitSection(valid=0.1, test=0.1), lambda: selected(data))
    for was, now in zip(data.sides, sides, strict=True):
        assert now == was or (was == "train" and now in missing)
    assert {side: sides.count(side) for side in missing} == dict.fromkeys(missing, 4)
    taken = " and ".join(f"4 for {side}" for side in missing)
    assert data.report.notes == [
        f"no rows were given for {' and '.join(missing)}; of those to train on were taken: {taken}"
    ]


def test_the_section_decides_between_own_sides_and_families(tmp_path: Path) -> None:
    rows = [{"text": text} for text in WORDS[:40]]
    for side in ("train", "valid", "test"):
        write(tmp_path / f"{side}.jsonl", rows if side == "train" else [{"text": side}])
    data = read_data(tmp_path, AUTO, chat=False)
    assert missing_sides(data, DataSection(split="own")) == []
    assert missing_sides(data, DataSection(split="families")) == ["train", "valid", "test"]
    sides = divide(data, DataSection(split="families"), SplitSection(), lambda: selected(data))
    assert sides != data.sides
    single = read_data(tmp_path / "train.jsonl", AUTO, chat=False)
    with pytest.raises(CorpusError, match="no sides of their own"):
        missing_sides(single, DataSection(split="own"))


def test_a_remark_reads_as_a_sentence() -> None:
    assert str(Remark("a.csv", 7, "a text is empty", "prompt")) == "a.csv, row 7: a text is empty (prompt)"
    assert str(Remark("a.csv", 7, "the user says nothing")) == "a.csv, row 7: the user says nothing"
