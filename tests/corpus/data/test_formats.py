"""Files of every format, whole and broken, to records with their numbers."""

from __future__ import annotations

import csv
import gzip
import json
import random
import string
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrysalis_mlx.corpus.data.files import find_files
from chrysalis_mlx.corpus.data.formats import Record, read_records
from chrysalis_mlx.errors import CorpusError

TURNS = [{"role": "user", "content": "Why?"}, {"role": "assistant", "text": "So.", "content": "So."}]
SHAREGPT = [{"from": "human", "value": "Why?", "text": "Why?"}, {"from": "gpt", "value": "So."}]
ROWS = [{"text": "first"}, {"text": 'two\nlines, a comma; a "quote", 日本 🦋'}, {"text": "last"}]


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def values(path: Path) -> list[dict[str, Any] | None]:
    return [record.value for record in read_records(path)]


def jsonl(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_holds_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    if suffix == ".jsonl":
        put(path, jsonl(ROWS))
    elif suffix == ".json":
        put(path, json.dumps(ROWS, indent=1))
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["text"], delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(ROWS)
    assert values(path) == ROWS


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt"])
def test_compressed_files_are_read_as_the_others(tmp_path: Path, name: str) -> None:
    content = {"rows.jsonl": jsonl(ROWS), "rows.json": json.dumps(ROWS), "rows.csv": "text\na\n", "rows.txt": "a\n\nb"}
    plain = put(tmp_path / name, content[name])
    packed = put(tmp_path / f"{name}.gz", gzip.compress(content[name].encode()))
    assert list(read_records(packed)) == list(read_records(plain))
    assert [file.name for file in find_files(packed)[0]] == [f"{name}.gz"]


def test_a_damaged_compressed_file_is_an_error(tmp_path: Path) -> None:
    packed = put(tmp_path / "rows.jsonl.gz", gzip.compress(jsonl(ROWS).encode())[:-12])
    with pytest.raises(CorpusError, match="damaged"):
        values(packed)
    with pytest.raises(CorpusError, match="damaged: Not a gzipped file"):
        values(put(tmp_path / "other.jsonl.gz", jsonl(ROWS)))


def test_json_lines_are_numbered_by_line_and_go_on_after_a_bad_one(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.jsonl", '\ufeff{"text": "a"}\r\n\n  \n{"text": \n["text"]\n{"text": "line\u2028one"}')
    first, broken, listed, last = read_records(path)
    assert first == Record(1, {"text": "a"})
    assert (broken.number, broken.value, broken.reason) == (4, None, "not valid JSON")
    assert "column" in broken.detail
    assert listed == Record(5, None, "not a JSON object", 'it is ["text"]')
    assert last == Record(6, {"text": "line\u2028one"})


@pytest.mark.parametrize("content", ['\n{\n "text": "a"\n}\n', '[{"text": "a"}]', "[\n]"])
def test_json_over_several_lines_is_no_json_lines(tmp_path: Path, content: str) -> None:
    with pytest.raises(CorpusError, match=r"a JSON list, or an object over several lines[\s\S]*name the file \.json"):
        values(put(tmp_path / "rows.jsonl", content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (json.dumps({"version": "1", "data": ROWS}), ROWS),
        (jsonl(ROWS), ROWS),
        (json.dumps(ROWS[0]) + "\n\n" + json.dumps(ROWS[1]), ROWS[:2]),
        ("\ufeff[]", []),
        ('[{"text": "a"}, 3]', [{"text": "a"}, None]),
        ('{"text": "alone"}', [{"text": "alone"}]),
        (json.dumps({"messages": TURNS}), [{"messages": TURNS}]),
        (json.dumps({"conversations": SHAREGPT, "tags": ["a"]}), [{"conversations": SHAREGPT, "tags": ["a"]}]),
        (json.dumps({"text": "all of them", "rows": ROWS}), ROWS),
    ],
)
def test_json_holds_a_list_or_an_object_with_one_or_json_lines(
    tmp_path: Path, content: str, expected: list[Any]
) -> None:
    assert values(put(tmp_path / "rows.json", content)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"},\n {"text" "b"}]', r"not valid JSON: Expecting ':' delimiter\n.*line 2, column 10"),
        ('{"a": [], "b": []}', "is no row, and holds 2 lists"),
        ('{"a": 1}', "is no row, and holds 0 lists"),
        ('"text"', "neither a list nor an object"),
        ("", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_of_another_kind_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        values(put(tmp_path / "rows.json", content))


def test_csv_rows_are_numbered_by_the_line_where_they_begin(tmp_path: Path) -> None:
    content = '\ufeffprompt;completion\r\n"a; b";"one\r\ntwo"\r\n\r\nonly one\r\n"x"y;z\r\nlast;row\r\n'
    assert list(read_records(put(tmp_path / "rows.csv", content))) == [
        Record(2, {"prompt": "a; b", "completion": "one\ntwo"}),
        Record(5, None, "not as many fields as the header", "1 for 2"),
        Record(6, None, "not valid CSV", "';' expected after '\"'"),
        Record(7, {"prompt": "last", "completion": "row"}),
    ]


def test_csv_fields_may_be_longer_than_the_csv_module_allows_by_itself(tmp_path: Path) -> None:
    long = "word " * 100_000
    assert values(put(tmp_path / "rows.csv", f'text\n"{long}"\n')) == [{"text": long}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('text\n"a"\n"opened\nb\nc\n', r"never closed\n.*line 3"),
        ("text,text\na,b\n", "stands there twice"),
        ("\na\n", "header cannot be read: it is empty"),
    ],
)
def test_csv_that_cannot_be_read_on_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        values(put(tmp_path / "rows.csv", content))


@given(
    table=st.lists(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8), min_size=2, max_size=2),
        max_size=8,
    ),
    delimiter=st.sampled_from(",;\t"),
)
def test_whatever_the_csv_module_writes_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], delimiter: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([["prompt", "completion"], *table])
    records = list(read_records(path))
    assert [record.value for record in records] == [{"prompt": a, "completion": b} for a, b in table]
    lines = path.read_text(encoding="utf-8").split("\n")
    assert all(lines[record.number - 1].startswith('"') for record in records)


