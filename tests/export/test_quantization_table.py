"""The README's table of types: sizes against the rules that choose them, and its form. It is measured by a script."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from chrysalis_mlx.export.gate.budgets import BUDGETS
from chrysalis_mlx.gguf import architectures
from chrysalis_mlx.gguf.quantize import TYPES, choose, tensor_bytes
from tests.models.published import PUBLISHED

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- made by scripts/quantization_table -->\n", "<!-- end -->\n"
NEEDS_IMPORTANCE = {"IQ2_M"}
UNTOUCHED = {"F32", "F16", "BF16", "Q8_0", "MXFP4"}


@pytest.fixture(scope="module")
def rows() -> dict[str, list[str]]:
    """The cells of the table in README.md after the type, by type."""
    _, begin, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition(BEGIN)
    table, end, _ = rest.partition(END)
    assert begin
    assert end
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: values for name, *values in cells}


def matrix_bytes(name: str, *, importance: bool) -> tuple[int, int]:
    """Bytes of all tensors of SmolLM2-135M in a type, and its number of weights, from its published config alone."""
    config = PUBLISHED["HuggingFaceTB/SmolLM2-135M-Instruct"][0]
    family = architectures.for_config(config | {"rms_norm_eps": 1e-5, "rope_theta": 1e5})  # no size depends on these
    tensors = family.tensors(())
    kinds = [choose(TYPES[name], tensor.name, tensor.shape, family.traits, importance=importance) for tensor in tensors]
    size = sum(tensor_bytes(kind, tensor.shape) for kind, tensor in zip(kinds, tensors, strict=True))
    return size, sum(math.prod(tensor.shape) for tensor in tensors)


def variants(name: str) -> list[bool]:
    """Without and with an importance matrix, as far as the table tells of it."""
    return [given for given, absent in ((False, NEEDS_IMPORTANCE), (True, UNTOUCHED)) if name not in absent]


def test_every_type_has_its_line(rows: dict[str, list[str]]) -> None:
    assert list(rows) == list(TYPES)
    assert {name for name, row in rows.items() if row[2:5] == ["–"] * 3} == NEEDS_IMPORTANCE
    assert {name for name, row in rows.items() if row[5:] == ["same"] * 3} == UNTOUCHED


def test_the_bits_per_weight_are_those_that_the_rules_give(rows: dict[str, list[str]]) -> None:
    for name, row in rows.items():
        sizes = [matrix_bytes(name, importance=given) for given in variants(name)]
        assert row[1] == " / ".join(dict.fromkeys(f"{8 * size / weights:.3f}" for size, weights in sizes))


def test_a_file_is_its_tensors_and_one_vocabulary(rows: dict[str, list[str]]) -> None:
    heads = []
    for name, row in rows.items():
        sizes = list(dict.fromkeys(matrix_bytes(name, importance=given)[0] for given in variants(name)))
        heads += [float(shown) - size / 1e6 for shown, size in zip(row[0].split(" / "), sizes, strict=True)]
    assert max(heads) - min(heads) < 0.11  # a tenth of a megabyte is what the table shows
    assert 1 < min(heads) < 3


def test_every_file_of_the_table_passes_the_gate(rows: dict[str, list[str]]) -> None:
    for name, row in rows.items():
        for kl, top1 in (row[2:5:2], row[5:8:2]):
            if kl not in ("–", "same"):
                assert 0 <= float(kl) <= BUDGETS[name].kl
                assert 0 < float(top1.removesuffix("%")) <= 100


def test_the_table_is_what_the_script_makes_of_its_figures(tmp_path: Path) -> None:
    distance = {"positions": 8, "kl": 0.012344, "top1": 0.875, "perplexity": 20.5, "reference_perplexity": 19.25}
    row = {"bytes": 91_740_000, "bits": 5.3491, **distance}
    figures = {
        "about": {"model": "M", "held_out": "a text", "held_out_tokens": 1024, "text": "b", "text_tokens": 16384},
        "alone": {name: row for name in TYPES if name not in NEEDS_IMPORTANCE},
        "weighted": {name: row | {"bytes": 91_900_000, "kl": 0.01} for name in TYPES if name not in UNTOUCHED},
    }
    (tmp_path / "figures.json").write_text(json.dumps(figures), encoding="utf-8")
    command = [sys.executable, str(ROOT / "scripts/quantization_table.py"), "--model", "none"]
    command += ["--figures", str(tmp_path / "figures.json")]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    *head, _, _ = made.partition("| type")[0].split("\n")
    assert head == [
        "M, whose perplexity in float32 is 19.250; 8 positions of a text (1,024 tokens);",
        "importance matrix of 16,384 tokens of b.",
    ]
    lines = made.splitlines()[3:]
    assert len(lines) == 2 + len(TYPES)
    for line in (
        "| F32 | 91.7 | 5.349 | 0.01234 | 20.500 | 87.5% | same | same | same |",
        "| Q4_0 | 91.7 / 91.9 | 5.349 | 0.01234 | 20.500 | 87.5% | 0.01000 | 20.500 | 87.5% |",
        "| IQ2_M | 91.9 | 5.349 | – | – | – | 0.01000 | 20.500 | 87.5% |",
    ):
        assert line in lines
