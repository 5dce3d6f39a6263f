"""`--data`: from rows of one's own to a GGUF, with every bad row told by its number."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from chrysalis_mlx.batches.tokens import read_segments
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.run import sha256_files
from tests.corpus.genomes import SIDES, ngrams, prose, rows_of, said
from tests.end_to_end.inputs import BLUEPRINT, call, finals, report

Begin = Callable[..., list[str]]
ROW_LENGTH = 128


def message_row(number: int) -> dict[str, Any]:
    asked = {"role": "user", "content": f"What is number {number}?"}
    return {"messages": [asked, {"role": "assistant", "content": prose(number, 30)}]}


def write_jsonl(path: Path, rows: Iterable[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture
def begin(tmp_path: Path, tiny_model: Path) -> Begin:
    """The arguments that begin a run of these rows, with more sections in its blueprint."""

    def arguments(command: str, data: Path, sections: str = "", run: str = "run") -> list[str]:
        blueprint = tmp_path / f"{run}.yaml"
        blueprint.write_text(
            BLUEPRINT.replace('expression: {exclude: ["logs/*"]}\n', "").replace(", Q4_K_M", "") + sections
        )
        return [command, str(tmp_path / run), f"--data={data}", f"--model={tiny_model}", f"--blueprint={blueprint}"]

    return arguments


@pytest.fixture
def conversations(tmp_path: Path) -> Path:
    """27 good conversations and 5 rows that cannot be learned from: 3, 7, 8, 20 and 30."""
    rows: list[Any] = [message_row(number) for number in range(1, 33)]
    rows[2] = '{"messages": ['
    rows[6] = {"messages": []}
    rows[7] = {"messages": [{"role": "larva", "content": "eats"}]}
    rows[19] = {"wings": 4}
    rows[29]["messages"][1]["content"] = prose(30, 300)
    return write_jsonl(tmp_path / "mine.jsonl", rows)


def test_grow_from_conversations_with_bad_rows(
    begin: Begin, conversations: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], tiny_model: Path
) -> None:
    run = tmp_path / "run"
    grown = report(capfd, *begin("grow", conversations))
    assert [stage["skipped"] for stage in grown["stages"].values()] == [False] * 4
    assert "export/model-F16.gguf" in finals(run)
    assert "genome.json" not in finals(run)
    record = json.loads((run / "run.json").read_text())
    assert record["data"] == {"path": str(conversations), "sha256": sha256_files(conversations)}
    assert "genome" not in record

    account = json.loads((run / "corpus/expression.json").read_text())
    left_out = account["data"]["left_out"]
    assert [(row["file"], row["number"]) for row in left_out["rows"]] == [
        ("mine.jsonl", number) for number in (3, 7, 8, 20, 30)
    ]
    assert all(row["reason"] and row["reason"] in left_out["reasons"] for row in left_out["rows"])
    assert left_out["rows"][4]["reason"] == "its first exchange is too long"
    told = account["report"]
    assert told == grown["stages"]["corpus"]["report"]
    assert (told["considered"], told["expressed"], told["left_out"]) == (32, 27, left_out["reasons"])
    assert sum(told["left_out"].values()) == 5
    assert told["repositories"] == {
        "mine.jsonl": {"files": 32, "expressed": 27, "tokens": sum(told["tokens"].values())}
    }
    numbers = [int(row["path"]) for side in SIDES for row in rows_of(run / f"corpus/{side}.jsonl")]
    assert sorted(numbers) == sorted({*range(1, 33)} - {3, 7, 8, 20, 30})
    tokenizer = Tokenizer.open(tiny_model)
    for side in SIDES:
        segments = read_segments(run / f"corpus/{side}.jsonl", tokenizer, ROW_LENGTH)
        assert told["tokens"][side] == sum(len(segment.tokens) for segment in segments)
        assert 0 < told["supervised"][side] == sum(int(segment.supervised.sum()) for segment in segments)

    before = {name: (run / name).stat().st_mtime_ns for name in finals(run)}
    status, out, _ = call(capfd, "grow", run, f"--data={conversations}")
    assert (status, out.count("done before, skipped")) == (0, 4)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "27 of 32 rows are expressed; see corpus/expression.json" in lines
    assert {*lines} >= {f"{reason} {count}" for reason, count in told["left_out"].items()}
    assert {name: (run / name).stat().st_mtime_ns for name in finals(run)} == before
    shown = call(capfd, "corpus", "show", run, "--rows", "0")[1]
    assert re.search(r"^ *mine\.jsonl +32 +27 ", shown, re.MULTILINE)


def test_what_is_named_later_must_be_what_the_run_was_made_of(
    begin: Begin, conversations: Path, inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    report(capfd, *begin("corpus", conversations))
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(conversations.read_bytes())
    assert report(capfd, "corpus", run, f"--data={moved}")["skipped"] is True
    moved.write_bytes(conversations.read_bytes() + b"\n")
    status, _, err = call(capfd, "corpus", run, f"--data={moved}")
    assert (status, "this run was begun with other data" in err) == (1, True)
    status, _, err = call(capfd, "corpus", run, f"--genome={inputs / 'genome.txt'}")
    assert (status, "this run was begun with another genome" in err) == (1, True)
    (run / "corpus/test.jsonl").unlink()
    conversations.write_bytes(moved.read_bytes())
    status, _, err = call(capfd, "corpus", run)
    assert (status, "the data were changed after the run began" in err) == (1, True)
    assert str(conversations) in err
    conversations.unlink()
    status, _, err = call(capfd, "corpus", run)
    assert status == 1
    assert "Traceback" not in err
    assert str(conversations) in err


def alpaca(path: Path) -> Path:
    rows = [{"instruction": f"Tell of {n}.", "input": "", "output": prose(n, 30)} for n in range(20)]
    path.with_suffix(".json").write_text(json.dumps(rows))
    return path.with_suffix(".json")


def table(path: Path) -> Path:
    with path.with_suffix(".csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["prompt", "completion"])
        writer.writerows([f"Tell of {n}.", prose(n, 30)] for n in range(20))
    return path.with_suffix(".csv")


def parquet(path: Path) -> Path:
    pyarrow.parquet.write_table(
        pyarrow.table({"text": [prose(n, 30) for n in range(20)]}), path.with_suffix(".parquet")
    )
    return path.with_suffix(".parquet")


@pytest.mark.parametrize(
    ("write", "form", "shape"),
    [(alpaca, "alpaca", "messages"), (table, "completion", "messages"), (parquet, "text", "text")],
)
def test_a_file_of_each_format(
    begin: Begin,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    write: Callable[[Path], Path],
    form: str,
    shape: str,
) -> None:
    data = write(tmp_path / "mine")
    told = report(capfd, *begin("corpus", data))["report"]
    assert (told["considered"], told["expressed"], told["left_out"]) == (20, 20, {})
    assert told["documents"] == {"train": 16, "valid": 2, "test": 2}
    rows = [row for side in SIDES for row in rows_of(tmp_path / f"run/corpus/{side}.jsonl")]
    assert {(row["repository"], row["framing"], shape in row) for row in rows} == {(data.name, form, True)}
    assert {prose(n, 30).strip() for n in range(20)} == {
        (row["messages"][1]["content"] if shape == "messages" else row["text"]).strip() for row in rows
    }
    files = json.loads((tmp_path / "run/corpus/expression.json").read_text())["data"]["files"]
    assert files == [{"name": data.name, "side": None, "form": form, "rows": 20, "kept": 20}]


def test_a_directory_of_mlx_lm_keeps_its_sides(begin: Begin, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    numbers = {"train": range(12), "valid": range(12, 15), "test": range(15, 17)}
    for side, of in numbers.items():
        write_jsonl(tmp_path / f"mine/{side}.jsonl", [{"text": prose(n, 30)} for n in of])
    write_jsonl(tmp_path / "mine/notes.jsonl", [{"text": "passed over"}])
    told = report(capfd, *begin("corpus", tmp_path / "mine"))["report"]
    assert told["documents"] == {"train": 12, "valid": 3, "test": 2}
    for side, of in numbers.items():
        rows = rows_of(tmp_path / f"run/corpus/{side}.jsonl")
        assert [row["text"] for row in rows] == [prose(n, 30) for n in of]
        assert {row["repository"] for row in rows} == {f"{side}.jsonl"}
    assert json.loads((tmp_path / "run/corpus/expression.json").read_text())["data"]["passed_over"] == ["notes.jsonl"]

    (tmp_path / "mine/valid.jsonl").unlink()  # a missing side is taken from the rows to train on
    told = report(capfd, *begin("corpus", tmp_path / "mine", run="other"))["report"]
    assert (told["documents"]["test"], told["documents"]["train"] + told["documents"]["valid"]) == (2, 12)
    assert told["documents"]["valid"] >= 1
    told = report(capfd, *begin("corpus", tmp_path / "mine", "data: {split: families}\n", run="third"))["report"]
    assert told["documents"] == {"train": 12, "valid": 1, "test": 1}
    status, _, err = call(capfd, *begin("corpus", tmp_path / "mine/test.jsonl", "data: {split: own}\n", run="fourth"))
    assert (status, "the rows have no sides of their own" in err) == (1, True)


def test_a_run_may_lie_among_its_data(begin: Begin, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The run itself, and what a file manager leaves there, are no data; another file of rows is."""
    write_jsonl(tmp_path / "mine.jsonl", [{"text": prose(n, 30)} for n in range(12)])
    report(capfd, *begin("corpus", tmp_path))
    (tmp_path / "run/corpus/test.jsonl").unlink()
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    assert report(capfd, "corpus", tmp_path / "run", f"--data={tmp_path}")["skipped"] is False
    (tmp_path / "run/corpus/test.jsonl").unlink()
    write_jsonl(tmp_path / "more.jsonl", [{"text": prose(20, 30)}])
    status, _, err = call(capfd, "corpus", tmp_path / "run")
    assert (status, "the data were changed after the run began" in err) == (1, True)


