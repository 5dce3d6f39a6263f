"""`corpus RUN`, `corpus build RUN` and `corpus show RUN`, and how a run finds its blueprint by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chrysalis_mlx.blueprint.load import load_blueprint
from chrysalis_mlx.blueprint.match import best_blueprint
from chrysalis_mlx.genome.text.format import write_genome
from chrysalis_mlx.machine import memory_bytes
from chrysalis_mlx.models.facts import resolve_facts
from tests import tiny
from tests.corpus.genomes import FILES, rows_of
from tests.end_to_end.inputs import BLUEPRINT, call, finals, report

MIXED = BLUEPRINT + "framing: {mix: {text: 1, chat: 0.5, completion: 0.5}}\n"


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[str]:
    place = tmp_path_factory.mktemp("corpus")
    write_genome(FILES, place / "genome.txt")
    (place / "blueprint.yaml").write_text(MIXED)
    return [f"--genome={place / 'genome.txt'}", f"--model={tiny_model}", f"--blueprint={place / 'blueprint.yaml'}"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, options: list[str]) -> Path:
    """A run with its corpus; nobody writes to it."""
    from chrysalis_mlx.cli import main

    run = tmp_path_factory.mktemp("made") / "run"
    assert main(["corpus", str(run), *options, "--json"]) == 0
    return run


def lines(printed: str) -> list[str]:
    return [" ".join(line.split()) for line in printed.splitlines() if line.strip()]


def test_corpus_run_is_corpus_build_run(
    made: Path, options: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    built = report(capfd, "corpus", "build", tmp_path / "run", *options)
    assert (built["stage"], built["run"], built["skipped"]) == ("corpus", str(tmp_path / "run"), False)
    names = {name for name in finals(made) if name.startswith("corpus/")}
    assert {"corpus/messages/train.jsonl", "corpus/expression.json"} <= names
    assert names == {name for name in finals(tmp_path / "run") if name.startswith("corpus/")}
    assert all((made / name).read_bytes() == (tmp_path / "run" / name).read_bytes() for name in names)
    assert set(built["outputs"]) == names
    assert report(capfd, "corpus", *options, made)["report"] == built["report"]  # options may stand first
    for arguments in (["corpus", made], ["corpus", "build", made]):
        status, out, _ = call(capfd, *arguments)
        assert status == 0
        assert lines(out)[0] == "corpus: done before, skipped"
        assert f"{built['report']['expressed']} of {len(FILES)} files are expressed; see corpus/expression.json" in out


def test_the_report_that_is_printed(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = json.loads((made / "corpus/expression.json").read_text())["report"]
    printed = lines(call(capfd, "corpus", made)[1])
    assert printed[2] == "left out by files"
    assert {*printed} >= {f"{rule} {count}" for rule, count in told["left_out"].items()}
    for side in ("train", "valid", "test"):
        figures = (told[figure][side] for figure in ("documents", "rows", "tokens", "supervised"))
        assert " ".join([side, *(f"{figure:,}" for figure in figures)]) in printed
    assert printed[-2:] == [
        f"{told['cut']} texts were cut into several rows",
        "share 13 words in a row with what is trained on: 0.0% of valid, 0.0% of test",
    ]


def test_show(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capfd, "corpus", "show", made)
    told = json.loads((made / "corpus/expression.json").read_text())["report"]
    assert (status, err) == (0, "")
    shown = lines(out)
    tokens, learned = told["tokens"]["train"], told["supervised"]["train"]
    count = told["rows"]["train"]
    assert f"train: {count} rows, {tokens:,} tokens, {learned:,} of them learned ({learned / tokens:.1%})" in shown
    assert f"texts that are cut into several rows: {told['cut']}" in shown
    repository = told["repositories"]["docs"]
    share = repository["tokens"] / sum(of["tokens"] for of in told["repositories"].values())
    assert f"docs {repository['files']} {repository['expressed']} {repository['tokens']:,} {share:.1%}" in shown
    assert sum(line.startswith("row ") and " of " in line for line in shown) == 3
    assert call(capfd, "corpus", "show", made)[1] == out
    assert call(capfd, "corpus", "show", made, "--seed", "1")[1] != out


def test_show_as_json_for_a_framing_and_a_path(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(made / "corpus/train.jsonl")
    chats = [number for number, row in enumerate(rows, 1) if row["framing"] == "chat"]
    value = report(capfd, "corpus", "show", made, "--framing", "chat", "--rows", "999")
    assert value["rows"]["matching"] == len(chats) == len(value["samples"])
    assert [sample["row"] for sample in value["samples"]] == chats
    for sample in value["samples"]:
        row = rows[sample["row"] - 1]
        texts = [token["text"] for token in sample["tokens"]]
        assert texts[0] == "<|im_start|>"
        assert row["messages"][1]["content"] in "".join(texts)
        learned = "".join(token["text"] for token in sample["tokens"] if token["supervised"])
        assert learned.startswith(row["messages"][1]["content"][:20])
    assert value["tokens"]["all"] == sum(len(sample["tokens"]) for sample in value["samples"])

    value = report(capfd, "corpus", "show", made, "--path", "notes/*", "--rows", "0", "--files", "--side", "test")
    assert value["samples"] == []
    assert value["side"] == "test"
    of_notes = [row for row in rows_of(made / "corpus/test.jsonl") if row["repository"] == "notes"]
    assert value["rows"]["matching"] == len(of_notes)
    files = json.loads((made / "corpus/expression.json").read_text())["files"]
    assert value["files"] == [file for file in files if file["repository"] == "notes"]
    assert len(value["files"]) == 6


def test_show_files_tells_of_each(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capfd, "corpus", "show", made, "--files", "--rows", "0")
    assert status == 0
    shown = lines(out)
    for file in json.loads((made / "corpus/expression.json").read_text())["files"]:
        name = f"{file['repository']}/{file['path']}"
        (line,) = [
            line for line in shown if line.endswith(f" {name}") and line.split()[0] in ("train", "valid", "test", "out")
        ]
        assert line.split()[0] == file.get("side", "out")
        assert file["rule"] in line
    assert call(capfd, "corpus", "show", made, "--framing", "fim")[1].endswith("rows of train matches\n")


def test_show_before_the_corpus_is_there_and_after_it_was_changed(
    options: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    status, out, err = call(capfd, "corpus", "show", run)
    assert (status, out, "this is not a run directory" in err) == (1, "", True)
    report(capfd, "corpus", run, *options)
    file = run / "corpus/valid.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"text": "mine"}\n')
    status, out, err = call(capfd, "corpus", "show", run)
    assert (status, out) == (1, "")
    assert "what the stage 'corpus' made is missing or was changed: corpus/valid.jsonl" in err
    assert f"make it again: chrysalis-mlx corpus {run}" in err
    assert report(capfd, "corpus", run)["skipped"] is False
    assert file.read_text() == whole
    record = json.loads((run / "run.json").read_text())
    record["stages"] = {}
    (run / "run.json").write_text(json.dumps(record))
    status, out, err = call(capfd, "corpus", "show", run)
    assert (status, out) == (1, "")
    assert "the stage 'corpus' has not finished (status: never ran)" in err
    assert f"run: chrysalis-mlx corpus {run}" in err


def test_without_a_blueprint_the_best_match_is_taken(
    options: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    genome, run = options[0], tmp_path / "run"
    model = tiny.tiny_llama(tmp_path / "wide", max_position_embeddings=4096)
    expected = best_blueprint(resolve_facts(str(model)), memory_bytes())
    report(capfd, "corpus", run, genome, f"--model={model}")
    record = json.loads((run / "run.json").read_text())["blueprint"]
    assert (record["name"], record["reason"]) == (load_blueprint(expected.path).name, "; ".join(expected.reasons))
    assert len(record["reason"]) > 10
    assert load_blueprint(run / "blueprint.yaml").model.source == str(model)
    assert report(capfd, "corpus", run, genome)["skipped"] is True
    for command in ("corpus", "grow"):
        status, _, err = call(capfd, command, tmp_path / "other", genome)
        assert (status, "a new run needs a model or a blueprint that names one" in err) == (2, True)
        assert not (tmp_path / "other").exists()
