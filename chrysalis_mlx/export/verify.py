"""The gate: a GGUF file must do in llama.cpp what the trained model does in its backend.

Token ids are compared on lines of the corpus; next-token distributions on held-out positions, as
KL(trained ‖ file) = Σ p (log p − log q) in nats, over the tokens that llama.cpp reports plus one bucket for all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.batches.packing import assemble
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.export.llamacpp import LlamaServer
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.progress import Progress, silent

TOP = 1024  # tokens of each distribution that llama.cpp is asked for; the whole vocabulary at WHOLE positions
WHOLE = 4
_PER_TEXT = 16  # positions in each held-out text: every text costs its whole length, each position little more
_RESOLUTION = 1e-3


@dataclass(frozen=True)
class Budget:
    """How far a file may be from the trained model: mean KL in nats, least share of equal most-likely tokens."""

    kl: float | None
    top1: float | None


# What a sound file stays below; a type without a budget is measured and reported. On a tuned SmolLM2-135M: F32 1e-6,
# F16 5e-6, BF16 3e-4. Q8_0: its weights alone 1e-3; llama.cpp's processor kernels, which round the activations to
# 8 bits too, bring it to 4e-3.
BUDGETS = {
    "F32": Budget(1e-4, 0.995),
    "F16": Budget(1e-4, 0.995),
    "BF16": Budget(2e-3, None),
    "Q8_0": Budget(1e-2, None),
}


@dataclass(frozen=True)
class Position:
    """One held-out position: the token ids before it, and the trained model's log p of every next token, (V,)."""

    context: list[int]
    log_p: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verification:
    """What was found for one file; `failures` is empty when it passed."""

    lines: int
    lines_equal: int
    positions: int
    kl: float
    kl_max: float
    kl_whole_vocabulary: float
    top1: float
    failures: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verified": not self.failures}


def held_out_positions(
    engine: Engine, segments: Sequence[Segment], count: int, row_length: int, *, progress: Progress = silent
) -> list[Position]:
    """The trained model's distributions at `count` positions, spread evenly over the longest held-out texts."""
    texts = sorted(segments, key=lambda segment: -len(segment.tokens))[: math.ceil(count / _PER_TEXT)]
    positions: list[Position] = []
    with progress("trained model's distributions", len(texts), unit="text") as bar:
        for number, segment in enumerate(texts):
            share = (count - len(positions)) // (len(texts) - number)
            ends = np.unique(np.linspace(1, len(segment.tokens) - 1, share).astype(int))
            logits = engine.logits(assemble([[segment]], row_length))[0].astype(np.float64)  # (T, V)
            for end in ends:
                log_p = logits[end - 1] - np.logaddexp.reduce(logits[end - 1])
                positions.append(Position(segment.tokens[:end].tolist(), log_p))
            bar.update()
    return positions


def sample_lines(files: Sequence[str], count: int) -> list[str]:
    """Up to `count` different lines that hold text, spread evenly over the given texts."""
    lines = list(dict.fromkeys(line for text in files for line in text.splitlines() if line.strip()))
    chosen = np.unique(np.linspace(0, len(lines) - 1, min(count, len(lines))).astype(int))
    return [lines[index] for index in chosen]


def verify_gguf(
    file: Path,
    type_name: str,
    tokenizer: Tokenizer,
    lines: Sequence[str],
    positions: Sequence[Position],
    *,
    progress: Progress = silent,
) -> Verification:
    """Open a GGUF in llama.cpp and hold it against the trained model."""
    longest = max(len(position.context) for position in positions)
    kls, whole, same = [], [], 0
    with LlamaServer(file, context=longest + 16, precise=True) as server:
        equal = sum(server.tokenize(line, parse_special=True) == tokenizer.encode(line) for line in lines)
        with progress(f"verifying {type_name}", len(positions), unit="position") as bar:
            for number, position in enumerate(positions):
                complete = number * WHOLE // len(positions) != (number + 1) * WHOLE // len(positions)
                ids, log_q = server.next_token_logprobs(position.context, len(position.log_p) if complete else TOP)
                kl = divergence(position.log_p, ids, log_q)
                kls.append(kl)
                whole += [kl] if complete else []
                same += int(ids[np.argmax(log_q)] == np.argmax(position.log_p))
                bar.update(kl=float(np.mean(kls)))
    kl, top1 = float(np.mean(kls)), same / len(positions)
    return Verification(
        lines=len(lines),
        lines_equal=equal,
        positions=len(positions),
        kl=kl,
        kl_max=float(np.max(kls)),
        kl_whole_vocabulary=float(np.mean(whole)),
        top1=top1,
        failures=tuple(_failures(type_name, len(lines), equal, kl, top1)),
    )


def divergence(log_p: npt.NDArray[np.float64], ids: npt.NDArray[np.int64], log_q: npt.NDArray[np.float32]) -> float:
    """KL(p ‖ q) in nats over the tokens `ids` and one bucket for all others.

    By the chain rule it is P · KL(p ‖ q given a token of `ids`) + KL(bucket). The first part does not feel how q is
    normalized, which matters: llama.cpp sums its softmax in float32, and over 50,000 tokens that is off by about 1e-4.
    For the bucket, masses below `_RESOLUTION` are therefore taken as equal.

    Args:
        log_p: (V,) of every token.
        ids: (n,) the tokens whose log q is known; all V of them for the whole vocabulary.
        log_q: (n,).
    """
    known_p, known_q = log_p[ids], log_q.astype(np.float64)
    mass_p, mass_q = float(np.exp(known_p).sum()), float(np.exp(known_q).sum())
    inside = (np.exp(known_p) * ((known_p - np.log(mass_p)) - (known_q - np.log(mass_q)))).sum()
    if len(ids) == len(log_p):
        return float(inside / mass_p)
    rest_p, rest_q = max(1.0 - mass_p, _RESOLUTION), max(1.0 - mass_q, _RESOLUTION)
    bucket = rest_p * np.log(rest_p / rest_q) + (1 - rest_p) * np.log((1 - rest_p) / (1 - rest_q))
    return float(inside + bucket)


def _failures(type_name: str, lines: int, equal: int, kl: float, top1: float) -> list[str]:
    budget = BUDGETS.get(type_name, Budget(None, None))
    failures = []
    if equal < lines:
        failures.append(f"{lines - equal} of {lines} lines have other token ids in llama.cpp")
    if not np.isfinite(kl) or (budget.kl is not None and kl > budget.kl):
        failures.append(f"KL {kl:.2e} is above the budget of {budget.kl}")
    if budget.top1 is not None and top1 < budget.top1:
        failures.append(f"top-1 agreement {top1:.2%} is below the budget of {budget.top1:.1%}")
    return failures