def test_parquet_rows_are_numbered_and_their_turns_lose_what_is_null(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": str(i), "tool_calls": None}], "note": None} for i in range(2500)]
    schema = pyarrow.schema(
        [
            (
                "messages",
                pyarrow.list_(
                    pyarrow.struct(
                        {"role": pyarrow.string(), "content": pyarrow.string(), "tool_calls": pyarrow.string()}
                    )
                ),
            ),
            ("note", pyarrow.string()),
        ]
    )
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path)
    records = list(read_records(path))
    assert [record.number for record in records] == list(range(1, 2501))
    assert records[1500].value == {"messages": [{"role": "user", "content": "1500"}], "note": None}


def test_a_file_that_is_no_parquet_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="parquet file cannot be read"):
        values(put(tmp_path / "rows.parquet", "PAR1 but no more"))


def test_parquet_without_pyarrow_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)  # what makes Python's own import fail
    with pytest.raises(CorpusError, match=r'pip install "chrysalis-mlx\[parquet\]"'):
        values(put(tmp_path / "rows.parquet", ""))


def test_a_text_file_is_one_text(tmp_path: Path) -> None:
    assert list(read_records(put(tmp_path / "a.txt", "\ufeffone\r\n\r\ntwo\n"))) == [
        Record(1, {"text": "one\n\ntwo\n"})
    ]


@pytest.mark.parametrize("paragraph", ["a line of the book\r\n" * 20 + "\r\n", "a line of the book\n"])
def test_a_text_file_alone_becomes_passages_that_lose_nothing(tmp_path: Path, paragraph: str) -> None:
    path = put(tmp_path / "book.txt", paragraph * (100_000 // len(paragraph)))
    [file] = find_files(path)[0]
    records = list(read_records(path, alone=file.alone))
    texts = [record.value["text"] for record in records if record.value]
    [whole] = values(path)
    assert whole == {"text": "".join(texts)}
    assert all(8000 <= len(text) <= 16_500 for text in texts[:-1])
    assert [record.number for record in records[1:]] == [
        "".join(texts[:place]).count("\n") + 1 for place in range(1, len(texts))
    ]
    assert [record.ends for record in records] == [False] * (len(records) - 1) + [True]
    assert ("\r" in paragraph) == all(text.endswith("\n\n") for text in texts)


def test_a_short_text_file_alone_is_one_text(tmp_path: Path) -> None:
    path = put(tmp_path / "note.txt", "one\n\ntwo")
    assert list(read_records(path, alone=True)) == list(read_records(path)) == [Record(1, {"text": "one\n\ntwo"})]
    assert list(read_records(put(path, "\n" * 9000), alone=True)) == [Record(1, {"text": "\n" * 8192}, ends=False)]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".txt"])
def test_another_encoding_is_an_error_with_line_and_byte(tmp_path: Path, suffix: str) -> None:
    path = put(tmp_path / f"rows{suffix}", '{"text": "a"}\n{"text": "café"}\n'.encode("latin-1"))
    with pytest.raises(CorpusError, match=r"not UTF-8.*\n.*line 2, byte 14 \(0xe9\)"):
        values(path)
    with pytest.raises(CorpusError, match="UTF-16"):
        values(put(path, '{"text": "a"}'.encode("utf-16")))


def test_random_bytes_are_records_or_a_corpus_error_and_nothing_else(tmp_path: Path) -> None:
    source = random.Random(0)
    seen = refused = 0
    for suffix in (".jsonl", ".json", ".csv", ".txt", ".parquet", ".jsonl.gz"):
        for _ in range(50):
            text = "".join(source.choices(string.printable + '"{}[],\n', k=source.randrange(60)))
            try:
                seen += len(values(put(tmp_path / f"rows{suffix}", text)))
            except CorpusError:
                refused += 1
    assert (seen > 50, refused > 50) == (True, True)
