"""What the stages of a run made, typed: the reports of run.json. An evaluation is in evaluation/results.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chrysalis_mlx.records import read_record
from chrysalis_mlx.run import Run as Record
from chrysalis_mlx.training.loop import TrainingResult


@dataclass(frozen=True)
class RepositoryShare:
    """What a corpus took of a repository, or of a file of one's own rows.

    Attributes:
        files: how many there are; of one's own data, rows.
        expressed: how many of them are in the corpus.
        tokens: of all sides.
    """

    files: int
    expressed: int
    tokens: int


@dataclass(frozen=True)
class FramingShare:
    """What of the training texts is framed in one way; `supervised` are the tokens that are learned."""

    rows: int
    tokens: int
    supervised: int


@dataclass(frozen=True)
class CorpusResult:
    """The corpus. `documents`, `rows`, `tokens` and `supervised` (learned) are by side: train, valid, test.

    Attributes:
        considered, expressed: files, or rows of one's own, that there were and that are in.
        left_out: how many are not, by rule.
        repositories, framings: what came from where, and how it is framed.
        cut: texts that were cut into several rows.
    """

    considered: int
    expressed: int
    left_out: Mapping[str, int]
    documents: Mapping[str, int]
    rows: Mapping[str, int]
    tokens: Mapping[str, int]
    supervised: Mapping[str, int]
    repositories: Mapping[str, RepositoryShare]
    framings: Mapping[str, FramingShare]
    cut: int


@dataclass(frozen=True)
class TrainedAdapter(TrainingResult):
    """The training: how its last call ended, and on what.

    Attributes:
        peak_memory: in bytes.
    """

    backend: str
    device: str
    dtype: str
    adapter_parameters: int
    peak_memory: int


@dataclass(frozen=True)
class Stage:
    """How a call of a stage ended: its name (corpus, train, eval or fuse) and its record in run.json."""

    name: str
    record: Mapping[str, Any]

    @property
    def status(self) -> str:
        """done, or paused where the minutes were up."""
        return str(self.record["status"])

    @property
    def skipped(self) -> bool:
        """Whether an earlier call had done it already."""
        return bool(self.record["skipped"])

    @property
    def seconds(self) -> float:
        """What it took when it was done."""
        return float(self.record["seconds"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        return tuple(self.record.get("notes", ()))


def corpus_of(record: Record) -> CorpusResult | None:
    """None while the stage is not done."""
    return read_record(CorpusResult, record.stage("corpus")["report"]) if _has_report(record, "corpus") else None


def training_of(record: Record) -> TrainedAdapter | None:
    """None while no training has ended or paused."""
    return read_record(TrainedAdapter, record.stage("train")["report"]) if _has_report(record, "train") else None


def _has_report(record: Record, stage: str) -> bool:
    return record.stage(stage).get("status") in ("done", "paused") and "report" in record.stage(stage)
