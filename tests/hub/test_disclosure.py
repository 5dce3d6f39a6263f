"""What nobody meant to tell, in files that are about to be public."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from chrysalis_mlx.errors import RunError
from chrysalis_mlx.hub.card import front_matter
from chrysalis_mlx.hub.push import pack
from chrysalis_mlx.run import Run, write_json, write_text

LARVA = "me/larva"
KEY = "AKIA" + "QYLPMN5HHHFPZAM2"


def record_again(run: Run) -> None:
    """As if the stage had written what lies there now."""
    outputs = [run.path(path) for path in run.stage("fuse")["outputs"]]
    with run.recording("fuse", run.stage("fuse")["inputs"]) as record:
        record["outputs"] = outputs


def say_in_modelfile(run: Run, lines: str) -> None:
    file = run.path("export/Modelfile")
    write_text(file, f"{file.read_text()}{lines}\n")
    record_again(run)


def test_a_key_in_the_system_prompt_looks_private_and_is_not_repeated(run: Run) -> None:
    say_in_modelfile(run, f'SYSTEM """You may use {KEY} for the storage."""')
    parcel = pack(run, LARVA, ("gguf",))
    assert parcel.private == ("Modelfile may hold a password or key: AWS Access Key, line 3",)
    assert KEY not in str((parcel.private, parcel.notes, parcel.card))


@pytest.mark.parametrize("line", ["SYSTEM You are a larva.", "MESSAGE user Hi"])
def test_that_the_system_prompt_goes_along_is_told(run: Run, line: str) -> None:
    note = "the Modelfile tells the system prompt and the messages that go with it"
    assert note not in pack(run, LARVA, ("gguf",)).notes
    say_in_modelfile(run, line)
    parcel = pack(run, LARVA, ("gguf",))
    assert (parcel.notes[-1], parcel.private) == (note, ())


@pytest.mark.parametrize("place", ["/mnt/data/acme/model", "~/acme", "D:\\acme\\model"])
def test_a_place_on_another_machine_looks_private(run: Run, place: str) -> None:
    config = run.path("fused/config.json")
    write_json(config, json.loads(config.read_text()) | {"_name_or_path": place})
    record_again(run)
    [found] = pack(run, LARVA, ("fused",)).private
    assert found == f"config.json names a path of this machine: {place.replace(chr(92), '')}"


def test_a_file_behind_a_link_goes_only_as_it_was_recorded(run: Run, tmp_path: Path) -> None:
    (outside := tmp_path / "outside.json").write_text("x" * run.path("fused/config.json").stat().st_size)
    run.path("fused/config.json").unlink()
    run.path("fused/config.json").symlink_to(outside)
    with pytest.raises(RunError, match=r"fused/config\.json was changed after the run recorded it"):
        pack(run, LARVA, ("fused",))


@pytest.mark.parametrize("name", ["a---", "x\n---\ny: z", "'\n---\n", "x: [", "# x", "\u202e---"])
def test_a_licence_of_any_name_stays_one_value_of_the_front_matter(name: str) -> None:
    front = {"license_name": name, "tags": [name]}
    card = f"---\n{yaml.safe_dump(front, sort_keys=False, width=1000)}---\n\n# Title\n\n---\n"
    assert yaml.safe_load(front_matter(card)) == front
