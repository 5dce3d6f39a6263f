"""What the stages of a run made, typed: the reports of run.json. An evaluation is in evaluation/results.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chrysalis_mlx.records import read_record
from chrysalis_mlx.run import Run as Record


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
class TrainedAdapter:
    """The training. Losses are in nats per token; `targets` and `seconds` are those of its last call.

    Attributes:
        steps: optimizer steps done.
        train_loss, valid_loss: the last ones.
        best_step, best_loss: of the adapter in adapters/, by its validation.
        rollbacks: how often a bad step was undone.
        paused: the minutes were up; the same call goes on.
        peak_memory: in bytes.
    """

    steps: int
    train_loss: float
    valid_loss: float
    best_step: int
    best_loss: float | None
    rollbacks: int
    stopped_early: bool
    paused: bool
    targets: int
    seconds: float
    backend: str
    device: str
    dtype: str
    adapter_parameters: int
    peak_memory: int


@dataclass(frozen=True)
class ExportedFile:
    """One GGUF.

    Attributes:
        file: its name in export/.
        bits_per_weight: of the whole file.
        verified: whether llama.cpp does with it what the trained model does; False also where it was not tried.
        failures: what it does otherwise.
        kl: mean KL divergence to the trained model, in nats per token.
        perplexity, top1: on the positions of the gate; top1 is the share with the same most likely token.
    """

    file: str
    bytes: int
    bits_per_weight: float
    verified: bool
    failures: tuple[str, ...] = ()
    kl: float | None = None
    perplexity: float | None = None
    top1: float | None = None


@dataclass(frozen=True)
class Export:
    """What lies in fused/ and export/.

    Attributes:
        files: GGUF type -> file; the last one is what the Modelfile names.
        directory: export/.
    """

    directory: Path
    files: Mapping[str, ExportedFile] = field(default_factory=dict)

    def path(self, type_name: str) -> Path:
        """Where the file of a GGUF type lies."""
        return self.directory / self.files[type_name].file


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


def export_of(record: Record) -> Export | None:
    """None while the stage is not done."""
    if not _has_report(record, "fuse"):
        return None
    entries = record.stage("fuse")["report"]["gguf"]
    files = {name: read_record(ExportedFile, entry) for name, entry in entries.items()}
    return Export(record.path("export"), files)


def _has_report(record: Record, stage: str) -> bool:
    return record.stage(stage).get("status") in ("done", "paused") and "report" in record.stage(stage)
