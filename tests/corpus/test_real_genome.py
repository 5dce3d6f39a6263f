"""What the default blueprint for SmolLM2 makes of a real ecosystem, told by rules of this test's own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pytest

from chrysalis_mlx.batches.rows import read_rows
from chrysalis_mlx.batches.tokens import segments
from chrysalis_mlx.blueprint.library import find_blueprint
from chrysalis_mlx.blueprint.load import load_blueprint
from chrysalis_mlx.corpus.build import corpus_of_genome
from chrysalis_mlx.corpus.write import write_corpus
from chrysalis_mlx.genome.text.format import GenomeFile, read_genome
from chrysalis_mlx.models.source import resolve_tokenizer
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests.genome.repositories import REAL_GENOME

GGUF = os.environ.get("CHRYSALIS_SMOLLM2_GGUF")
BACKUPS = "asi-backups"
SIDES = ("train", "valid", "test")

pytestmark = pytest.mark.skipif(
    not REAL_GENOME.is_file(), reason="needs ../shared/data/ecosystem-genome.txt.xz beside the checkout"
)

Name = tuple[str, str]


@dataclass(frozen=True)
class Expressed:
    """The genome, the account of its corpus, and the tokens of the rows of each file."""

    files: list[GenomeFile]
    entries: dict[Name, dict[str, Any]]
    tokens: dict[Name, int]
    report: dict[str, Any]

    def on(self, *sides: str) -> list[GenomeFile]:
        return [file for file in self.files if self.entries[name(file)].get("side") in sides]


@pytest.fixture(
    scope="module",
    params=[
        "tiny",
        pytest.param(
            "SmolLM2",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(GGUF is None, reason="CHRYSALIS_SMOLLM2_GGUF names no file; --slow fetches it"),
            ],
        ),
    ],
)
def expressed(
    request: pytest.FixtureRequest, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Expressed:
    """The gates and copies do not depend on the tokenizer; the rows do."""
    chosen = tokenizer if request.param == "tiny" else resolve_tokenizer(str(GGUF))
    directory = tmp_path_factory.mktemp("real")
    blueprint = load_blueprint(find_blueprint("smollm2-135m-instruct"))
    report = write_corpus(corpus_of_genome(REAL_GENOME, blueprint, chosen), directory, chosen)
    entries = json.loads((directory / "expression.json").read_text(encoding="utf-8"))["files"]
    tokens: dict[Name, int] = {}
    for side in SIDES:
        rows = read_rows(directory / f"{side}.jsonl")
        for row, segment in zip(rows, segments(rows, chosen), strict=True):
            key = (row["repository"], row["path"])
            tokens[key] = tokens.get(key, 0) + len(segment.tokens)
    files = list(read_genome(REAL_GENOME))
    return Expressed(files, {(entry["repository"], entry["path"]): entry for entry in entries}, tokens, report)


def name(file: GenomeFile) -> Name:
    return file.repository, file.path


def is_game_log(file: GenomeFile) -> bool:
    """A text most of whose lines begin with a time of day or with seconds."""
    lines = [line for line in file.text.splitlines() if line.strip()]
    timed = sum(bool(re.search(r"\b\d{1,2}:\d\d(:\d\d)?\b|\b\d+(\.\d+)?s\b", line[:40])) for line in lines)
    return len(lines) >= 10 and timed >= len(lines) / 2


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + n]) for at in range(len(words) - n + 1)}


def similarity(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other) if one or other else 0.0


def families(files: Iterable[GenomeFile]) -> list[set[Name]]:
    """Files connected by half of their 5-word shingles; each pair is looked at."""
    shingles = {name(file): ngrams(file.text, 5) for file in files}
    found = {key: {key} for key in shingles}
    for one, other in combinations(shingles, 2):
        if found[one] is not found[other] and similarity(shingles[one], shingles[other]) >= 0.5:
            found[one] |= found[other]
            for member in found[other]:
                found[member] = found[one]
    return list({id(members): members for members in found.values()}.values())


def live(expressed: Expressed) -> list[GenomeFile]:
    return [file for file in expressed.files if file.repository != BACKUPS]


def test_the_rule_of_this_test_knows_the_logs(expressed: Expressed) -> None:
    logs = [file for file in expressed.files if is_game_log(file)]
    assert len(logs) == 84
    assert sum(len(file.text) for file in logs) > 0.8 * sum(len(file.text) for file in expressed.files)


def test_game_logs_are_at_most_two_percent_of_the_tokens(expressed: Expressed) -> None:
    logs = {name(file) for file in expressed.files if is_game_log(file)}
    everything = sum(expressed.tokens.values())
    assert everything == sum(expressed.report["tokens"].values()) > 300_000
    assert sum(count for key, count in expressed.tokens.items() if key in logs) <= 0.02 * everything


def test_the_other_live_documents_are_in(expressed: Expressed) -> None:
    asked = [file for file in live(expressed) if not is_game_log(file) and len(file.text.strip()) >= 200]
    grouped = families(asked)
    assert len(asked) > len(grouped) > 150
    present = [members for members in grouped if any(expressed.entries[key]["expressed"] for key in members)]
    assert len(present) >= 0.95 * len(grouped)
    assert all(expressed.tokens[key] > 0 for key, entry in expressed.entries.items() if entry["expressed"])


def test_no_backup_is_in_that_also_lives_elsewhere(expressed: Expressed) -> None:
    backups = [file for file in expressed.on(*SIDES) if file.repository == BACKUPS]
    assert 0 < len(backups) < 50
    texts = {" ".join(file.text.split()) for file in live(expressed)}
    shingles = [ngrams(file.text, 5) for file in live(expressed)]
    everything = set().union(*shingles)
    for file in backups:
        assert " ".join(file.text.split()) not in texts
        own = ngrams(file.text, 5)
        assert max(similarity(own, other) for other in shingles) < 0.5
        assert not own or len(own & everything) < 0.5 * len(own)


def test_what_is_held_out_was_not_trained_on(expressed: Expressed) -> None:
    trained: set[tuple[str, ...]] = set().union(*(ngrams(file.text, 13) for file in expressed.on("train")))
    for side in ("test", "valid"):
        held_out = expressed.on(side)
        contaminated = [file for file in held_out if ngrams(file.text, 13) & trained]
        assert len(held_out) >= 10
        assert len(contaminated) <= 0.01 * len(held_out)
        assert expressed.report["contamination"][side]["share"] <= 0.01


def test_every_file_is_told_of_by_rule_and_score(expressed: Expressed) -> None:
    assert len(expressed.entries) == len(expressed.files) == expressed.report["considered"] == 1450
    for entry in expressed.entries.values():
        assert entry["expressed"] is (entry["rule"].startswith("include: "))
        assert entry["expressed"] == (entry.get("side") in SIDES)
        if entry["rule"].startswith("gate: "):
            assert entry["score"] == entry["scores"][entry["rule"].removeprefix("gate: ")]
