"""The blueprint commands, as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chrysalis_mlx.blueprint.describe import schema_text
from chrysalis_mlx.blueprint.library import library
from chrysalis_mlx.machine import memory_bytes
from tests.end_to_end.inputs import call, report
from tests.models.published import write_published


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    return write_published(tmp_path / "Qwen3-0.6B", "Qwen/Qwen3-0.6B")


def test_list(capfd: pytest.CaptureFixture[str]) -> None:
    listed = report(capfd, "blueprint", "list")["blueprints"]
    assert [item["name"] for item in listed] == list(library())
    status, out, _ = call(capfd, "blueprint", "list")
    assert status == 0
    assert all(item["name"] in out for item in listed)


def test_match_ranks_and_says_why(qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = report(capfd, "blueprint", "match", "--model", qwen, "--memory", "16GB")
    assert (found["model"]["name"], found["model"]["parameters"]) == ("Qwen3-0.6B", 596_049_920)
    assert (found["memory_bytes"], found["too_large"]) == (16 * 10**9, None)
    first, *others = found["blueprints"]
    assert (first["name"], first["fits"], first["path"]) == ("qwen3-0.6b", True, str(library()["qwen3-0.6b"]))
    assert first["reasons"] == [
        "for the type qwen3",
        "for 450 to 900 million parameters",
        "for instruct models",
        "for 8 or more GB of memory",
    ]
    assert {item["name"] for item in others} == set(library()) - {"qwen3-0.6b", "tiny", "demo"}
    assert not any(item["fits"] for item in others)


def test_match_for_people(qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capfd, "blueprint", "match", "--model", qwen, "--memory", "8 GiB")
    assert status == 0, err
    words = " ".join(out.split())
    assert words.startswith("Qwen3-0.6B (qwen3): 596.0 million parameters, computed from its config.json; instruct: it")
    assert "1 qwen3-0.6b yes for the type qwen3" in words
    assert words.index("qwen3-0.6b yes") < words.index("gemma-3-1b no")
    status, out, _ = call(capfd, "blueprint", "match", "--model", qwen, "--memory", "2")
    assert status == 0
    assert "the model's weights take 1.2 GB, more than half of the machine's 2.0 GB: `grow` asks for" in out


def test_match_takes_this_machine_by_default(qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert report(capfd, "blueprint", "match", "--model", qwen)["memory_bytes"] == memory_bytes()


@pytest.mark.parametrize("memory", ["much", "0", "-1", "16KB", "1e3"])
def test_an_amount_of_memory_that_is_none(qwen: Path, memory: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capfd, "blueprint", "match", "--model", qwen, f"--memory={memory}")
    assert status == 2
    assert "is no amount of memory; write 16GB or 15.5GiB" in " ".join(err.split())


def test_a_model_that_is_not_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capfd, "blueprint", "match", "--model", tmp_path / "none")
    assert (status, "the model is not there" in err) == (1, True)


def test_new_copies_once_and_the_copy_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capfd, "blueprint", "new", "--from", "whole-genome", "own.yaml")
    assert (status, out) == (0, "own.yaml: 'own', a copy of whole-genome; use it with --blueprint own.yaml\n"), err
    assert "Every gate is open." in Path("own.yaml").read_text()
    assert "--blueprint own.yaml\n" in Path("own.yaml").read_text()
    assert report(capfd, "blueprint", "check", "own.yaml") == {"file": "own.yaml", "valid": True, "problems": []}
    assert report(capfd, "blueprint", "show", "own.yaml")["name"] == "own"
    status, _, err = call(capfd, "blueprint", "new", "--from", "tiny", "own.yaml")
    assert (status, "there is a file already" in err) == (1, True)
    made = report(capfd, "blueprint", "new", "--from", "own.yaml", "second.yaml")
    assert made == {"file": "second.yaml", "name": "second", "from": "own.yaml"}


def test_show_a_blueprint_or_the_schema(capfd: pytest.CaptureFixture[str]) -> None:
    assert call(capfd, "blueprint", "show", "--schema")[1] == schema_text()
    schema = report(capfd, "blueprint", "show", "--schema")
    assert schema["properties"]["expression"]["properties"]["copies"]["properties"]["backups"]["enum"] == [
        "drop",
        "unique-only",
        "keep",
    ]
    assert "\n  row_length: 576\n" in call(capfd, "blueprint", "show", "smollm2-135m-instruct")[1]
    for arguments in ([], ["tiny", "--schema"]):
        status, _, err = call(capfd, "blueprint", "show", *arguments)
        assert status == 2
        assert "give the NAME of a blueprint, or --schema, and not both" in err


def test_check_tells_all_problems(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "b.yaml"
    file.write_text("training: {steps: 0}\nexpression: {weights: {a: -1}}\n")
    status, out, err = call(capfd, "blueprint", "check", file, "--json")
    assert (status, json.loads(out)["valid"]) == (1, False)
    assert [problem.split(":")[0] for problem in json.loads(out)["problems"]] == [
        "training.steps",
        "expression.weights['a']",
    ]
    assert "the blueprint has 2 problems" in err
