"""A corpus on disk: its files, its report, and mlx-lm, which reads and trains on both unchanged."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from chrysalis_mlx.batches.rows import form_of
from chrysalis_mlx.batches.tokens import read_segments
from chrysalis_mlx.blueprint.schema import Blueprint
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.write import Corpus, read_account, write_corpus
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.genome.text.format import GenomeFile
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny
from tests.corpus.genomes import BLUEPRINT, FILES, ROW_LENGTH, SIDES, expressing, prose, rows_of, with_mix, written
from tests.end_to_end.inputs import finals

MIXED = with_mix(expressing(weights={"notes": 2, "data": 0}), text=1, completion=0.5, chat=0.5)
FORMS = {"text": "text", "completion": "completion", "messages": "chat"}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> tuple[Path, dict[str, Any]]:
    """A corpus of all three forms, and its report."""
    directory = tmp_path_factory.mktemp("mixed")
    return directory / "corpus", written(directory, tokenizer, MIXED)


def test_the_report_is_what_the_files_hold(mixed: tuple[Path, dict[str, Any]], tokenizer: Tokenizer) -> None:
    directory, report = mixed
    account = read_account(directory / "expression.json")
    assert account == {"report": report, "files": account["files"]}
    files = account["files"]
    repositories = {
        name: {"files": 0, "expressed": 0, "tokens": 0} for name in dict.fromkeys(f.repository for f in FILES)
    }
    for file in files:
        repositories[file["repository"]]["files"] += 1
        repositories[file["repository"]]["expressed"] += file["expressed"]
    framings: dict[str, dict[str, int]] = {}
    cut = 0
    for side in SIDES:
        rows = rows_of(directory / f"{side}.jsonl")
        segments = read_segments(directory / f"{side}.jsonl", tokenizer, ROW_LENGTH)
        sizes = [(len(segment.tokens), int(segment.supervised.sum())) for segment in segments]
        assert report["documents"][side] == sum(file.get("side") == side for file in files)
        assert report["rows"][side] == len(rows)
        assert (report["tokens"][side], report["supervised"][side]) == tuple(map(sum, zip(*sizes, strict=True)))
        for row, (tokens, supervised) in zip(rows, sizes, strict=True):
            repositories[row["repository"]]["tokens"] += tokens
            cut += row["parts"] > 1 and row["part"] == 1
            if side == "train":
                counts = framings.setdefault(row["framing"], {"rows": 0, "tokens": 0, "supervised": 0})
                for figure, more in (("rows", 1), ("tokens", tokens), ("supervised", supervised)):
                    counts[figure] += more
    assert report["considered"] == len(files) == len(FILES)
    assert report["expressed"] == sum(file["expressed"] for file in files) == sum(report["documents"].values())
    assert report["left_out"] == {
        "near copy": 1,
        "weight 0": 2,
        "copy": 1,
        "gate: characters": 1,
        "gate: zlib_ratio": 1,
        "backup of known text": 1,
        "exclude: logs/*": 1,
    }
    assert sum(report["left_out"].values()) + report["expressed"] == len(FILES)
    assert report["framings"] == framings
    assert framings.keys() == {"text", "completion", "chat"}
    assert framings["chat"]["supervised"] < framings["chat"]["tokens"]
    assert report["repositories"] == repositories
    assert repositories["data"] == {"files": 2, "expressed": 0, "tokens": 0}
    assert report["cut"] == cut > 0
    for side in ("valid", "test"):
        told = {"ngram": 13, "documents": report["documents"][side], "contaminated": 0, "share": 0.0}
        assert report["contamination"][side] == told


def test_contamination_is_counted_where_it_cannot_be_avoided(tmp_path: Path, tokenizer: Tokenizer) -> None:
    files = [GenomeFile("docs", f"{n}.md", prose(99, 20) + prose(n, 120)) for n in range(10)]
    report = written(tmp_path, tokenizer, files=files)
    assert report["documents"] == {"train": 6, "valid": 2, "test": 2}
    for side in ("valid", "test"):
        assert report["contamination"][side] == {"ngram": 13, "documents": 2, "contaminated": 2, "share": 1.0}


def test_a_rule_is_counted_without_the_file_that_it_names(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Also where a pattern looks like such a rule."""
    report = written(
        tmp_path,
        tokenizer,
        expressing(exclude=("*a copy of *", "logs/*")),
        [*FILES, GenomeFile("docs", "a copy of 1.md", "x")],
    )
    assert report["left_out"]["exclude: *a copy of *"] == 1
    assert (report["left_out"]["copy"], report["left_out"]["near copy"]) == (1, 3)


@pytest.mark.parametrize("blueprint", [BLUEPRINT, MIXED])
def test_the_same_input_gives_the_same_bytes_and_another_seed_another_split(
    tmp_path: Path, tokenizer: Tokenizer, blueprint: Blueprint
) -> None:
    other = replace(blueprint, split=replace(blueprint.split, seed=5))
    for name, chosen in (("a", blueprint), ("b", blueprint), ("c", other)):
        written(tmp_path / name, tokenizer, chosen)
    first, same, different = (
        {file: (tmp_path / name / "corpus" / file).read_bytes() for file in sorted(finals(tmp_path / name / "corpus"))}
        for name in "abc"
    )
    assert first == same
    assert all(different[file] != first[file] for file in (*(f"{side}.jsonl" for side in SIDES), "expression.json"))


