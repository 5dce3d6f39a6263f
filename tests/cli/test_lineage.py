"""chrysalis-mlx lineage, called as a user does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx import __version__
from chrysalis_mlx.cli import main
from chrysalis_mlx.export.lineage.lineage import Lineage, metadata
from chrysalis_mlx.gguf.keys import read_keys
from chrysalis_mlx.run import Run, sha256_file
from tests.export.finished import finished, flip, moved, write

__all__ = ["finished"]


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return moved(finished, tmp_path / "moved").directory


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], str]:
    status = main(["lineage", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out.splitlines(), told.err


def report(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    status, lines, err = call(capsys, *arguments, "--json")
    assert err == ""
    value = json.loads("\n".join(lines))
    assert isinstance(value, dict)
    return status, value


def test_a_run_as_a_tree_and_its_proof(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Run.open(run).record
    status, lines, _ = call(capsys, run)
    assert status == 0
    assert lines[0] == str(run)
    branches = [line[4:] for line in lines if line.startswith(("├", "└"))]
    assert branches == [
        f"Tiny-1M-Instruct wings, written by chrysalis-mlx {__version__}",
        "model Tiny-1M-Instruct",
        "adapter dora, rank 4, alpha 8",
        "training",
        "blueprint wings",
        "genome",
    ]
    assert f"│   ├── {sha256_file(run / 'adapters/adapters.safetensors')}  adapters/adapters.safetensors" in lines
    assert "│   ├── licence other" in lines
    assert "│   ├── tokens 621" in lines
    assert lines[lines.index("└── genome") + 1] == f"    ├── sha256 {record['genome']['sha256']}"
    assert f"ok      blueprint.yaml  {record['blueprint']['sha256']}" in lines
    assert "ok      export/model-F16.gguf: keys  (23 agree with the run)" in lines
    count = sum(line.startswith("ok ") for line in lines)
    assert lines[-1] == f"{count} of {count} agree"


def test_a_file_alone_tells_and_proves_nothing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copy(run / "export/model-F16.gguf", tmp_path / "a.gguf"))
    status, lines, err = call(capsys, copy)
    assert (status, lines[0], err) == (0, str(copy), "")
    assert lines[1] == f"├── Tiny-1M-Instruct wings, written by chrysalis-mlx {__version__}"
    assert not [line for line in lines if line.startswith("ok ")]
    assert "│   └── learning rate 0.001" in lines
    status, value = report(capsys, copy)
    ours = {name: item for name, item in read_keys(copy).items() if name.startswith(("general.", "chrysalis."))}
    assert (status, value["keys"], value["proof"]) == (0, ours, None)
    assert value["keys"]["chrysalis.genome.lock"] == metadata(Lineage.of_run(Run.open(run)))["chrysalis.genome.lock"]


def test_a_file_in_its_run_or_with_it_is_proved(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside = run / "export/model-F16.gguf"
    status, value = report(capsys, inside)
    assert (status, {check["state"] for check in value["proof"]["checks"]}) == (0, {"ok"})
    copy = Path(shutil.copy(inside, tmp_path / "a.gguf"))
    status, value = report(capsys, copy, "--run", run)
    (own,) = [check for check in value["proof"]["checks"] if check["what"] == str(copy)]
    assert (status, own["state"], own["note"]) == (0, "ok", "it is export/model-F16.gguf")
    flip(copy, b"docs@", b"dogs@")
    status, lines, _ = call(capsys, copy, "--run", run)
    assert status == 1
    assert f"differs {copy}: chrysalis.genome.lock" in lines
    assert lines[-1].endswith(" agree, 2 differ")


def test_what_differs_is_told_with_both_hashes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = run / "adapters/adapters.safetensors"
    recorded = sha256_file(adapter)
    flip(adapter, b"\x00\x00", b"\x00\x01")
    status, lines, _ = call(capsys, run)
    assert status == 1
    place = lines.index("differs adapters/adapters.safetensors")
    assert lines[place + 1 : place + 3] == [
        f"          recorded {recorded}",
        f"          found    {sha256_file(adapter)}",
    ]
    assert lines[-1].endswith(" agree, 1 differ")


def test_what_is_not_here_is_no_failure(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(Run.open(run).record["genome"]["path"]).unlink()
    status, lines, _ = call(capsys, run)
    assert status == 0
    (line,) = [line for line in lines if line.startswith("missing")]
    assert line.startswith("missing genome: genome.txt  (it is not at ")
    assert lines[-1].endswith(" agree, 1 cannot be proved")


def test_a_run_whose_blueprint_is_broken(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(run / "blueprint.yaml", b"rank: 4", b"rank: x")
    status, lines, _ = call(capsys, run)
    assert status == 1
    assert lines[0] == f"{run}: its lineage cannot be told"
    assert any(line.startswith("differs blueprint.yaml") for line in lines)


def test_a_file_of_somebody_else(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.gguf", {"general.name": "\x1b[31mTheirs", "general.tags": ["a", "b"]})
    status, lines, _ = call(capsys, file)
    assert (status, lines) == (
        0,
        [
            f"{file}: chrysalis-mlx did not write this file; it has no chrysalis.* keys",
            "  general.architecture: llama",
            "  general.name: \\x1b[31mTheirs",
            "  general.tags: a, b",
        ],
    )
    status, lines, _ = call(capsys, file, "--run", run)
    assert status == 1
    assert f"differs {file}  (no file of the run has this sha256)" in lines


def test_many_repositories_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = [f"https://h/o/{n}@{n:040d}" for n in range(30)]
    file = write(tmp_path / "a.gguf", {"chrysalis.genome.sha256": "ab", "chrysalis.genome.lock": lock})
    _, lines, _ = call(capsys, file)
    assert lines[-1] == "    └── and 18 more; --json names all"
    assert report(capsys, file)[1]["keys"]["chrysalis.genome.lock"] == lock


def test_what_cannot_be_told(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, tmp_path / "none")[0] == 2
    status, _, err = call(capsys, tmp_path)
    assert (status, "this is not a run directory" in err) == (1, True)
    (tmp_path / "a.txt").write_text("text")
    status, _, err = call(capsys, tmp_path / "a.txt")
    assert (status, "the file is not a GGUF" in err) == (1, True)
    status, _, err = call(capsys, run, "--run", run)
    assert (status, "--run goes with a file" in err) == (2, True)