def test_rows_that_stand_on_two_sides_are_counted(
    begin: Begin, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for side, of in (("train", range(8)), ("valid", range(8, 10)), ("test", (3, 11))):
        write_jsonl(tmp_path / f"mine/{side}.jsonl", [{"text": prose(n, 30)} for n in of])
    told = report(capfd, *begin("corpus", tmp_path / "mine"))["report"]
    assert told["contamination"]["valid"] == {"ngram": 13, "documents": 2, "contaminated": 0, "share": 0.0}
    assert told["contamination"]["test"] == {"ngram": 13, "documents": 2, "contaminated": 1, "share": 0.5}
    told = report(capfd, *begin("corpus", tmp_path / "mine", "data: {copies: true}\n", run="other"))["report"]
    assert told["left_out"] == {"copy": 1}
    assert told["contamination"]["test"]["contaminated"] == 0


def test_gates_and_copies_judge_rows_where_they_are_asked_to(
    begin: Begin, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": prose(n, 30)} for n in range(12)]
    again, noise, older = rows[4], {"text": "noise and more\n" * 40}, {"text": prose(5, 30) + "and more.\n"}
    data = write_jsonl(tmp_path / "mine.jsonl", [*rows, again, noise, older])

    plain = report(capfd, *begin("corpus", data, run="plain"))["report"]
    assert (plain["expressed"], plain["left_out"]) == (15, {})
    sides = {row["path"]: side for side in SIDES for row in rows_of(tmp_path / f"plain/corpus/{side}.jsonl")}
    assert (sides["5"], sides["6"]) == (sides["13"], sides["15"])  # families are not divided

    judged = report(capfd, *begin("corpus", data, "data: {gates: true, copies: true}\n", run="judged"))["report"]
    assert (judged["considered"], judged["expressed"]) == (15, 12)
    assert judged["left_out"] == {"copy": 1, "gate: zlib_ratio": 1, "near copy": 1}
    files = json.loads((tmp_path / "judged/corpus/expression.json").read_text())["files"]
    assert [file["path"] for file in files] == [str(number) for number in range(1, 16)]
    assert {(file["rule"], file["side"] in SIDES) for file in files if file["expressed"]} == {("include: *", True)}
    assert [(file["path"], file["rule"]) for file in files if not file["expressed"]] == [
        ("13", "copy of mine.jsonl/5"),
        ("14", "gate: zlib_ratio"),
        ("15", "near copy of mine.jsonl/6"),
    ]
    assert judged["repositories"]["mine.jsonl"]["files"] == 15
    trained_on = ngrams(map(said, rows_of(tmp_path / "judged/corpus/train.jsonl")))
    for side in ("valid", "test"):
        assert not trained_on & ngrams(map(said, rows_of(tmp_path / f"judged/corpus/{side}.jsonl")))
        assert judged["contamination"][side]["share"] == 0

    status, _, err = call(
        capfd, *begin("corpus", data, "data: {gates: true}\nexpression: {gates: {min_characters: 9999}}\n", run="none")
    )
    assert (status, "the gates and the search for copies leave no row" in err) == (1, True)


def test_rows_that_cannot_be_used_at_all(begin: Begin, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = write_jsonl(tmp_path / "mine.jsonl", [{"wings": 4}, "{", {"chosen": "a", "rejected": "b"}])
    status, out, err = call(capfd, *begin("corpus", data))
    assert (status, out) == (1, "")
    assert "none of the rows can be learned from" in err
    for number in (1, 2, 3):
        assert f"mine.jsonl, row {number}: " in err
    assert json.loads((tmp_path / "run/run.json").read_text())["stages"]["corpus"]["status"] == "failed"


def test_data_and_genome_exclude_each_other(
    begin: Begin, conversations: Path, inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for command in ("grow", "corpus"):
        status, out, err = call(capfd, *begin(command, conversations), f"--genome={inputs / 'genome.txt'}")
        assert (status, out) == (2, "")
        assert "a genome or from data of your own, one of them" in err
        assert not (tmp_path / "run").exists()
    sources = tmp_path / "genome.yaml"
    sources.write_text("sources: [here]\n")
    status, _, err = call(capfd, *begin("grow", conversations), f"--sources={sources}")
    assert (status, "--sources builds the genome; use it without --genome and --data" in err) == (2, True)