def test_several_forms_are_also_in_directories_of_one_form(mixed: tuple[Path, dict[str, Any]]) -> None:
    directory, _ = mixed
    for side in SIDES:
        rows = rows_of(directory / f"{side}.jsonl")
        for form in FORMS:
            file = directory / form / f"{side}.jsonl"
            of_form = [row for row in rows if form_of(row) == form]
            assert (rows_of(file) if file.exists() else []) == of_form
    assert {entry.name for entry in directory.iterdir() if entry.is_dir()} == FORMS.keys()
    assert all(file.stat().st_size for file in directory.rglob("*.jsonl"))


@pytest.mark.parametrize("framing", FORMS.values())
def test_one_form_needs_no_directories(tmp_path: Path, tokenizer: Tokenizer, framing: str) -> None:
    written(tmp_path, tokenizer, with_mix(**{framing: 1.0}))
    assert finals(tmp_path / "corpus") == {*(f"{side}.jsonl" for side in SIDES), "expression.json"}


def test_a_form_that_a_side_has_no_rows_of_has_no_file_there(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """mlx-lm trains without a side that has no file, and stumbles over an empty one."""
    rows: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number, side in enumerate((*SIDES, "train")):
        made = {"text": prose(number, 20)} if number < 3 else {"prompt": "larva ", "completion": "eats"}
        rows[side].append({**made, "repository": "r", "path": f"{number}", "framing": "text", "part": 1, "parts": 1})
    documents = {side: [Document("r", side, prose(number, 20))] for number, side in enumerate(SIDES)}
    write_corpus(Corpus({"r": 3}, 13, rows, documents), tmp_path, tokenizer)
    assert {name for name in finals(tmp_path) if "/" in name} == {
        *(f"text/{side}.jsonl" for side in SIDES),
        "completion/train.jsonl",
    }
    assert load_in_mlx_lm(tmp_path / "completion", tiny.byte_level_bpe(tmp_path / "tokenizer"))[1:] == [[], []]


def test_a_side_without_rows_is_an_error_and_no_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = {"train": [{"text": "a"}], "valid": [], "test": [{"text": "b"}]}
    with pytest.raises(CorpusError, match="no row is left for valid"):
        write_corpus(Corpus({}, 13, rows), tmp_path, tokenizer)
    assert finals(tmp_path) == set()


def load_in_mlx_lm(directory: Path, model: Path) -> list[Any]:
    from mlx_lm.tokenizer_utils import load
    from mlx_lm.tuner.datasets import load_local_dataset

    return list(load_local_dataset(directory, load(model), types.SimpleNamespace(mask_prompt=False)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alone", [True, False])
def test_mlx_lm_reads_each_form_and_makes_our_token_ids(tmp_path: Path, form: str, alone: bool) -> None:
    """Where its own framing is ours: mlx-lm ends every row, and puts prompts and completions into the chat template."""
    model = tiny.byte_level_bpe(tmp_path / "tokenizer")
    tokenizer = Tokenizer.open(model)
    written(tmp_path, tokenizer, with_mix(**({FORMS[form]: 1.0} if alone else {"text": 1, "completion": 1, "chat": 1})))
    directory = tmp_path / "corpus" if alone else tmp_path / "corpus" / form
    compared = 0
    for side, dataset in zip(SIDES, load_in_mlx_lm(directory, model), strict=True):
        rows = rows_of(directory / f"{side}.jsonl") if (directory / f"{side}.jsonl").exists() else []
        assert len(dataset) == len(rows)
        if not rows:
            continue
        segments = read_segments(directory / f"{side}.jsonl", tokenizer, ROW_LENGTH)
        for index, (row, segment) in enumerate(zip(rows, segments, strict=True)):
            ids, offset = dataset.process(dataset[index])
            assert offset == 0
            if form == "text":
                ended = row["part"] == row["parts"]
                assert ids == (segment.tokens.tolist() if ended else [*segment.tokens, tokenizer.eos_id])
            elif form == "messages":
                assert ids[: len(segment.tokens)] == segment.tokens.tolist()
            else:
                text = tokenizer.decode(ids)
                assert row["prompt"] in text
                assert row["completion"] in text
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("form", FORMS)
def test_mlx_lms_own_trainer_takes_each_form(
    tmp_path: Path, mixed: tuple[Path, dict[str, Any]], tiny_model: Path, form: str
) -> None:
    command = [sys.executable, "-m", "mlx_lm", "lora", "--train", "--test", "--model", str(tiny_model)]
    command += ["--data", str(mixed[0] / form), "--adapter-path", str(tmp_path), "--iters", "2", "--batch-size", "1"]
    command += ["--num-layers", "2", "--steps-per-report", "1", "--val-batches", "1", "--test-batches", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Test loss \d+\.\d+", done.stdout)
    trained = safetensors.numpy.load_file(tmp_path / "adapters.safetensors")
    assert len(trained) == 28
    assert all(array.any() for array in trained.values())  # B begins with zeros
