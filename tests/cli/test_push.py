"""chrysalis-mlx push, called as a user does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from chrysalis_mlx.cli import main
from chrysalis_mlx.run import Run
from tests.hub.conftest import all_of_a_run, hub, logged_in, run
from tests.hub.runs import GGUF, with_location
from tests.hub.server import Hub
from tests.hub.store import Repository

__all__ = ["all_of_a_run", "hub", "logged_in", "run"]

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], str]:
    capsys.readouterr()
    status = main(["push", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out.splitlines(), told.err


def test_a_push_tells_what_goes_and_where_it_is(run: Run, logged_in: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    logged_in.add(Repository.empty("me/larva")).commit("main", {"old.gguf": b"\0"})
    status, lines, err = call(capsys, run.directory, "me/larva", "--what", "gguf")
    assert (status, err.split(":")[0], err.count("\n")) == (0, "checking", 1)
    repository = logged_in.repositories["me/larva"]
    size = sum(len(repository.files[name]) for name in (*GGUF, "README.md"))
    assert lines[0] == "to be sent to me/larva:"
    assert f"6 files, {size:,} bytes" in lines
    assert any(line.startswith("note: the name, commit and licence of 2 repositories are told") for line in lines)
    assert lines[-5:] == [
        f"{logged_in.url}/me/larva: public, commit {repository.head}",
        "note: the branch also has files that are not of this push: old.gguf",
        "run it:",
        "  ollama run hf.co/me/larva:Q4_K_M",
        "  llama-server -hf me/larva:Q4_K_M",
    ]
    status, lines, _ = call(capsys, run.directory, "me/larva", "--what", "gguf")
    assert f"{logged_in.url}/me/larva: public, nothing new since commit {repository.head}" in lines


def test_a_dry_run_asks_nobody(run: Run, logged_in: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    with_location(run, "git@git.example.org:me/secret.git")
    status, lines, err = call(capsys, run.directory, "me/larva", "--dry-run")
    assert (status, err.count("\n"), logged_in.requests) == (0, 1, [])
    assert lines[0] == "nothing is sent; this would go to me/larva:"
    listed = {line.split()[0]: line.split()[1] for line in lines if line.strip() and len(line.split()) == 2}
    model = run.path("export/model-F16.gguf").stat().st_size
    assert listed["model-F16.gguf"] == f"{model:,}"
    assert listed["adapter/mlx/adapters.safetensors"]
    first, last = lines.index("the card says to the Hub:"), lines.index("  - chrysalis-mlx")
    assert yaml.safe_load("\n".join(lines[first + 1 : last + 1]))["license_name"] == "tiny-licence"
    assert lines[-1] == "looks private: an address for those who have a key: git@git.example.org:me/secret.git"


def test_one_json_object(run: Run, logged_in: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines, err = call(capsys, run.directory, "me/larva", "--private", "--revision", "next", "--json")
    value = json.loads("\n".join(lines))
    repository = logged_in.repositories["me/larva"]
    assert (status, err, value["repository"], value["branch"]) == (0, "", "me/larva", "next")
    assert value["bytes"] == sum(file["bytes"] for file in value["files"])
    assert {file["path"]: file["bytes"] for file in value["files"]} == {
        path: len(data) for path, data in repository.commits[value["pushed"]["commit"]].items() if path[0] != "."
    }
    assert value["pushed"] == {
        "url": f"{logged_in.url}/me/larva",
        "commit": repository.branches["next"],
        "changed": True,
        "private": True,
        "pull_request": None,
        "others": [],
        "warnings": [],
    }
    assert (value["commands"], value["looks_private"]) == ([], [])
    status, lines, _ = call(capsys, run.directory, "me/larva", "--dry-run", "--json")
    assert json.loads("\n".join(lines))["pushed"] is None


def test_a_pull_request(run: Run, logged_in: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    logged_in.add(Repository.empty("org/larva"))
    status, lines, _ = call(capsys, run.directory, "org/larva", "--create-pr", "--message", "a gift")
    assert (status, lines[-1]) == (0, f"pull request: {logged_in.url}/org/larva/discussions/1")
    assert logged_in.repositories["org/larva"].log[0][1]["summary"] == "a gift"


def test_mistakes(run: Run, logged_in: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, tmp_path, "me/larva")
    assert (status, "this is not a run directory" in err) == (1, True)
    status, _, err = call(capsys, run.directory, "larva")
    assert (status, "'larva' is no name for a repository of the Hub" in err) == (2, True)
    status, _, err = call(capsys, run.directory, "me/larva", "--what", "corpus")
    assert (status, "Invalid value for '--what'" in err) == (2, True)
    with_location(run, "ssh://git.example.org/r")
    status, _, err = call(capsys, run.directory, "me/larva")
    assert (status, "add --private, or --public if everybody may read it" in err) == (2, True)
    status, _, err = call(capsys, run.directory, "reader/larva", "--public")
    assert (status, "error: the token has no right to write there (403: " in err) == (1, True)
    assert "Traceback" not in err
    assert logged_in.repositories == {}
