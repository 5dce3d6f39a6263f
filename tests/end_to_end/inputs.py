"""A small genome, a blueprint that is quick to prove, and how the command line is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.cli import main
from chrysalis_mlx.genome.text.format import GenomeFile, write_genome
from tests.corpus.genomes import prose

BLUEPRINT = """\
name: e2e
expression: {exclude: ["logs/*"]}
split: {valid: 0.1, test: 0.1}
adapter: {rank: 4, alpha: 8}
training:
  row_length: 128
  batch_size: 2
  steps: 6
  warmup_steps: 1
  learning_rate: 1e-2
  validate_every: 3
  checkpoint_every: 2
  max_valid_rows: 4
evaluation:
  max_rows: 4
  retention_tokens: 256
  continuations: 2
  continuation_tokens: 16
  prompts: ["What is a larva?"]
  answer_tokens: 8
  file_targets: 32
  resamples: 100
export: {quantize: [F16, Q4_K_M], verify_lines: 20, verify_positions: 4}
"""


def write_inputs(directory: Path) -> tuple[Path, Path]:
    """genome.txt (twelve documents, a copy and a log) and blueprint.yaml."""
    directory.mkdir(parents=True, exist_ok=True)
    documents = [GenomeFile("docs", f"{n}.md", prose(n, 160)) for n in range(12)]
    copy, log = GenomeFile("docs", "copy.md", documents[3].text), GenomeFile("logs", "a.log", "noise\n" * 99)
    write_genome([*documents, copy, log], directory / "genome.txt")
    (directory / "blueprint.yaml").write_text(BLUEPRINT)
    return directory / "genome.txt", directory / "blueprint.yaml"


def origin(inputs: Path, model: Path) -> list[str]:
    """The options that begin a run."""
    return [f"--genome={inputs / 'genome.txt'}", f"--model={model}", f"--blueprint={inputs / 'blueprint.yaml'}"]


def call(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command line, also what libraries write past Python."""
    capfd.readouterr()
    status = main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    return status, captured.out, captured.err


def report(capfd: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """The one JSON object that a command prints with --json."""
    status, out, err = call(capfd, *arguments, "--json")
    assert status == 0, err
    value = json.loads(out)
    assert isinstance(value, dict)
    return value


def finals(directory: Path) -> set[str]:
    """Every file under a directory."""
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
