"""The files that left the chrysalis, and what llama.cpp says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from chrysalis_mlx.records import read_record
from chrysalis_mlx.run import Run

Verdict = Literal["verified", "failed", "not verified"]


@dataclass(frozen=True)
class ExportedFile:
    """A GGUF file, held against the trained model. What was not measured is None.

    Attributes:
        type: of the GGUF.
        file: its name in export/.
        bits_per_weight: of the whole file.
        kl: mean KL divergence from the trained model's next-token distributions, in nats.
        kl_error: its standard error.
        kl_max: at the worst position.
        top1: share of positions with the same most likely token.
        perplexity, reference_perplexity: of the file and of the trained model, on the same tokens.
        positions: that were compared.
        lines, lines_equal: lines whose token ids were compared, and those that are the same.
        verdict: failed where there are `failures`.
        failures: what is wrong, as sentences.
    """

    type: str
    file: str
    bytes: int
    bits_per_weight: float | None = None
    kl: float | None = None
    kl_error: float | None = None
    kl_max: float | None = None
    top1: float | None = None
    perplexity: float | None = None
    reference_perplexity: float | None = None
    positions: int | None = None
    lines: int | None = None
    lines_equal: int | None = None
    verdict: Verdict = "not verified"
    failures: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether llama.cpp does with it what the trained model does."""
        return self.verdict == "verified"


@dataclass(frozen=True)
class Exports:
    """Everything in export/ and fused/.

    Attributes:
        files: in the order of the blueprint.
        fused: dtype and max_difference of the logits (a share of the largest); empty where nothing was compared.
        imatrix: texts that the importance matrix was collected from; None: none was used.
        adapter: name of the adapter's own GGUF, or why there is none.
        notes: what the user was told.
    """

    files: tuple[ExportedFile, ...] = ()
    fused: Mapping[str, Any] = field(default_factory=dict)
    imatrix: tuple[str, ...] | None = None
    adapter: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def verified(self) -> int:
        """How many files passed."""
        return sum(file.verified for file in self.files)


def read_exports(run: Run) -> Exports | None:
    """verification.json of a run, which is there as soon as one file has been proved; None before."""
    path = run.path("export", "verification.json")
    if not (run.stage("fuse") and path.is_file()):
        return None
    report = json.loads(path.read_text(encoding="utf-8"))
    imatrix = report.get("imatrix")
    return Exports(
        tuple(_file(name, entry) for name, entry in report.get("gguf", {}).items()),
        report.get("fused") or {},
        tuple(imatrix["datasets"]) if imatrix else None,
        report.get("adapter"),
        tuple(report.get("notes", ())),
    )


def _file(name: str, entry: Mapping[str, Any]) -> ExportedFile:
    failures = entry.get("failures", ())
    verdict: Verdict = "failed" if failures else "verified" if entry.get("verified") else "not verified"
    return read_record(ExportedFile, {"failures": failures, **entry, "type": name, "verdict": verdict})
